//! The command line: one file a subcommand.

pub mod brain_url;
pub mod diagnose;
#[cfg(target_os = "linux")]
pub mod drill;
pub mod events;
mod execution;
mod failure;
#[cfg(target_os = "linux")]
mod fault;
pub mod iam;
mod inputs;
pub mod launch;
pub mod mint_key;
pub mod offboard;
pub mod onboard;
mod onboarding;
pub mod params;
pub mod rotate_brain_key;
pub mod rotate_tailscale_key;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod smoke;
pub mod status;
pub mod tailnet;
pub mod target;
pub mod user_data;
pub mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Flags;
use crate::terminal::failure::{EXIT_CODES, Failure, Kind};
use crate::terminal::{OutputFormat, Terminal};

/// Turns a fresh customer EC2 into a host that reports to the brain.
#[derive(Debug, Parser)]
#[command(name = "m8trx", version, about, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Use the embedded sandbox instead of AWS, the brain and Tailscale: nothing leaves this machine.
    #[arg(long, global = true, conflicts_with_all = ["profile", "endpoint_url", "config"])]
    pub sandbox: bool,
    /// Something that goes wrong in the sandbox; can be given more than once.
    #[cfg(target_os = "linux")]
    // Shown where a sandbox is started, and nowhere else: it is no option of the real world.
    #[arg(long = "fault", global = true, hide = true, value_parser = fault::fault(), value_name = "NAME")]
    pub faults: Vec<m8trx_sandbox::Fault>,
    /// AWS profile to take credentials and region from [env: AWS_PROFILE]. Given here, its credentials are used also
    /// where the environment holds keys.
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region [env: AWS_REGION].
    #[arg(long, global = true, value_name = "REGION")]
    pub region: Option<String>,
    /// End without any change where the credentials are of another AWS account.
    #[arg(long, global = true, value_name = "ACCOUNT")]
    pub expect_account: Option<String>,
    /// One endpoint for every AWS service [env: AWS_ENDPOINT_URL].
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// Configuration file [env: M8TRX_CONFIG] [default: ~/.config/m8trx/config.toml].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How results are written.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub output: OutputFormat,
    /// Ask nothing; what a question would settle must be given by flags.
    #[arg(long, short, global = true)]
    pub yes: bool,
    /// Also tell each call to AWS, on stderr.
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

