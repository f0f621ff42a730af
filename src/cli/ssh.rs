//! `m8trx ssh`

use std::os::unix::process::CommandExt as _;

use clap::Args;
use serde::Serialize;

use super::Global;
use super::diagnose::{Subject, find};
use super::onboarding::stdout_failed;
use super::reach::{Via, pasted, way};
use super::target::Target;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Open a shell on a customer's host, or run a command there.
///
/// By Tailscale SSH where this machine and the host are in the tailnet, else by AWS Session Manager; it says which. What
/// stands after -- is run on the host by a shell, as with ssh: m8trx ssh cust_acme -- systemctl list-timers
#[derive(Debug, Args)]
pub struct SshArgs {
    /// The customer id, or an instance id.
    #[arg(value_name = "CUSTOMER|INSTANCE")]
    subject: Subject,
    /// Only this way.
    #[arg(long, value_enum, value_name = "WAY")]
    via: Option<Via>,
    /// Print the command that would be run, and do not run it.
    #[arg(long)]
    dry_run: bool,
    /// The command, and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Found {
    schema: &'static str,
    account: String,
    region: String,
    instance_id: String,
    via: &'static str,
    command: String,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.command)
    }
}

/// Runs the command.
pub async fn run(args: &SshArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let target = Target::open(global, &global.flags(), terminal).await?;
    let found = async {
        let aws = target.aws(terminal).await?;
        let host = find(&aws, &args.subject).await?;
        let way = way(&host, args.via, &aws, &target.settings).await?;
        Ok::<_, Failure>((aws, host, way))
    }
    .await;
    target.close().await;
    let (aws, host, way) = found?;
    let mut command = way.command(&args.command);
    if args.dry_run {
        let found = Found {
            schema: "m8trx.ssh/1",
            account: aws.account,
            region: aws.region,
            instance_id: host.id,
            via: way.word(),
            command: pasted(&command),
        };
        return terminal.result(&found).map_err(stdout_failed);
    }
    terminal.say(way.describe());
    // In the place of this process: the shell has the terminal, its signals and its exit code to itself.
    let error = command.exec();
    Err(Failure::words(
        Kind::Other,
        format!("`{}` cannot be started: {error}", pasted(&command)),
    ))
}
