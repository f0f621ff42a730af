//! `m8trx onboard`

use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Global;
use super::target::Target;
use crate::aws::Aws;
use crate::brain::mint::DEFAULT_MINT_COMMAND;
use crate::brain::{Brain, BrainError, BrainUrl};
use crate::config::{self, Flags, Settings};
use crate::customer::{BRAIN_URL_PARAMETER, CustomerId};
use crate::plan::event::PlannedStep;
use crate::plan::journal::{self, Journal};
use crate::plan::runner::millis;
use crate::plan::{Event, Events, Observation, Outcome, Plan, RunReport, StepError};
use crate::secret::{BrainKey, ExposeSecret as _, SecretString, TailscaleAuthKey};
use crate::steps::{self, Context, Found, Mint};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::plan_table::PlanDocument;
use crate::terminal::progress::Progress;
use crate::terminal::{Terminal, text};

/// Connect a customer: parameters, role, host, up to the host's first heartbeat at the brain.
///
/// What is there already is kept, so that a run that was interrupted is finished by running it again.
#[derive(Debug, Args)]
pub struct OnboardArgs {
    /// The customer id, `cust_` and then a-z, 0-9 and `_`.
    customer: CustomerId,
    /// Show what would be done, change nothing.
    #[arg(long)]
    dry_run: bool,
    /// The brain's URL, where none is stored yet [env: M8TRX_BRAIN_URL].
    #[arg(long, value_name = "URL")]
    brain_url: Option<String>,
    /// File with the customer's Tailscale auth key; `-` for standard input [env: M8TRX_TAILSCALE_KEY_FILE].
    #[arg(long, value_name = "FILE")]
    tailscale_key_file: Option<PathBuf>,
    /// Command that mints a brain key and prints it; split into words, run without a shell [env: M8TRX_MINT_COMMAND]
    /// [default: node bin/mint-key.js].
    #[arg(long, value_name = "COMMAND")]
    mint_command: Option<String>,
    /// File with a brain key minted elsewhere; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "mint_command")]
    brain_key_file: Option<PathBuf>,
    /// Instance type of a new host [default: t3.small].
    #[arg(long, value_name = "TYPE")]
    instance_type: Option<String>,
    /// Subnet of a new host [default: one of the default VPC].
    #[arg(long, value_name = "ID")]
    subnet: Option<String>,
    /// Image of a new host [default: Ubuntu 22.04 of the region].
    #[arg(long, value_name = "ID")]
    ami: Option<String>,
    /// How long to wait for the first heartbeat, like `90s` or `10m` [default: 15m].
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    timeout: Option<Duration>,
}

/// The result of a finished onboarding.
#[derive(Debug, Serialize)]
struct Onboarded {
    schema: &'static str,
    customer: CustomerId,
    instance_id: String,
    heartbeat: HeartbeatReport,
    steps: Vec<StepLine>,
    elapsed_ms: u64,
}

#[derive(Debug, Serialize)]
struct HeartbeatReport {
    hostname: String,
    ts: jiff::Timestamp,
}

#[derive(Debug, Serialize)]
struct StepLine {
    name: &'static str,
    outcome: &'static str,
    elapsed_ms: u64,
}

impl fmt::Display for Onboarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unchanged = self.steps.iter().all(|step| step.outcome == "unchanged");
        if unchanged {
            write!(
                f,
                "{} is connected, and nothing was changed: {} sent a heartbeat at {} (hostname {})",
                self.customer, self.instance_id, self.heartbeat.ts, self.heartbeat.hostname
            )
        } else {
            write!(
                f,
                "{} is connected: {} sent its heartbeat at {} (hostname {}), after {}",
                self.customer,
                self.instance_id,
                self.heartbeat.ts,
                self.heartbeat.hostname,
                text::duration(Duration::from_millis(self.elapsed_ms))
            )
        }
    }
}

