//! Running a plan: steps without an edge between them run at the same time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::event::{Event, Events, Outcome, RunEnd};
use super::{Observation, Plan, Step, StepError, StepRun};

/// What became of a run.
#[derive(Debug)]
pub struct RunReport {
    /// Every step that came to its end, in the plan's order.
    pub steps: Vec<StepReport>,
    /// The first step that failed, and why.
    pub failure: Option<(&'static str, StepError)>,
    /// How long the run took.
    pub elapsed: Duration,
}

/// What became of one step.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Its name.
    pub name: &'static str,
    /// What became of it.
    pub outcome: Outcome,
    /// How long applying it took; zero when there was nothing to apply.
    pub elapsed: Duration,
}

type Finished = (usize, Result<Outcome, StepError>, Duration);

impl Plan {
    /// Applies every step that was not observed to be satisfied, each after those it needs.
    ///
    /// After a failure or an interrupt no further step is started, and those under way come to their own end, so that
    /// nothing is cut off between two calls that belong together.
    pub async fn run(
        &self,
        observed: &HashMap<&'static str, Observation>,
        events: &Events,
        interrupt: &CancellationToken,
    ) -> RunReport {
        let began = Instant::now();
        let mut state = Run {
            plan: self,
            done: HashSet::new(),
            started: HashSet::new(),
            tasks: JoinSet::new(),
            reports: vec![None; self.steps().len()],
            failure: None,
        };
        loop {
            if state.failure.is_none() && !interrupt.is_cancelled() {
                state.start_ready(observed, events, interrupt);
            }
            let Some(finished) = state.tasks.join_next().await else {
                break;
            };
            match finished {
                Ok(finished) => state.finish(finished, events),
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Err(_) => {}
            }
        }
        let unfinished = state.done.len() < self.steps().len();
        if state.failure.is_none() && unfinished {
            let next = self
                .steps()
                .iter()
                .find(|step| !state.done.contains(step.name()));
            state.failure = next.map(|step| (step.name(), StepError::Interrupted));
        }
        let end = match &state.failure {
            None => RunEnd::Done,
            Some((_, StepError::Interrupted)) => RunEnd::Interrupted,
            Some(_) => RunEnd::Failed,
        };
        let elapsed = began.elapsed();
        events.send(Event::RunFinished {
            end,
            elapsed_ms: millis(elapsed),
        });
        RunReport {
            steps: state.reports.into_iter().flatten().collect(),
            failure: state.failure,
            elapsed,
        }
    }
}

struct Run<'p> {
    plan: &'p Plan,
    done: HashSet<&'static str>,
    started: HashSet<&'static str>,
    tasks: JoinSet<Finished>,
    reports: Vec<Option<StepReport>>,
    failure: Option<(&'static str, StepError)>,
}

impl Run<'_> {
    /// Starts every step whose predecessors are done; repeats, since a satisfied step is done at once.
    fn start_ready(
        &mut self,
        observed: &HashMap<&'static str, Observation>,
        events: &Events,
        interrupt: &CancellationToken,
    ) {
        loop {
            let ready: Vec<(usize, Arc<dyn Step>)> = self
                .plan
                .steps()
                .iter()
                .enumerate()
                .filter(|(_, step)| {
                    !self.started.contains(step.name())
                        && self
                            .plan
                            .after(step.as_ref())
                            .all(|after| self.done.contains(after))
                })
                .map(|(index, step)| (index, Arc::clone(step)))
                .collect();
            if ready.is_empty() {
                return;
            }
            let mut satisfied = false;
            for (index, step) in ready {
                let name = step.name();
                self.started.insert(name);
                if let Some(Observation::Satisfied { detail }) = observed.get(name) {
                    events.send(Event::StepUnchanged {
                        step: name,
                        detail: detail.clone(),
                    });
                    self.done.insert(name);
                    self.reports[index] = Some(StepReport {
                        name,
                        outcome: Outcome::Unchanged(detail.clone()),
                        elapsed: Duration::ZERO,
                    });
                    satisfied = true;
                    continue;
                }
                events.send(Event::StepStarted { step: name });
                let run = StepRun {
                    step: name,
                    events: events.clone(),
                    interrupt: interrupt.clone(),
                };
                self.tasks.spawn(async move {
                    let began = Instant::now();
                    let outcome = step.apply(&run).await;
                    (index, outcome, began.elapsed())
                });
            }
            if !satisfied {
                return;
            }
        }
    }

    fn finish(&mut self, (index, outcome, elapsed): Finished, events: &Events) {
        let name = self.plan.steps()[index].name();
        match outcome {
            Ok(outcome) => {
                events.send(Event::StepFinished {
                    step: name,
                    outcome: outcome.clone(),
                    elapsed_ms: millis(elapsed),
                });
                self.done.insert(name);
                self.reports[index] = Some(StepReport {
                    name,
                    outcome,
                    elapsed,
                });
            }
            Err(error) => {
                events.send(Event::StepFailed {
                    step: name,
                    error: error.to_string(),
                    elapsed_ms: millis(elapsed),
                });
                // A failure says more than the interrupt that other steps met because of it.
                let says_more = match (&self.failure, &error) {
                    (None, _) => true,
                    (Some((_, StepError::Interrupted)), StepError::Interrupted) => false,
                    (Some((_, StepError::Interrupted)), _) => true,
                    _ => false,
                };
                if says_more {
                    self.failure = Some((name, error));
                }
            }
        }
    }
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
