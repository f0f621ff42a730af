//! `m8trx params`

mod delete;
mod list;
mod put;
mod show;

use clap::{Args, Subcommand};

use super::Global;
use super::target::Target;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// List, show, put and delete the parameters hosts read.
///
/// PARAMETER is `brain-url`, `<customer id>/brain-key` or `<customer id>/tailscale-auth-key`, with or without `/m8trx/`
/// before it.
#[derive(Debug, Args)]
pub struct ParamsArgs {
    #[command(subcommand)]
    command: ParamsCommand,
}

#[derive(Debug, Subcommand)]
enum ParamsCommand {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Put(put::PutArgs),
    Delete(delete::DeleteArgs),
}

/// Runs the subcommand.
pub async fn run(args: &ParamsArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    // What can be refused without AWS is refused before it is asked.
    match &args.command {
        ParamsCommand::List(args) => args.check(global, terminal)?,
        ParamsCommand::Show(args) => args.check(global, terminal)?,
        ParamsCommand::Put(args) => args.check(global, terminal)?,
        ParamsCommand::Delete(args) => args.check(global, terminal)?,
    }
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = match &args.command {
        ParamsCommand::List(args) => list::run(args, &target, terminal).await,
        ParamsCommand::Show(args) => show::run(args, &target, terminal).await,
        ParamsCommand::Put(args) => put::run(args, &target, terminal).await,
        ParamsCommand::Delete(args) => delete::run(args, &target, terminal).await,
    };
    target.close().await;
    result
}

/// Secrets are revealed only to somebody who says so: at a terminal or by `--yes`.
fn check_may_reveal(reveal: bool, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    if !reveal || terminal.interactive || global.yes {
        return Ok(());
    }
    Err(Failure::words(
        Kind::Usage,
        "there is no terminal to ask whether to reveal secrets",
    )
    .hint("pass --yes to reveal them without being asked"))
}

async fn ask_to_reveal(what: &str, terminal: &Terminal) -> Result<(), Failure> {
    if terminal.interactive
        && !terminal
            .confirm(&format!("Reveal {what} on stdout?"))
            .await?
    {
        return Err(Failure::words(Kind::Interrupted, "nothing was revealed"));
    }
    Ok(())
}