/// Runs the command.
pub async fn run(args: &OnboardArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let flags = Flags {
        brain_url: args.brain_url.clone(),
        mint_command: args.mint_command.clone(),
        brain_key_file: args.brain_key_file.clone(),
        tailscale_key_file: args.tailscale_key_file.clone(),
        instance_type: args.instance_type.clone(),
        subnet: args.subnet.clone(),
        ami: args.ami.clone(),
        timeout: args.timeout,
        ..global.flags()
    };
    let from_stdin = |file: &Option<PathBuf>| file.as_deref() == Some(Path::new("-"));
    if from_stdin(&args.brain_key_file) && from_stdin(&args.tailscale_key_file) {
        return Err(Failure::words(
            Kind::Usage,
            "--brain-key-file - and --tailscale-key-file - cannot both read standard input",
        ));
    }
    let may_go_on = terminal.interactive || args.dry_run || global.yes;
    if !may_go_on {
        return Err(
            Failure::words(Kind::Usage, "there is no terminal to ask whether to go on")
                .hint("pass --yes to go on without being asked, or --dry-run to see the plan"),
        );
    }
    let target = Target::open(global.sandbox, &flags, terminal).await?;
    let result = onboard(args, &target, terminal).await;
    target.close().await;
    result
}

async fn onboard(args: &OnboardArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let settings = &target.settings;
    let customer = &args.customer;
    // Files are read first: a key of the wrong kind ends the run before AWS is even asked.
    let given = Given::read(settings)?;
    let aws = target.aws(terminal).await?;
    let url = brain_url(&aws, settings, terminal).await?;
    let brain = Brain::new(url);
    brain.probe().await.map_err(unusable_brain)?;
    terminal.say(format!("Brain at {} answers", brain.url()));

    let mut context = Context {
        customer: customer.clone(),
        brain,
        mint: given.mint(settings),
        admin_token: given.admin_token.clone(),
        database_url: settings.brain.database_url.clone(),
        instance_type: settings.instance_type.clone(),
        subnet: settings.subnet.clone(),
        ami: settings.ami.clone(),
        timeout: settings.timeout,
        tailscale_auth_key: OnceLock::new(),
        found: Found::default(),
        aws,
    };
    if !args.dry_run {
        ask_for_brain_key(&mut context, terminal).await?;
    }
    let context = Arc::new(context);
    let plan = steps::onboarding(&context).map_err(|e| {
        Failure::new(Kind::Other, &e).within("the steps of onboarding have no order")
    })?;
    let observed = observe(&plan).await?;
    if !args.dry_run {
        give_tailscale_key(
            &context,
            &observed,
            given.tailscale_key,
            settings.suggest,
            terminal,
        )
        .await?;
    }

    let document = plan_document(&plan, &observed, &context, terminal);
    if args.dry_run {
        return terminal.result(&document).map_err(stdout_failed);
    }
    terminal.say("");
    terminal.say(document.to_string());
    if document.changes() > 0 && terminal.interactive {
        let goes_on = terminal.confirm("Go on?", true).await?;
        if !goes_on {
            return Err(Failure::words(
                Kind::Interrupted,
                "not gone on with; nothing was changed",
            ));
        }
    }
    let report = execute(&plan, &observed, &context, terminal).await;
    finish(&context, report, terminal)
}

/// What files and standard input gave, checked.
struct Given {
    tailscale_key: Option<TailscaleAuthKey>,
    brain_key: Option<BrainKey>,
    admin_token: Option<SecretString>,
}

impl Given {
    fn read(settings: &Settings) -> Result<Self, Failure> {
        let tailscale_key = match &settings.tailscale_key_file {
            Some(file) => Some(tailscale_key(file)?),
            None => None,
        };
        let brain_key = match &settings.brain.key_file {
            Some(file) => {
                let text = read_secret(file, "brain key")?;
                Some(BrainKey::parse(text.expose_secret()).map_err(|e| {
                    Failure::new(Kind::Precondition, &e).within(file.display().to_string())
                })?)
            }
            None => None,
        };
        let admin_token = match &settings.brain.admin_token_file {
            Some(file) => Some(read_secret(file, "brain's admin token")?),
            None => None,
        };
        Ok(Self {
            tailscale_key,
            brain_key,
            admin_token,
        })
    }

    /// How a brain key is made: what a flag says before what is configured before the brain's own script.
    fn mint(&self, settings: &Settings) -> Option<Mint> {
        if let Some(key) = &self.brain_key {
            return Some(Mint::Given(key.clone()));
        }
        if let Some(words) = &settings.brain.mint_command {
            return Some(Mint::Command(words.clone()));
        }
        if let Some(token) = &self.admin_token {
            return Some(Mint::Api(token.clone()));
        }
        // The default only where the brain is checked out: elsewhere the operator is asked for a key.
        let [_, script] = DEFAULT_MINT_COMMAND;
        Path::new(script)
            .is_file()
            .then(|| Mint::Command(DEFAULT_MINT_COMMAND.map(str::to_owned).to_vec()))
    }
}

