//! `m8trx tailnet`

mod apply;
pub(in crate::cli) mod brain_port;
mod check;
mod customers;
mod devices;
mod doctor;
mod life;
mod lock;
mod policy;

use clap::{Args, Subcommand};

use super::Global;
use crate::config::Settings;
use crate::tailnet::Tailnet;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Look at the tailnet and keep customers apart in it.
#[derive(Debug, Args)]
pub struct TailnetArgs {
    #[command(subcommand)]
    command: TailnetCommand,
}

#[derive(Debug, Subcommand)]
enum TailnetCommand {
    Policy(policy::PolicyArgs),
    Check(check::CheckArgs),
    Devices(devices::DevicesArgs),
    Lock(lock::LockArgs),
    Apply(apply::ApplyArgs),
    Doctor(doctor::DoctorArgs),
}

/// Runs the subcommand.
pub async fn run(args: &TailnetArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    match &args.command {
        TailnetCommand::Policy(args) => policy::run(args, global, terminal).await,
        TailnetCommand::Check(args) => check::run(args, global, terminal).await,
        TailnetCommand::Devices(args) => devices::run(args, global, terminal).await,
        TailnetCommand::Lock(args) => lock::run(args, global, terminal).await,
        TailnetCommand::Apply(args) => apply::run(args, global, terminal).await,
        TailnetCommand::Doctor(args) => doctor::run(args, global, terminal).await,
    }
}

/// The client of Tailscale's API, which this command cannot do without.
pub(super) fn client(settings: &Settings) -> Result<Tailnet, Failure> {
    settings.tailnet.clone().map(Tailnet::new).ok_or_else(|| {
        Failure::words(Kind::Precondition, "no OAuth client of Tailscale is configured")
            .hint("make one in the admin console under Settings > Trust credentials, with the scopes auth_keys, devices:core and policy_file and the tag tag:m8trx-operator; then set M8TRX_TAILSCALE_CLIENT_ID and M8TRX_TAILSCALE_CLIENT_SECRET_FILE (the README has it with two clients of which each may do less)")
    })
}
