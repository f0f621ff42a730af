//! `m8trx tailnet policy`

use std::collections::BTreeSet;

use clap::Args;

use super::brain_port;
use super::customers::named_or_found;
use crate::cli::Global;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::tailnet::policy::generate;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// Print a policy file that isolates customers: tag owners, grants, SSH rules and tests.
///
/// It is a whole file for a tailnet of its own, to paste into the admin console under Access controls. `m8trx tailnet apply`
/// puts the same rules into the file that the tailnet has.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// The customers; by default all that are found in AWS, by their parameters and hosts, and in other
    /// regions by their roles.
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<CustomerId>,
}

/// The customers, and the brain's port. Named ones need nothing but their names.
async fn found(
    args: &PolicyArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(BTreeSet<CustomerId>, u16), Failure> {
    let customers = named_or_found(&args.customers, true, target, terminal).await?;
    let port = if args.customers.is_empty() {
        brain_port::stored(&target.settings, terminal).await
    } else {
        brain_port::configured(&target.settings, terminal)
    };
    Ok((customers, port))
}

/// Prints the file as it is, in either output format: it is a file, not a result.
pub(super) async fn run(
    args: &PolicyArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let target = Target::open(global, &global.flags(), terminal).await?;
    let found = found(args, &target, terminal).await;
    target.close().await;
    let (customers, port) = found?;
    let text = generate::policy(&generate::tags(&customers), port);
    terminal.write(&text).map_err(stdout_failed)
}
