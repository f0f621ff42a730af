//! `m8trx iam show`

use std::fmt;

use clap::Args;
use serde::Serialize;

use super::context;
use super::state::{Seen, State};
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// Show a customer's role and instance profile: what is, what should be, and the difference.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The customer id.
    customer: CustomerId,
}

#[derive(Debug, Serialize)]
struct Shown {
    schema: &'static str,
    customer: CustomerId,
    name: String,
    is: State,
    should_be: State,
    changes: Vec<String>,
    problems: Vec<String>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = |title: &str, text: &str| {
            let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
            format!("{title}\n{}\n", lines.join("\n"))
        };
        let (is, should_be) = (self.is.text(), self.should_be.text());
        write!(f, "{}", section(&format!("{} is", self.name), &is))?;
        if is != should_be {
            write!(f, "{}", section("It should be", &should_be))?;
        }
        if self.changes.is_empty() && self.problems.is_empty() {
            return write!(f, "That is as it should be.");
        }
        let mut lines: Vec<String> = Vec::new();
        for problem in &self.problems {
            lines.push(format!("To be settled first: {problem}"));
        }
        for change in &self.changes {
            lines.push(format!("`m8trx iam apply` would: {change}"));
        }
        f.write_str(&lines.join("\n"))
    }
}

pub(super) async fn run(
    args: &ShowArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let context = context(&args.customer, target, terminal).await?;
    let seen = Seen::read(&context).await?;
    let shown = Shown {
        schema: "m8trx.iam-show/1",
        customer: args.customer.clone(),
        name: args.customer.resource_name(),
        is: seen.is,
        should_be: seen.should_be,
        changes: seen.changes,
        problems: seen.problems,
    };
    terminal.result(&shown).map_err(stdout_failed)
}
