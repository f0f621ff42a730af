//! `m8trx params delete`

use std::fmt;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::Global;
use crate::cli::execution::{Order, Subject, check_may_go_on};
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::parameter::ParameterId;
use crate::plan::Plan;
use crate::steps::stored_parameter::AbsentParameter;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// Delete one parameter; shows what it is and what follows, and asks.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// `brain-url`, `<customer id>/brain-key` or `<customer id>/tailscale-auth-key`.
    parameter: ParameterId,
    /// Show what would be deleted, change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl DeleteArgs {
    pub(super) fn check(&self, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
        check_may_go_on(global, self.dry_run, terminal)
    }
}

#[derive(Debug, Serialize)]
struct Deleted {
    schema: &'static str,
    name: String,
    outcome: &'static str,
    /// The brain's id of the key that was in it: it stays valid.
    key_id: Option<String>,
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            "removed" => write!(f, "{} deleted", self.name),
            _ => write!(f, "there is no {}", self.name),
        }
    }
}

pub(super) async fn run(
    args: &DeleteArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let id = &args.parameter;
    let aws = match id.customer() {
        Some(customer) => target.aws_of(customer, terminal).await?,
        None => target.aws(terminal).await?,
    };
    let subject = match id.customer() {
        Some(customer) => Subject::customer(customer, &aws),
        None => Subject::fleet(&aws),
    };
    let step = Arc::new(AbsentParameter::new(aws, id.clone()));
    let plan = Plan::part(vec![step.clone()])?;
    let order = Order {
        command: "params-delete",
        subject,
        dry_run: args.dry_run,
        asks: true,
        terminal,
    };
    let Some(report) = order.carry_out(&plan).await? else {
        return Ok(());
    };
    let outcome = report
        .steps
        .first()
        .map_or("unchanged", |step| step.outcome.word());
    let key_id = step.key_id.get().cloned();
    if let Some(key) = &key_id {
        terminal.warn(format!(
            "the key that was in it, {key}, is still valid: revoke it at the brain"
        ));
    }
    let deleted = Deleted {
        schema: "m8trx.params-delete/1",
        name: id.to_string(),
        outcome,
        key_id,
    };
    terminal.result(&deleted).map_err(stdout_failed)
}
