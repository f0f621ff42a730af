//! `m8trx tailnet`

mod check;
mod customers;
mod policy;

use clap::{Args, Subcommand};

use super::Global;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// The tailnet's policy file: make it, prove that it isolates customers.
#[derive(Debug, Args)]
pub struct TailnetArgs {
    #[command(subcommand)]
    command: TailnetCommand,
}

#[derive(Debug, Subcommand)]
enum TailnetCommand {
    Policy(policy::PolicyArgs),
    Check(check::CheckArgs),
}

/// Runs the subcommand.
pub async fn run(args: &TailnetArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    match &args.command {
        TailnetCommand::Policy(args) => policy::run(args, global, terminal).await,
        TailnetCommand::Check(args) => check::run(args, global, terminal).await,
    }
}
