//! `m8trx iam diff`

use std::fmt;

use clap::Args;
use serde::Serialize;
use similar::TextDiff;

use super::context;
use super::state::Seen;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// How many equal lines stand around a difference.
const CONTEXT_LINES: usize = 3;

/// Show only the difference between what a customer's role and instance profile are and what they should be.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The customer id.
    customer: CustomerId,
}

#[derive(Debug, Serialize)]
struct Differences {
    schema: &'static str,
    customer: CustomerId,
    name: String,
    /// Whether applying would change anything, or something must be settled first.
    differs: bool,
    changes: Vec<String>,
    problems: Vec<String>,
    /// A unified diff of both as JSON. What others gave the role, and applying leaves alone, stands in it too.
    diff: String,
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.differs {
            write!(f, "{} is as it should be", self.name)?;
            if !self.diff.is_empty() {
                write!(f, "; left alone:\n{}", self.diff.trim_end())?;
            }
            return Ok(());
        }
        write!(f, "{}", self.diff)?;
        let problems = self.problems.iter();
        let changes = self.changes.iter();
        let lines: Vec<String> = problems
            .map(|problem| format!("To be settled first: {problem}"))
            .chain(changes.map(|change| format!("`m8trx iam apply` would: {change}")))
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

pub(super) async fn run(
    args: &DiffArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let context = context(&args.customer, target, terminal).await?;
    let seen = Seen::read(&context).await?;
    let name = args.customer.resource_name();
    let (is, should_be) = (seen.is.text(), seen.should_be.text());
    let diff = TextDiff::from_lines(&is, &should_be)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&format!("{name} is"), "it should be")
        .to_string();
    let differences = Differences {
        schema: "m8trx.iam-diff/1",
        customer: args.customer.clone(),
        name,
        differs: !seen.changes.is_empty() || !seen.problems.is_empty(),
        changes: seen.changes,
        problems: seen.problems,
        diff,
    };
    terminal.result(&differences).map_err(stdout_failed)
}