fn tailscale_key(file: &Path) -> Result<TailscaleAuthKey, Failure> {
    let text = read_secret(file, "Tailscale auth key")?;
    TailscaleAuthKey::parse(text.expose_secret())
        .map_err(|e| Failure::new(Kind::Precondition, &e).within(file.display().to_string()))
}

/// Reads a secret from a file, or from standard input for `-`; at most 64 KiB.
fn read_secret(file: &Path, what: &str) -> Result<SecretString, Failure> {
    const MOST: u64 = 64 * 1024;
    let unreadable = |e: std::io::Error| {
        Failure::words(
            Kind::Precondition,
            format!("the {what} cannot be read from {}: {e}", file.display()),
        )
    };
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MOST).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MOST).read_to_string(&mut text))
    }
    .map_err(unreadable)?;
    Ok(text.trim().to_owned().into())
}

/// The brain this run uses: the stored one, or the one to store.
async fn brain_url(
    aws: &Aws,
    settings: &Settings,
    terminal: &Terminal,
) -> Result<BrainUrl, Failure> {
    if let Some(stored) = aws.parameter(BRAIN_URL_PARAMETER).await? {
        let url: BrainUrl = stored.value.expose_secret().parse().map_err(|e| {
            Failure::new(Kind::Precondition, &e)
                .within(format!("the parameter {BRAIN_URL_PARAMETER} holds no brain URL"))
                .hint(format!("correct it: aws ssm put-parameter --name {BRAIN_URL_PARAMETER} --type String --overwrite --value http://…"))
        })?;
        if let Some(other) = settings.brain.url.as_ref().filter(|other| **other != url) {
            if settings.brain.url_is_flag {
                return Err(Failure::words(
                    Kind::Precondition,
                    format!("{BRAIN_URL_PARAMETER} holds {url}, and --brain-url says {other}"),
                )
                .hint(format!("leave --brain-url out to use the stored one; to move the whole fleet: aws ssm put-parameter --name {BRAIN_URL_PARAMETER} --type String --overwrite --value {other}")));
            }
            terminal.warn(format!(
                "{BRAIN_URL_PARAMETER} holds {url}; the configured {other} is not used"
            ));
        }
        return Ok(url);
    }
    match &settings.brain.url {
        Some(url) if !(settings.suggest && !settings.brain.url_is_flag && terminal.interactive) => {
            Ok(url.clone())
        }
        suggestion if terminal.interactive => {
            let check = |text: &str| {
                text.parse::<BrainUrl>()
                    .map(drop)
                    .map_err(|e| e.to_string())
            };
            let text = terminal
                .input(
                    "The brain's URL",
                    suggestion.as_ref().map(ToString::to_string),
                    check,
                )
                .await?;
            text.parse()
                .map_err(|e| Failure::new(Kind::Precondition, &e))
        }
        _ => Err(Failure::words(
            Kind::Precondition,
            format!("the brain's URL is not known: {BRAIN_URL_PARAMETER} does not exist yet"),
        )
        .hint("pass --brain-url http://…, or set `brain.url` in the configuration file")),
    }
}

fn unusable_brain(error: BrainError) -> Failure {
    Failure::new(Kind::Precondition, &error).maybe_hint(error.hint())
}

/// Asks for a brain key where one is needed and nothing can mint it.
async fn ask_for_brain_key(context: &mut Context, terminal: &Terminal) -> Result<(), Failure> {
    if context.mint.is_some() || context.stored_brain_key().await?.is_some() {
        return Ok(());
    }
    let customer = &context.customer;
    if !terminal.interactive {
        return Err(Failure::words(
            Kind::Precondition,
            format!("{customer} needs a brain key, and nothing says how to mint one"),
        )
        .hint("pass --mint-command 'node bin/mint-key.js', or --brain-key-file FILE, or set M8TRX_BRAIN_ADMIN_TOKEN_FILE"));
    }
    terminal.say(format!(
        "{customer} needs a brain key. Where the brain runs: node bin/mint-key.js {customer} \"m8trx onboard {customer}\""
    ));
    let check = |text: &str| BrainKey::parse(text).map(drop).map_err(|e| e.to_string());
    if let Some(text) = terminal.secret("Brain key (hidden)", false, check).await? {
        let key = BrainKey::parse(&text).map_err(|e| Failure::new(Kind::Precondition, &e))?;
        context.mint = Some(Mint::Given(key));
    }
    Ok(())
}

