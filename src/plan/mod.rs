//! A plan: the steps, their order, and what each would change now; and a run of it.

pub mod event;
pub mod journal;
pub mod runner;
pub mod step;

#[cfg(test)]
mod tests;

pub use event::{Event, Events, Outcome, RunEnd};
pub use runner::{RunReport, StepReport};
pub use step::{Observation, Step, StepError, StepRun};

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::join_all;

/// Steps in an order in which each comes after those it needs.
#[derive(Clone)]
pub struct Plan {
    steps: Vec<Arc<dyn Step>>,
    names: HashSet<&'static str>,
}

/// A set of steps that has no order. A mistake in this program, found by its tests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// Two steps have one name.
    #[error("two steps are named `{0}`")]
    Duplicate(&'static str),
    /// A step comes after one that is not in the plan.
    #[error("step `{step}` comes after `{after}`, which is not in the plan")]
    Unknown {
        /// The step.
        step: &'static str,
        /// What it wants to come after.
        after: &'static str,
    },
    /// Steps that wait for each other.
    #[error("the steps {0:?} wait for each other")]
    Cycle(Vec<&'static str>),
}

/// What a step was found to be, or why that could not be told.
pub type Observed = Result<Observation, StepError>;

impl Plan {
    /// Puts steps in order. Every step that another comes after must be among them.
    pub fn new(steps: Vec<Arc<dyn Step>>) -> Result<Self, InvalidPlan> {
        let plan = Self::part(steps)?;
        for step in &plan.steps {
            if let Some(after) = step.after().iter().find(|name| !plan.names.contains(*name)) {
                return Err(InvalidPlan::Unknown {
                    step: step.name(),
                    after,
                });
            }
        }
        Ok(plan)
    }

    /// Puts some steps of a larger plan in order. What the absent ones ensure is taken as it stands: nothing waits for
    /// them, and whoever runs a part sees to it that it is enough.
    pub fn part(steps: Vec<Arc<dyn Step>>) -> Result<Self, InvalidPlan> {
        let mut names = HashSet::new();
        for step in &steps {
            if !names.insert(step.name()) {
                return Err(InvalidPlan::Duplicate(step.name()));
            }
        }
        let mut left = steps;
        let mut placed: HashSet<&'static str> = HashSet::new();
        let mut ordered = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let (ready, waiting): (Vec<_>, Vec<_>) = left.into_iter().partition(|step| {
                awaited(step.as_ref(), &names).all(|after| placed.contains(after))
            });
            if ready.is_empty() {
                return Err(InvalidPlan::Cycle(
                    waiting.iter().map(|step| step.name()).collect(),
                ));
            }
            placed.extend(ready.iter().map(|step| step.name()));
            ordered.extend(ready);
            left = waiting;
        }
        Ok(Self {
            steps: ordered,
            names,
        })
    }

    /// The names of the steps of this plan that must be done before `step` is applied.
    pub fn after<'p>(&'p self, step: &dyn Step) -> impl Iterator<Item = &'static str> + 'p {
        awaited(step, &self.names)
    }

    /// The steps, each after those it needs.
    pub fn steps(&self) -> &[Arc<dyn Step>] {
        &self.steps
    }

    /// Looks at every step at once. Nothing is changed.
    pub async fn observe(&self) -> HashMap<&'static str, Observed> {
        join_all(
            self.steps
                .iter()
                .map(|step| async move { (step.name(), step.observe().await) }),
        )
        .await
        .into_iter()
        .collect()
    }
}

fn awaited<'n>(
    step: &dyn Step,
    names: &'n HashSet<&'static str>,
) -> impl Iterator<Item = &'static str> + 'n {
    let after = step.after().iter().copied();
    after.filter(|name| names.contains(name))
}
