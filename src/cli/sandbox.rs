//! `m8trx sandbox`

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::Global;
use super::target::{start_sandbox, with_faults};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{OutputFormat, Terminal};

/// Run the embedded sandbox for other commands, the `aws` command among them.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    #[command(subcommand)]
    command: SandboxCommand,
}

#[derive(Debug, Subcommand)]
enum SandboxCommand {
    /// Start a sandbox, print the environment that points at it, and keep it running until Ctrl-C.
    Up,
}

/// Runs the subcommand.
pub async fn run(args: &SandboxArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    match args.command {
        SandboxCommand::Up => up(global, terminal).await,
    }
}

async fn up(global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    // Listened to from the start, so that a signal during it also ends the hosts.
    let other = |e: std::io::Error| {
        Failure::words(Kind::Other, format!("signals cannot be listened to: {e}"))
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(other)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(other)?;
    let sandbox = start_sandbox(with_faults(&global.faults, terminal)).await?;
    let environment = sandbox.environment();
    let text = match terminal.output {
        OutputFormat::Human => environment
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", shell_words::quote(value)))
            .collect(),
        OutputFormat::Json => {
            let environment: std::collections::BTreeMap<_, _> = environment.into_iter().collect();
            format!(
                "{}\n",
                serde_json::json!({ "schema": "m8trx.sandbox/1", "environment": environment })
            )
        }
    };
    let written = terminal.write(&text);
    terminal.say("The sandbox runs until Ctrl-C. In another terminal, paste the lines above, then for example:");
    terminal.say("  m8trx onboard cust_acme");
    terminal.say("  aws ssm get-parameters-by-path --path /m8trx --recursive");
    if written.is_ok() {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
    sandbox.stop().await;
    written.map_err(|e| Failure::words(Kind::Other, format!("stdout cannot be written to: {e}")))
}