/// Takes the given Tailscale auth key, or asks for one, where one is needed.
async fn give_tailscale_key(
    context: &Context,
    observed: &HashMap<&'static str, Observation>,
    given: Option<TailscaleAuthKey>,
    suggested: bool,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if observed
        .get("tailscale-auth-key")
        .is_some_and(Observation::is_satisfied)
    {
        return Ok(());
    }
    let tag = context.customer.tailscale_tag();
    let key = match given {
        Some(key) if !(suggested && terminal.interactive) => Some(key),
        given if terminal.interactive => {
            let question = if given.is_some() {
                "Tailscale auth key (hidden; Enter for the sandbox's own)".to_owned()
            } else {
                terminal.say(format!(
                    "{} needs a Tailscale auth key. Admin console, Settings > Keys > Generate auth key: reusable, ephemeral, pre-approved, tag {tag}",
                    context.customer
                ));
                "Tailscale auth key (hidden)".to_owned()
            };
            let check = |text: &str| {
                TailscaleAuthKey::parse(text)
                    .map(drop)
                    .map_err(|e| e.to_string())
            };
            match terminal.secret(&question, given.is_some(), check).await? {
                Some(text) => Some(
                    TailscaleAuthKey::parse(&text)
                        .map_err(|e| Failure::new(Kind::Precondition, &e))?,
                ),
                None => given,
            }
        }
        given => given,
    };
    let Some(key) = key else {
        return Err(Failure::words(
            Kind::Precondition,
            format!("{} needs a Tailscale auth key, and none was given", context.customer),
        )
        .hint(format!(
            "mint one in the admin console (Settings > Keys: reusable, ephemeral, pre-approved, tag {tag}) and pass --tailscale-key-file FILE, or - for standard input"
        )));
    };
    let _ = context.tailscale_auth_key.set(key);
    Ok(())
}

/// Looks at every step; the first in the plan's order that cannot be looked at ends the command.
async fn observe(plan: &Plan) -> Result<HashMap<&'static str, Observation>, Failure> {
    let mut results = plan.observe().await;
    let mut observed = HashMap::new();
    for step in plan.steps() {
        match results.remove(step.name()) {
            Some(Ok(observation)) => {
                observed.insert(step.name(), observation);
            }
            Some(Err(error)) => {
                return Err(step_failure(error).within(format!(
                    "{} cannot be planned; nothing was changed",
                    step.name()
                )));
            }
            None => {}
        }
    }
    Ok(observed)
}

fn plan_document(
    plan: &Plan,
    observed: &HashMap<&'static str, Observation>,
    context: &Context,
    terminal: &Terminal,
) -> PlanDocument {
    let document = PlanDocument::new(
        plan,
        observed,
        context.customer.as_str(),
        &context.aws.account,
        &context.aws.region,
    );
    match terminal.columns() {
        Some(columns) => document.with_width(columns),
        None => document,
    }
}

/// Runs the plan, shows and records its events, and turns Ctrl-C into a clean stop.
async fn execute(
    plan: &Plan,
    observed: &HashMap<&'static str, Observation>,
    context: &Context,
    terminal: &Terminal,
) -> RunReport {
    let (events, mut receiver) = Events::channel();
    let interrupt = CancellationToken::new();
    let mut journal = open_journal(context, terminal);
    let mut progress = Progress::new(terminal.clone());
    let listener = tokio::spawn(async move {
        while let Some(event) = receiver.recv().await {
            progress.event(&event);
            if let Some(open) = &mut journal {
                // A full disk must not end an onboarding; what is missing shows in the journal itself.
                if open.record(&event).is_err() {
                    journal = None;
                }
            }
        }
    });
    let on_interrupt = tokio::spawn(stop_on_interrupt(interrupt.clone(), terminal.clone()));
    events.send(Event::RunStarted {
        command: "onboard",
        customer: context.customer.to_string(),
        account: context.aws.account.clone(),
        region: context.aws.region.clone(),
        steps: plan
            .steps()
            .iter()
            .map(|step| PlannedStep {
                name: step.name(),
                description: step.describe(),
            })
            .collect(),
    });
    let report = plan.run(observed, &events, &interrupt).await;
    on_interrupt.abort();
    drop(events);
    // The listener ends with the last sender; what it shows must stand before what comes after.
    let _ = listener.await;
    report
}

