//! `m8trx onboard`

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::Global;
use super::execution::{execute, observe, step_failure};
use super::inputs::{Given, ask_for_brain_key, brain_url, give_tailscale_key, unusable_brain};
use super::target::Target;
use crate::brain::Brain;
use crate::config::{self, Flags};
use crate::customer::CustomerId;
use crate::plan::runner::millis;
use crate::plan::{Observation, Outcome, Plan, RunReport, StepError};
use crate::steps::{self, Context, Found};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::plan_table::PlanDocument;
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
        mark: None,
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
    let report = execute("onboard", &plan, &observed, &context, terminal).await;
    finish(&context, report, terminal)
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
