//! Observing and running a plan for a person: progress, journal, interruption, and what a failure means.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::Global;
pub(super) use super::failure::{failed, step_failure};
use super::onboarding::stdout_failed;
use crate::aws::Aws;
use crate::customer::CustomerId;
use crate::plan::event::PlannedStep;
use crate::plan::journal::{self, Journal};
use crate::plan::runner::millis;
use crate::plan::{Event, Events, Observation, Outcome, Plan, RunReport, Step, StepReport};
use crate::steps::Context;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::plan_table::{FLEET, PlanDocument};
use crate::terminal::progress::Progress;

/// What a run is about, for those who watch it and for its journal.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// A customer id, or [`FLEET`].
    pub(super) name: String,
    pub(super) account: String,
    pub(super) region: String,
}

impl Subject {
    pub(super) fn customer(customer: &CustomerId, aws: &Aws) -> Self {
        Self::named(customer.as_str(), aws)
    }

    pub(super) fn fleet(aws: &Aws) -> Self {
        Self::named(FLEET, aws)
    }

    fn named(name: &str, aws: &Aws) -> Self {
        Self {
            name: name.to_owned(),
            account: aws.account.clone(),
            region: aws.region.clone(),
        }
    }
}

/// A command that carries out a plan.
pub(super) struct Order<'o> {
    /// `params-put`, for one: part of the journal's name.
    pub(super) command: &'static str,
    pub(super) subject: Subject,
    /// Only show the plan.
    pub(super) dry_run: bool,
    /// Whether it is asked before anything is changed.
    pub(super) asks: bool,
    pub(super) terminal: &'o Terminal,
}

impl Order<'_> {
    /// Shows what the plan would change and, unless that was all, asks and runs it. `None` after a dry run.
    pub(super) async fn carry_out(&self, plan: &Plan) -> Result<Option<RunReport>, Failure> {
        let observed = observe(plan).await?;
        self.carry_out_observed(plan, &observed).await
    }

    /// [`Self::carry_out`] for a plan that was looked at already.
    pub(super) async fn carry_out_observed(
        &self,
        plan: &Plan,
        observed: &HashMap<&'static str, Observation>,
    ) -> Result<Option<RunReport>, Failure> {
        let (subject, terminal) = (&self.subject, self.terminal);
        let mut document = PlanDocument::new(
            plan,
            observed,
            &subject.name,
            &subject.account,
            &subject.region,
        );
        if let Some(columns) = terminal.columns() {
            document = document.with_width(columns);
        }
        if self.dry_run {
            terminal.result(&document).map_err(stdout_failed)?;
            return Ok(None);
        }
        terminal.say("");
        terminal.say(document.to_string());
        if self.asks && document.changes() > 0 {
            terminal.agree("Go on?").await?;
        }
        let report = execute_about(self.command, plan, observed, subject, terminal).await;
        match report.failure {
            None => Ok(Some(report)),
            Some((step, error)) => {
                tell_what_is_kept(&report.steps, terminal);
                let failure = failed(step, error);
                Err(if failure.hint.is_some() {
                    failure
                } else {
                    failure.hint("run the same command again to go on: it keeps what exists")
                })
            }
        }
    }
}

/// Nothing is changed without somebody who says so: at a terminal, by `--yes`, or not at all by `--dry-run`.
pub(super) fn check_may_go_on(
    global: &Global,
    dry_run: bool,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if terminal.interactive || dry_run || global.yes {
        return Ok(());
    }
    Err(
        Failure::words(Kind::Usage, "there is no terminal to ask whether to go on")
            .hint("pass --yes to go on without being asked, or --dry-run to see the plan"),
    )
}

/// What became of a step, for the JSON output.
#[derive(Debug, Serialize)]
pub(super) struct StepLine {
    pub(super) name: &'static str,
    pub(super) outcome: &'static str,
    pub(super) detail: String,
    pub(super) elapsed_ms: u64,
}