/// The first Ctrl-C asks the run to stop, the second ends the process at once.
async fn stop_on_interrupt(interrupt: CancellationToken, terminal: Terminal) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    interrupt.cancel();
    terminal.say("Stopping: what is under way is finished first. Ctrl-C again ends at once.");
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(i32::from(Kind::Interrupted.exit_code()));
    }
}

fn open_journal(context: &Context, terminal: &Terminal) -> Option<Journal> {
    let directory = journal::default_directory(&|name| std::env::var(name).ok())?;
    match Journal::create(&directory, "onboard", context.customer.as_str()) {
        Ok(journal) => Some(journal),
        Err(e) => {
            terminal.warn(format!("no journal is kept: {}: {e}", directory.display()));
            None
        }
    }
}

/// The result, or what failed with what exists by now and how to go on.
fn finish(context: &Context, report: RunReport, terminal: &Terminal) -> Result<(), Failure> {
    if let Some((step, error)) = report.failure {
        let interrupted = matches!(error, StepError::Interrupted);
        let failure = if interrupted {
            Failure::words(Kind::Interrupted, format!("interrupted at {step}"))
        } else {
            step_failure(error).within(format!("{step} failed"))
        };
        let made: Vec<String> = report
            .steps
            .iter()
            .filter(|step| !matches!(step.outcome, Outcome::Unchanged(_)))
            .map(|step| format!("{}: {}", step.name, step.outcome.detail()))
            .collect();
        if !made.is_empty() {
            terminal.say("What exists by now is kept:");
            for line in made {
                terminal.say(format!("  {line}"));
            }
        }
        let again = format!(
            "run the same command again to go on: it keeps what exists (m8trx onboard {})",
            context.customer
        );
        let has_hint = failure.hint.is_some();
        return Err(if has_hint {
            failure
        } else {
            failure.hint(again)
        });
    }
    let (Some(host), Some(heartbeat)) = (context.found.host.get(), context.found.heartbeat.get())
    else {
        return Err(Failure::words(
            Kind::Other,
            "every step is done, and yet there is no host or no heartbeat",
        ));
    };
    let result = Onboarded {
        schema: "m8trx.onboard/1",
        customer: context.customer.clone(),
        instance_id: host.id.clone(),
        heartbeat: HeartbeatReport {
            hostname: heartbeat.hostname.clone(),
            ts: heartbeat.ts,
        },
        steps: report
            .steps
            .iter()
            .map(|step| StepLine {
                name: step.name,
                outcome: step.outcome.word(),
                elapsed_ms: millis(step.elapsed),
            })
            .collect(),
        elapsed_ms: millis(report.elapsed),
    };
    terminal.result(&result).map_err(stdout_failed)
}

fn stdout_failed(error: std::io::Error) -> Failure {
    Failure::words(Kind::Other, format!("stdout cannot be written to: {error}"))
}

/// A step's error with its exit code, its evidence and what to do.
fn step_failure(error: StepError) -> Failure {
    match error {
        StepError::Aws(error) => error.into(),
        StepError::Brain(error) => {
            let kind = match &error {
                BrainError::Unreachable { .. }
                | BrainError::Mint { .. }
                | BrainError::Database(_) => Kind::Other,
                BrainError::NoEventsRoute { .. } | BrainError::NoKeysRoute { .. } => {
                    Kind::Precondition
                }
                _ => Kind::Refused,
            };
            Failure::new(kind, &error).maybe_hint(error.hint())
        }
        StepError::Secret(error) => Failure::new(Kind::Precondition, &error),
        StepError::Precondition { problem, hint } => {
            Failure::words(Kind::Precondition, problem).hint(hint)
        }
        StepError::HostFailed(failure) => {
            let mut shown =
                Failure::words(Kind::HostFailed, failure.to_string()).hint(failure.hint.clone());
            shown.evidence = failure.evidence.clone();
            shown
        }
        error @ StepError::NoHeartbeat { .. } => {
            let StepError::NoHeartbeat { instance_id, .. } = &error else {
                return Failure::new(Kind::NoHeartbeat, &error);
            };
            let hint = format!(
                "the host is kept; its log: aws ec2 get-console-output --latest --output text --instance-id {instance_id}. Run the same command again to wait longer"
            );
            Failure::new(Kind::NoHeartbeat, &error).hint(hint)
        }
        StepError::Interrupted => Failure::words(Kind::Interrupted, "interrupted"),
    }
}
