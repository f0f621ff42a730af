//! The customers a command is about: those that are named, or all that are found in AWS.

use std::collections::BTreeSet;

use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// The customers that are named, or all that are found.
pub(super) async fn named_or_found(
    named: &[CustomerId],
    target: &Target,
    terminal: &Terminal,
) -> Result<BTreeSet<CustomerId>, Failure> {
    if !named.is_empty() {
        return Ok(named.iter().cloned().collect());
    }
    let aws = target.aws(terminal).await?;
    let found = aws.customers().await?;
    terminal.say(match found.len() {
        0 => "No customer is found: neither a parameter beneath /m8trx nor a host with the tag Customer".to_owned(),
        1 => "1 customer is found".to_owned(),
        count => format!("{count} customers are found"),
    });
    Ok(found)
}
