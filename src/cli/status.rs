//! `m8trx status`

use std::time::Duration;

use clap::Args;

use super::Global;
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::aws::Aws;
use crate::config::{Settings, parse_duration};
use crate::customer::CustomerId;
use crate::status::{self, Memory};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::screen::{self, Screen};
use crate::terminal::status_table::StatusDocument;
use crate::terminal::{OutputFormat, Terminal};

/// Nothing changes faster than AWS's own lists, and they are not free of limits.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Show how customers stand: parameters, keys, hosts, heartbeats, and what a person should see to.
///
/// In one word each: misconfigured (something is there otherwise than it should be), partial (something is not there),
/// silent (everything is there and the host does not beat, or is stopped), unreachable (the brain cannot be asked),
/// booting (launched less than 15 minutes ago), healthy. What needs a person comes first. With more than 40 customers,
/// healthy ones are counted; --all lists them. Nothing is changed, and no call is made for each customer.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only these customers.
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<CustomerId>,
    /// List healthy customers too, however many there are.
    #[arg(long)]
    all: bool,
    /// End with exit code 7 when anything needs a person.
    #[arg(long)]
    check: bool,
    /// Keep looking, and show it in place until Ctrl-C.
    #[arg(long, conflicts_with = "check")]
    watch: bool,
    /// How often --watch looks, like `10s` or `1m`.
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "watch", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < SHORTEST_INTERVAL {
        return Err("AWS is not asked more often than once a second".to_owned());
    }
    Ok(interval)
}

/// Runs the command.
pub async fn run(args: &StatusArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    if args.watch && terminal.output == OutputFormat::Json {
        return Err(Failure::words(
            Kind::Usage,
            "--watch draws on a terminal, and --output json is one document",
        )
        .hint("leave --watch out and run the command as often as needed"));
    }
    if args.watch && !screen::can_draw() {
        return Err(Failure::words(
            Kind::Usage,
            "--watch needs a terminal to draw on, and stdout is none",
        )
        .hint("leave --watch out and run the command as often as needed"));
    }
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = show(args, &target, terminal).await;
    target.close().await;
    result
}

async fn look(
    args: &StatusArgs,
    aws: &Aws,
    settings: &Settings,
    memory: &mut Memory,
    terminal: &Terminal,
) -> Result<StatusDocument, Failure> {
    let status = status::look(aws, settings, &args.customers, memory).await?;
    // Whoever names customers wants to see them.
    let all = args.all || !args.customers.is_empty();
    Ok(StatusDocument::new(status, all).with_width(terminal.columns()))
}

async fn show(args: &StatusArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let aws = target.aws(terminal).await?;
    let mut memory = Memory::default();
    let first = look(args, &aws, &target.settings, &mut memory, terminal).await?;
    if args.watch {
        return watch(args, &aws, &target.settings, memory, first, terminal).await;
    }
    terminal.result(&first).map_err(stdout_failed)?;
    if args.check && first.needs_person() > 0 {
        return Err(Failure::words(
            Kind::NeedsPerson,
            match first.needs_person() {
                1 => "1 thing needs a person".to_owned(),
                count => format!("{count} things need a person"),
            },
        ));
    }
    Ok(())
}

/// Draws again and again until Ctrl-C, which is how it ends and no failure.
async fn watch(
    args: &StatusArgs,
    aws: &Aws,
    settings: &Settings,
    mut memory: Memory,
    first: StatusDocument,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let end = terminal.interrupt.watch();
    let mut shown = first;
    let mut trouble = None;
    let mut screen = Screen::open().map_err(stdout_failed)?;
    loop {
        let now = jiff::Timestamp::now().strftime("%F %T UTC");
        let mut text = format!("{now}  (Ctrl-C ends)\n{shown}");
        if let Some(trouble) = &trouble {
            text = format!("The last look failed, this is older: {trouble}\n{text}");
        }
        screen.draw(&text).map_err(stdout_failed)?;
        let next = async {
            tokio::time::sleep(args.interval).await;
            look(args, aws, settings, &mut memory, terminal).await
        };
        tokio::select! {
            () = end.requested() => break,
            looked = next => match looked {
                Ok(document) => (shown, trouble) = (document, None),
                Err(failure) => trouble = Some(failure.causes.join(": ")),
            },
        }
    }
    drop(screen);
    terminal.result(&shown).map_err(stdout_failed)
}