impl StepLine {
    pub(super) fn of(report: &RunReport) -> Vec<Self> {
        let line = |step: &StepReport| Self {
            name: step.name,
            outcome: step.outcome.word(),
            detail: step.outcome.detail().to_owned(),
            elapsed_ms: millis(step.elapsed),
        };
        report.steps.iter().map(line).collect()
    }
}

/// What a run that failed made before.
pub(super) fn tell_what_is_kept(steps: &[StepReport], terminal: &Terminal) {
    let made: Vec<&str> = steps
        .iter()
        .filter(|step| !matches!(step.outcome, Outcome::Unchanged(_)))
        .map(|step| step.name)
        .collect();
    if !made.is_empty() {
        terminal.say(format!("What exists by now is kept: {}", made.join(", ")));
    }
}

/// Looks at every step; the first in the plan's order that cannot be looked at ends the command.
pub(super) async fn observe(plan: &Plan) -> Result<HashMap<&'static str, Observation>, Failure> {
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

/// Runs the plan, shows and records its events, and turns a signal into a clean stop.
pub(super) async fn execute(
    command: &'static str,
    plan: &Plan,
    observed: &HashMap<&'static str, Observation>,
    context: &Context,
    terminal: &Terminal,
) -> RunReport {
    let subject = Subject::customer(&context.customer, &context.aws);
    execute_about(command, plan, observed, &subject, terminal).await
}

async fn execute_about(
    command: &'static str,
    plan: &Plan,
    observed: &HashMap<&'static str, Observation>,
    subject: &Subject,
    terminal: &Terminal,
) -> RunReport {
    let interrupt = terminal.interrupt.begin_run();
    watched_about(
        command,
        plan.steps(),
        subject,
        terminal,
        |_| {},
        async |events| plan.run(observed, &events, &interrupt).await,
    )
    .await
}

/// Shows and records the events of `work`, and gives them to `also`.
pub(super) async fn watched<T>(
    command: &'static str,
    steps: &[Arc<dyn Step>],
    context: &Context,
    terminal: &Terminal,
    also: impl FnMut(&Event) + Send + 'static,
    work: impl AsyncFnOnce(Events) -> T,
) -> T {
    let subject = Subject::customer(&context.customer, &context.aws);
    watched_about(command, steps, &subject, terminal, also, work).await
}

async fn watched_about<T>(
    command: &'static str,
    steps: &[Arc<dyn Step>],
    subject: &Subject,
    terminal: &Terminal,
    mut also: impl FnMut(&Event) + Send + 'static,
    work: impl AsyncFnOnce(Events) -> T,
) -> T {
    let (events, mut receiver) = Events::channel();
    let mut journal = open_journal(command, subject, terminal);
    let mut progress = Progress::new(terminal.clone());
    let listener = tokio::spawn(async move {
        while let Some(event) = receiver.recv().await {
            also(&event);
            progress.event(&event);
            if let Some(open) = &mut journal {
                // A full disk must not end an onboarding; what is missing shows in the journal itself.
                if open.record(&event).is_err() {
                    journal = None;
                }
            }
        }
    });
    events.send(Event::RunStarted {
        command,
        customer: subject.name.clone(),
        account: subject.account.clone(),
        region: subject.region.clone(),
        steps: steps
            .iter()
            .map(|step| PlannedStep {
                name: step.name(),
                description: step.describe(),
            })
            .collect(),
    });
    let result = work(events).await;
    // The listener ends with the last sender; what it shows must stand before what comes after.
    let _ = listener.await;
    result
}

fn open_journal(command: &str, subject: &Subject, terminal: &Terminal) -> Option<Journal> {
    let directory = journal::default_directory(&|name| std::env::var(name).ok())?;
    match Journal::create(&directory, command, &subject.name) {
        Ok(journal) => Some(journal),
        Err(e) => {
            terminal.warn(format!("no journal is kept: {}: {e}", directory.display()));
            None
        }
    }
}
