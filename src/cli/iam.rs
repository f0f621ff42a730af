//! `m8trx iam`

mod apply;
mod diff;
pub mod operator_policy;
mod show;
mod state;

use std::sync::Arc;

use clap::{Args, Subcommand};

use super::Global;
use super::target::Target;
use crate::customer::CustomerId;
use crate::plan::{InvalidPlan, Plan};
use crate::steps::Context;
use crate::steps::iam_role::IamRole;
use crate::steps::instance_profile::InstanceProfile;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// What a customer's hosts may do, and what whoever runs m8trx must be allowed to do.
#[derive(Debug, Args)]
pub struct IamArgs {
    #[command(subcommand)]
    command: IamCommand,
}

#[derive(Debug, Subcommand)]
enum IamCommand {
    Show(show::ShowArgs),
    Diff(diff::DiffArgs),
    Apply(apply::ApplyArgs),
    OperatorPolicy(operator_policy::OperatorPolicyArgs),
}

/// Runs the subcommand.
pub async fn run(args: &IamArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    match &args.command {
        IamCommand::OperatorPolicy(args) => operator_policy::run(args, global, terminal).await,
        IamCommand::Show(args) => {
            let target = Target::open(global, &global.flags(), terminal).await?;
            let result = show::run(args, &target, terminal).await;
            target.close().await;
            result
        }
        IamCommand::Diff(args) => {
            let target = Target::open(global, &global.flags(), terminal).await?;
            let result = diff::run(args, &target, terminal).await;
            target.close().await;
            result
        }
        IamCommand::Apply(args) => {
            args.check(global, terminal)?;
            let target = Target::open(global, &global.flags(), terminal).await?;
            let result = apply::run(args, &target, terminal).await;
            target.close().await;
            result
        }
    }
}

/// Role and instance profile never concern the brain, so that it need not be reachable for them.
async fn context(
    customer: &CustomerId,
    target: &Target,
    terminal: &Terminal,
) -> Result<Arc<Context>, Failure> {
    let aws = target.aws_of(customer, terminal).await?;
    Ok(Arc::new(Context::without_brain(customer.clone(), aws)))
}

/// The two steps of onboarding that see to them.
fn plan(context: &Arc<Context>) -> Result<Plan, InvalidPlan> {
    Plan::part(vec![
        Arc::new(IamRole(Arc::clone(context))),
        Arc::new(InstanceProfile(Arc::clone(context))),
    ])
}
