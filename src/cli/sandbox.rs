//! `m8trx sandbox`

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Global;
use super::target::{start_sandbox, with_faults};
use crate::config;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{OutputFormat, Terminal};
use m8trx_sandbox::{Fault, SandboxOptions};

/// Run the embedded sandbox for other commands, the `aws` command among them.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    #[command(subcommand)]
    command: SandboxCommand,
}

#[derive(Debug, Subcommand)]
enum SandboxCommand {
    /// Start a sandbox, print the environment that points at it, and keep it running until Ctrl-C.
    Up {
        /// How often hosts beat, like `5s`; they look for a new key at every beat then [default: every five minutes].
        #[arg(long, value_name = "DURATION", value_parser = heartbeat_every)]
        heartbeat_every: Option<Duration>,
        /// Something that goes wrong in the sandbox; can be given more than once, and to any command beside --sandbox.
        #[arg(long = "fault", value_parser = super::fault::fault(), value_name = "NAME")]
        faults: Vec<Fault>,
    },
}

/// systemd starts a service at most five times in ten seconds.
fn heartbeat_every(text: &str) -> Result<Duration, String> {
    let every = config::parse_duration(text)?;
    if every < Duration::from_millis(2100) {
        return Err(
            "systemd refuses to start a service more often than every 2.1 seconds".to_owned(),
        );
    }
    Ok(every)
}

/// Runs the subcommand.
pub async fn run(args: &SandboxArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    match &args.command {
        SandboxCommand::Up {
            heartbeat_every,
            faults,
        } => {
            // Given before `sandbox`, it is an option of every command.
            let faults = if faults.is_empty() {
                &global.faults
            } else {
                faults
            };
            let options = SandboxOptions {
                heartbeat_every: *heartbeat_every,
                ..with_faults(faults, terminal)
            };
            up(options, terminal).await
        }
    }
}

async fn up(options: SandboxOptions, terminal: &Terminal) -> Result<(), Failure> {
    // From the start, so that a signal meanwhile also ends the hosts.
    let end = terminal.interrupt.watch();
    let sandbox = start_sandbox(options).await?;
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
        end.requested().await;
    }
    sandbox.stop().await;
    written.map_err(|e| Failure::words(Kind::Other, format!("stdout cannot be written to: {e}")))
}
