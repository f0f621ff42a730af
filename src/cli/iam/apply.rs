//! `m8trx iam apply`

use std::fmt;

use clap::Args;
use serde::Serialize;

use super::{context, plan};
use crate::cli::Global;
use crate::cli::execution::{Order, StepLine, Subject, check_may_go_on};
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// Make a customer's role and instance profile what they should be.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The customer id.
    customer: CustomerId,
    /// Show what would be done, change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl ApplyArgs {
    pub(super) fn check(&self, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
        check_may_go_on(global, self.dry_run, terminal)
    }
}

#[derive(Debug, Serialize)]
struct Applied {
    schema: &'static str,
    customer: CustomerId,
    name: String,
    steps: Vec<StepLine>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unchanged = self.steps.iter().all(|step| step.outcome == "unchanged");
        if unchanged {
            return write!(
                f,
                "role and instance profile {} are as they should be, and nothing was changed",
                self.name
            );
        }
        let lines: Vec<String> = self
            .steps
            .iter()
            .map(|step| format!("{} {}: {}", step.name, step.outcome, step.detail))
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

pub(super) async fn run(
    args: &ApplyArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let context = context(&args.customer, target, terminal).await?;
    let order = Order {
        command: "iam-apply",
        subject: Subject::customer(&args.customer, &context.aws),
        dry_run: args.dry_run,
        asks: true,
        terminal,
    };
    let Some(report) = order.carry_out(&plan(&context)?).await? else {
        return Ok(());
    };
    let applied = Applied {
        schema: "m8trx.iam-apply/1",
        customer: args.customer.clone(),
        name: args.customer.resource_name(),
        steps: StepLine::of(&report),
    };
    terminal.result(&applied).map_err(stdout_failed)
}
