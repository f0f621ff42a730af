//! Observing and running a plan for a person: progress, journal, Ctrl-C, and what a failure means.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::brain::BrainError;
use crate::plan::event::PlannedStep;
use crate::plan::journal::{self, Journal};
use crate::plan::{Event, Events, Observation, Plan, RunReport, Step, StepError};
use crate::steps::Context;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::progress::Progress;

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

/// Runs the plan, shows and records its events, and turns Ctrl-C into a clean stop.
pub(super) async fn execute(
    command: &'static str,
    plan: &Plan,
    observed: &HashMap<&'static str, Observation>,
    context: &Context,
    terminal: &Terminal,
) -> RunReport {
    let interrupt = CancellationToken::new();
    let on_interrupt = tokio::spawn(stop_on_interrupt(interrupt.clone(), terminal.clone()));
    let steps = plan.steps();
    let report = watched(
        command,
        steps,
        context,
        terminal,
        |_| {},
        async |events| plan.run(observed, &events, &interrupt).await,
    )
    .await;
    on_interrupt.abort();
    report
}

/// Shows and records the events of `work`, and gives them to `also`.
pub(super) async fn watched<T>(
    command: &'static str,
    steps: &[Arc<dyn Step>],
    context: &Context,
    terminal: &Terminal,
    mut also: impl FnMut(&Event) + Send + 'static,
    work: impl AsyncFnOnce(Events) -> T,
) -> T {
    let (events, mut receiver) = Events::channel();
    let mut journal = open_journal(command, context, terminal);
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
        customer: context.customer.to_string(),
        account: context.aws.account.clone(),
        region: context.aws.region.clone(),
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

fn open_journal(command: &str, context: &Context, terminal: &Terminal) -> Option<Journal> {
    let directory = journal::default_directory(&|name| std::env::var(name).ok())?;
    match Journal::create(&directory, command, context.customer.as_str()) {
        Ok(journal) => Some(journal),
        Err(e) => {
            terminal.warn(format!("no journal is kept: {}: {e}", directory.display()));
            None
        }
    }
}

/// A step's error with its exit code, its evidence and what to do.
pub(super) fn step_failure(error: StepError) -> Failure {
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
        StepError::LaunchRefused { diagnosis, .. } => {
            Failure::words(Kind::Refused, diagnosis.to_string()).diagnosed(*diagnosis)
        }
        StepError::HostFailed(diagnosis) => {
            Failure::words(Kind::HostFailed, diagnosis.to_string()).diagnosed(*diagnosis)
        }
        error @ StepError::NoHeartbeat { .. } => {
            let shown = Failure::new(Kind::NoHeartbeat, &error);
            let StepError::NoHeartbeat { diagnosis, .. } = error else {
                return shown;
            };
            shown.diagnosed(*diagnosis)
        }
        error @ StepError::NoToolCall { .. } => Failure::new(Kind::NoHeartbeat, &error).hint(
            "the events come from software that others install on the host: start an agent there while the command waits, or leave --expect-tool-call out",
        ),
        error @ StepError::OtherHost { .. } => Failure::new(Kind::Other, &error).hint(
            "another machine reports with this customer's key: find it by that name, and mint a new key",
        ),
        StepError::Interrupted => Failure::words(Kind::Interrupted, "interrupted"),
    }
}
