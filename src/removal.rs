//! Undoing steps one after the other, for whoever removes what an onboarding made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::plan::event::{Event, Events, Outcome};
use crate::plan::runner::millis;
use crate::plan::{Step, StepError, StepRun};
use crate::resource::Resource;
use crate::steps::{Context, step};

/// How often a step is tried again where IAM has not yet learned of the step before it.
const CONFLICT_RETRIES: u32 = 5;

/// A step that was undone, with what it removed in words, or why it could not be.
#[derive(Debug)]
pub struct Undone {
    /// Its name.
    pub step: &'static str,
    /// What became of it.
    pub result: Result<Vec<String>, StepError>,
}

/// The steps that made something, in the order in which they are undone.
pub fn steps(context: &Arc<Context>) -> Vec<Arc<dyn Step>> {
    Resource::in_order_of_removal()
        .into_iter()
        .filter_map(|resource| step(resource, context))
        .collect()
}

/// Undoes steps in their order.
///
/// A step that fails does not keep the others from being undone, except that nothing a host needs is taken away
/// while the host or its security group could not be removed. After an interrupt no further step is begun.
pub async fn undo_all(
    steps: &[Arc<dyn Step>],
    nothing: &str,
    events: &Events,
    interrupt: &CancellationToken,
) -> Vec<Undone> {
    let mut done = Vec::new();
    for step in steps {
        let name = step.name();
        if interrupt.is_cancelled() {
            done.push(Undone {
                step: name,
                result: Err(StepError::Interrupted),
            });
            break;
        }
        events.send(Event::StepStarted { step: name });
        let began = Instant::now();
        let result = undo(step.as_ref(), events, interrupt).await;
        let elapsed_ms = millis(began.elapsed());
        let ends = match &result {
            Ok(removed) => {
                let outcome = if removed.is_empty() {
                    Outcome::Unchanged(nothing.to_owned())
                } else {
                    Outcome::Removed(removed.join(", "))
                };
                events.send(Event::StepFinished {
                    step: name,
                    outcome,
                    elapsed_ms,
                });
                false
            }
            Err(error) => {
                events.send(Event::StepFailed {
                    step: name,
                    error: error.to_string(),
                    elapsed_ms,
                });
                Resource::named(name).is_some_and(Resource::guards_removal)
                    || matches!(error, StepError::Interrupted)
            }
        };
        done.push(Undone { step: name, result });
        if ends {
            break;
        }
    }
    done
}

async fn undo(
    step: &dyn Step,
    events: &Events,
    interrupt: &CancellationToken,
) -> Result<Vec<String>, StepError> {
    let run = StepRun {
        step: step.name(),
        events: events.clone(),
        interrupt: interrupt.clone(),
    };
    let mut attempt = 0;
    loop {
        match step.undo(&run).await {
            Err(StepError::Aws(e))
                if e.code() == Some("DeleteConflict") && attempt < CONFLICT_RETRIES =>
            {
                attempt += 1;
                run.progress("waiting for IAM to learn of what was removed before");
                run.pause(Duration::from_secs(2)).await?;
            }
            other => return other,
        }
    }
}