impl Global {
    /// The global part of the flags that settings are made of.
    pub fn flags(&self) -> Flags {
        Flags {
            profile: self.profile.clone(),
            region: self.region.clone(),
            expect_account: self.expect_account.clone(),
            endpoint_url: self.endpoint_url.clone(),
            config: self.config.clone(),
            ..Flags::default()
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Onboard(Box<onboard::OnboardArgs>),
    Offboard(offboard::OffboardArgs),
    RotateTailscaleKey(rotate_tailscale_key::RotateTailscaleKeyArgs),
    RotateBrainKey(Box<rotate_brain_key::RotateBrainKeyArgs>),
    Smoke(Box<smoke::SmokeArgs>),
    Status(status::StatusArgs),
    Events(events::EventsArgs),
    Tailnet(tailnet::TailnetArgs),
    Diagnose(diagnose::DiagnoseArgs),
    #[cfg(target_os = "linux")]
    Drill(drill::DrillArgs),
    Params(params::ParamsArgs),
    BrainUrl(brain_url::BrainUrlArgs),
    MintKey(mint_key::MintKeyArgs),
    Iam(iam::IamArgs),
    Launch(launch::LaunchArgs),
    Wait(wait::WaitArgs),
    UserData(user_data::UserDataArgs),
    #[cfg(target_os = "linux")]
    Sandbox(sandbox::SandboxArgs),
}

/// Parses the command line, runs the command, shows what failed, and gives the exit code.
///
/// No asynchronous runtime is started before a command needs one: `--version` and `--help` end here.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let terminal = Terminal::detect(cli.global.output, cli.global.yes, cli.global.verbose);
    if cli.global.verbose {
        log_calls(&terminal);
    }
    #[cfg(target_os = "linux")]
    if let Err(failure) = check_faults(&cli) {
        failure.show(&terminal);
        return ExitCode::from(failure.kind.exit_code());
    }
    let result = match cli.command {
        Command::UserData(args) => user_data::run(&args, &terminal),
        Command::Onboard(args) => {
            with_runtime(&terminal, onboard::run(&args, &cli.global, &terminal))
        }
        Command::Offboard(args) => {
            with_runtime(&terminal, offboard::run(&args, &cli.global, &terminal))
        }
        Command::RotateTailscaleKey(args) => with_runtime(
            &terminal,
            rotate_tailscale_key::run(&args, &cli.global, &terminal),
        ),
        Command::RotateBrainKey(args) => with_runtime(
            &terminal,
            rotate_brain_key::run(&args, &cli.global, &terminal),
        ),
        Command::Smoke(args) => with_runtime(&terminal, smoke::run(&args, &cli.global, &terminal)),
        Command::Tailnet(args) => {
            with_runtime(&terminal, tailnet::run(&args, &cli.global, &terminal))
        }
        Command::Status(args) => {
            with_runtime(&terminal, status::run(&args, &cli.global, &terminal))
        }
        Command::Events(args) => {
            with_runtime(&terminal, events::run(&args, &cli.global, &terminal))
        }
        Command::Diagnose(args) => {
            with_runtime(&terminal, diagnose::run(&args, &cli.global, &terminal))
        }
        #[cfg(target_os = "linux")]
        Command::Drill(args) => with_runtime(&terminal, drill::run(&args, &cli.global, &terminal)),
        Command::BrainUrl(args) => {
            with_runtime(&terminal, brain_url::run(&args, &cli.global, &terminal))
        }
        Command::MintKey(args) => {
            with_runtime(&terminal, mint_key::run(&args, &cli.global, &terminal))
        }
        Command::Iam(args) => with_runtime(&terminal, iam::run(&args, &cli.global, &terminal)),
        Command::Launch(args) => {
            with_runtime(&terminal, launch::run(&args, &cli.global, &terminal))
        }
        Command::Wait(args) => with_runtime(&terminal, wait::run(&args, &cli.global, &terminal)),
        Command::Params(args) => {
            with_runtime(&terminal, params::run(&args, &cli.global, &terminal))
        }
        #[cfg(target_os = "linux")]
        Command::Sandbox(args) => {
            with_runtime(&terminal, sandbox::run(&args, &cli.global, &terminal))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show(&terminal);
            ExitCode::from(failure.exit_code(&terminal))
        }
    }
}

#[cfg(target_os = "linux")]
/// Faults are of the sandbox; a real environment must not be thought to have them.
fn check_faults(cli: &Cli) -> Result<(), Failure> {
    let in_sandbox = cli.global.sandbox || matches!(cli.command, Command::Sandbox(_));
    if cli.global.faults.is_empty() || in_sandbox {
        return Ok(());
    }
    Err(Failure::words(
        Kind::Usage,
        "--fault is for the sandbox, and --sandbox is not given",
    )
    .hint("add --sandbox; a drill takes the faults as arguments: m8trx drill FAULT"))
}

fn with_runtime(
    terminal: &Terminal,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| {
            Failure::words(
                Kind::Other,
                format!("the asynchronous runtime cannot be started: {e}"),
            )
        })?;
    let result = runtime.block_on(terminal.interruptible(command));
    // A question that was interrupted may still be waiting for its answer on a thread of its own.
    runtime.shutdown_background();
    result
}

/// Writes this crate's own debug lines to stderr. The libraries' are left out: they may show what was sent.
fn log_calls(terminal: &Terminal) {
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::prelude::*;

    let terminal = terminal.clone();
    let own = filter_fn(|metadata| metadata.target().starts_with("m8trx"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || terminal.clone())
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_filter(own);
    // Only the first subscriber of a process is taken, and this is it.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}
