//! `m8trx onboard`

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::Global;
use super::execution::{check_may_go_on, execute, failed, observe, tell_what_is_kept};
use super::inputs::{Given, ask_for_brain_key, give_tailscale_key};
use super::onboarding::{OnboardingArgs, context, plan_document, stdout_failed};
use super::target::Target;
use crate::brain::heartbeat::Bootstrap;
use crate::customer::CustomerId;
use crate::plan::RunReport;
use crate::plan::runner::millis;
use crate::steps::{self, Context};
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::text::{self, one_line};

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
    /// End the host when it fails and this run has launched it, for scripts; otherwise it is kept to be looked at.
    #[arg(long)]
    terminate_on_failure: bool,
    #[command(flatten)]
    onboarding: OnboardingArgs,
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
    /// Where the host's bootstrap stood then, where the heartbeat says it.
    bootstrap: Option<Bootstrap>,
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
                self.customer,
                self.instance_id,
                self.heartbeat.ts,
                one_line(&self.heartbeat.hostname)
            )
        } else {
            write!(
                f,
                "{} is connected: {} sent its heartbeat at {} (hostname {}), after {}",
                self.customer,
                self.instance_id,
                self.heartbeat.ts,
                one_line(&self.heartbeat.hostname),
                text::duration(Duration::from_millis(self.elapsed_ms))
            )
        }?;
        match &self.heartbeat.bootstrap {
            Some(Bootstrap::Running { .. }) => write!(
                f,
                "\nStill under way on the host: packages that other software needs. When they are there: m8trx status {}",
                self.customer
            ),
            _ => Ok(()),
        }
    }
}

/// Runs the command.
pub async fn run(args: &OnboardArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let flags = args.onboarding.flags(global)?;
    check_may_go_on(global, args.dry_run, terminal)?;
    let target = Target::open(global, &flags, terminal).await?;
    let result = onboard(args, &target, terminal).await;
    target.close().await;
    result
}

async fn onboard(args: &OnboardArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let settings = &target.settings;
    let customer = &args.customer;
    // Files are read first: a key of the wrong kind ends the run before AWS is even asked.
    let given = Given::read(settings)?;
    let aws = target.aws_of(customer, terminal).await?;
    let mut context = context(customer, None, aws, &given, settings, terminal).await?;
    if !args.dry_run {
        ask_for_brain_key(&mut context, terminal).await?;
    }
    let context = Arc::new(context);
    let plan = steps::onboarding(&context)?;
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
    if document.changes() > 0 {
        terminal.agree("Go on?").await?;
    }
    let report = execute("onboard", &plan, &observed, &context, terminal).await;
    finish(args, &context, report, terminal).await
}

/// Says how to reach a host that failed, or ends it where that was asked for.
async fn kept_or_ended(
    args: &OnboardArgs,
    context: &Context,
    failure: Failure,
    terminal: &Terminal,
) -> Failure {
    let (Some(host), Some(_)) = (context.found.host.get(), &failure.diagnosis) else {
        return failure;
    };
    let launched = context.found.launched.get().is_some();
    if args.terminate_on_failure && launched {
        match context.aws.terminate(&host.id).await {
            Ok(false) => terminal.warn(format!(
                "{} could not be ended: EC2 does not know it, or not yet",
                host.id
            )),
            Ok(true) => {
                return failure.hint(format!(
                    "{} was ended, as --terminate-on-failure asks; without it, it is kept to be looked at",
                    host.id
                ));
            }
            Err(e) => terminal.warn(format!(
                "{} could not be ended: {}",
                host.id,
                Failure::from(e).in_a_line()
            )),
        }
    }
    let failure = failure.with_the_host_kept();
    if args.terminate_on_failure && !launched {
        return failure.hint(format!("{} is kept: this run has not launched it", host.id));
    }
    failure
}

/// The result, or what failed with what exists by now and how to go on.
async fn finish(
    args: &OnboardArgs,
    context: &Context,
    report: RunReport,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if let Some((step, error)) = report.failure {
        tell_what_is_kept(&report.steps, terminal);
        let failure = failed(step, error);
        let again = format!(
            "run the same command again to go on: it keeps what exists (m8trx onboard {})",
            context.customer
        );
        let failure = kept_or_ended(args, context, failure, terminal).await;
        let has_hint = failure.hint.is_some() || failure.diagnosis.is_some();
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
            bootstrap: heartbeat.bootstrap.clone(),
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
