//! A smoke run that is interrupted: what was made is removed; a second INT ends at once and says what is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::cleanup_command;
use crate::customer::CustomerId;
use crate::inventory::Item;
use crate::plan::{Event, Outcome};
use crate::resource::Resource;
use crate::terminal::Terminal;

/// What was made and is not removed yet, by the step that makes it.
#[derive(Clone, Default)]
pub(super) struct Left(Arc<Mutex<BTreeMap<String, String>>>);

impl Left {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_words(&self, cleanup: &str) -> Vec<String> {
        let left = self.lock();
        if left.is_empty() {
            return vec!["Ended at once; nothing is left.".to_owned()];
        }
        let mut lines = vec!["Ended at once. This is left:".to_owned()];
        lines.extend(
            left.iter()
                .map(|(step, detail)| format!("  {step}: {detail}")),
        );
        lines.push(format!("Remove it: {cleanup}"));
        lines
    }

    /// Follows what is made.
    pub(super) fn event(&self, event: &Event) {
        let mut left = self.lock();
        match event {
            Event::StepStarted { step } if Resource::named(step).is_some_and(Resource::is_made) => {
                left.insert((*step).to_owned(), "perhaps: it was under way".to_owned());
            }
            Event::StepFinished { step, outcome, .. } => match outcome {
                Outcome::Created(detail) => {
                    left.insert((*step).to_owned(), detail.clone());
                }
                _ => {
                    left.remove(*step);
                }
            },
            _ => {}
        }
    }

    /// Follows what is removed.
    pub(super) fn removal(&self, event: &Event) {
        if let Event::StepFinished { step, .. } = event {
            self.lock().remove(*step);
        }
    }

    /// Begins with what an earlier run left.
    pub(super) fn expect(&self, items: Vec<&Item>) {
        let mut left = self.lock();
        for item in items {
            // The brain's keys carry no mark.
            let Some(resource) = item.kind.resource(&item.id) else {
                continue;
            };
            left.insert(resource.name().to_owned(), item.id.clone());
        }
    }
}

/// From here on a signal removes what was made, and says so; a second INT ends at once and says what is left.
pub(super) fn begin(
    customer: &CustomerId,
    keep: bool,
    left: &Left,
    terminal: &Terminal,
) -> CancellationToken {
    let stopping = if keep {
        "Stopping: what is under way is finished first."
    } else {
        "Stopping: what is under way is finished, and what was made is removed."
    };
    let (left, cleanup) = (left.clone(), cleanup_command(customer));
    terminal
        .interrupt
        .begin(stopping, move || left.in_words(&cleanup))
}
