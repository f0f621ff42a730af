//! The command line: one file a subcommand.

pub mod brain_url;
pub mod completions;
pub mod config;
pub mod diagnose;
pub mod doctor;
#[cfg(target_os = "linux")]
pub mod drill;
pub mod events;
mod execution;
mod failure;
#[cfg(target_os = "linux")]
mod fault;
pub mod help;
pub mod iam;
pub mod init;
mod inputs;
pub mod launch;
pub mod logs;
pub mod mint_key;
pub mod offboard;
pub mod onboard;
mod onboarding;
pub mod params;
mod reach;
pub mod rotate_brain_key;
pub mod rotate_tailscale_key;
pub mod runs;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod smoke;
pub mod ssh;
pub mod status;
pub mod tailnet;
pub mod target;
pub mod user_data;
mod version;
pub mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::Flags;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{OutputFormat, Terminal};

/// What leads somewhere from nothing.
const FIRST_STEPS: &str = "\
First steps:
  m8trx onboard cust_acme --sandbox   try it: no account, no network, nothing is kept
  m8trx init                          ask for account, brain and Tailscale, and write the configuration file
  m8trx doctor                        check everything that onboarding needs
  m8trx onboard cust_acme             connect a customer
  m8trx status                        how customers stand

More: m8trx help exit-codes|config|environment|sandbox|security";

/// Turns a fresh customer EC2 into a host that reports to the brain.
#[derive(Debug, Parser)]
#[command(name = "m8trx", about, after_help = FIRST_STEPS, arg_required_else_help = true)]
#[command(
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_required = false
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    /// Print the version; with --verbose also what it is made of.
    #[arg(long, short = 'V')]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
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
        short,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub output: OutputFormat,
    /// The same as --output json.
    #[arg(long, global = true, conflicts_with = "output")]
    pub json: bool,
    /// Write nothing but the result and errors; asks nothing.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Ask nothing; what a question would settle must be given by flags.
    #[arg(long, short, global = true)]
    pub yes: bool,
    /// Also tell each call to AWS, on stderr.
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

impl Global {
    fn output(&self) -> OutputFormat {
        if self.json {
            OutputFormat::Json
        } else {
            self.output
        }
    }

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
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    Onboard(Box<onboard::OnboardArgs>),
    Offboard(offboard::OffboardArgs),
    RotateTailscaleKey(rotate_tailscale_key::RotateTailscaleKeyArgs),
    RotateBrainKey(Box<rotate_brain_key::RotateBrainKeyArgs>),
    Smoke(Box<smoke::SmokeArgs>),
    Status(status::StatusArgs),
    Events(events::EventsArgs),
    Tailnet(tailnet::TailnetArgs),
    Diagnose(diagnose::DiagnoseArgs),
    Ssh(ssh::SshArgs),
    Logs(logs::LogsArgs),
    Runs(runs::RunsArgs),
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
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
    Help(help::HelpArgs),
}

/// Parses the command line, runs the command, shows what failed, and gives the exit code.
///
/// No asynchronous runtime is started before a command needs one: `--version` and `--help` end here.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let loud = Terminal::detect(cli.global.output(), cli.global.yes, cli.global.verbose);
    let terminal = if cli.global.quiet {
        loud.muted()
    } else {
        loud.clone()
    };
    if cli.global.verbose {
        log_calls(&terminal);
    }
    #[cfg(target_os = "linux")]
    if let Err(failure) = check_faults(&cli) {
        failure.show(&loud);
        return ExitCode::from(failure.kind.exit_code());
    }
    let command = match cli.command {
        Some(command) if !cli.version => command,
        _ if cli.version => return ended(version::run(cli.global.verbose, &terminal), &loud),
        _ => return usage(&no_command()),
    };
    let result = match command {
        Command::Init(args) => with_runtime(&terminal, init::run(&args, &cli.global, &terminal)),
        Command::Doctor(args) => {
            with_runtime(&terminal, doctor::run(&args, &cli.global, &terminal))
        }
        Command::Ssh(args) => with_runtime(&terminal, ssh::run(&args, &cli.global, &terminal)),
        Command::Logs(args) => with_runtime(&terminal, logs::run(&args, &cli.global, &terminal)),
        Command::Runs(args) => runs::run(&args, &terminal),
        Command::Config(args) => config::run(&args, &cli.global, &terminal),
        Command::Completions(args) => completions::completions(&args, &terminal),
        Command::Man(args) => completions::man(&args, &terminal),
        Command::Help(args) => help::run(&args, &terminal),
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
    ended(result, &loud)
}

fn ended(result: Result<(), Failure>, terminal: &Terminal) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show(terminal);
            ExitCode::from(failure.exit_code(terminal))
        }
    }
}

/// Options alone are no command.
fn no_command() -> clap::Error {
    Cli::command().error(
        ErrorKind::MissingSubcommand,
        "a command is missing; `m8trx --help` lists them",
    )
}

/// What is wrong with the command line, or the help that was asked for; scripts get a document too.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing more can be done for an output that cannot be written to.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asks_for_json = arguments.iter().enumerate().any(|(index, word)| {
        let after = || arguments.get(index + 1).is_some_and(|next| next == "json");
        matches!(
            word.as_str(),
            "--json" | "--output=json" | "-ojson" | "-o=json"
        ) || matches!(word.as_str(), "--output" | "-o") && after()
    });
    let rendered = error.render().to_string();
    let mut lines = rendered.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let terminal = Terminal::detect(OutputFormat::Json, true, false).muted();
    if asks_for_json {
        Failure::words(Kind::Usage, first).show(&terminal);
    } else if rendered.contains("m8trx onboard")
        && error.kind() == ErrorKind::MissingRequiredArgument
    {
        Terminal::detect(OutputFormat::Human, true, false).say(
            "\nFor example: m8trx onboard cust_acme; to try it without an account: m8trx onboard cust_acme --sandbox",
        );
    }
    ExitCode::from(Kind::Usage.exit_code())
}

/// Faults are of the sandbox; a real environment must not be thought to have them.
#[cfg(target_os = "linux")]
fn check_faults(cli: &Cli) -> Result<(), Failure> {
    let in_sandbox = cli.global.sandbox || matches!(cli.command, Some(Command::Sandbox(_)));
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
