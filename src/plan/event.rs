//! What a run tells while it goes on. Consumers are progress, plain lines and the journal.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// One thing that happened in a run. Names are constants while it goes on, and text (`Event<String>`) when it is read back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<S = &'static str> {
    /// The run begins.
    RunStarted {
        /// `onboard`, for one.
        command: S,
        /// The customer it is about.
        customer: String,
        /// The AWS account.
        account: String,
        /// The AWS region.
        region: String,
        /// The steps in their order, with what each ensures.
        steps: Vec<PlannedStep<S>>,
    },
    /// A step needs nothing.
    StepUnchanged {
        /// Its name.
        step: S,
        /// What is there.
        detail: String,
    },
    /// A step is being applied.
    StepStarted {
        /// Its name.
        step: S,
    },
    /// What a step is doing right now.
    StepProgress {
        /// Its name.
        step: S,
        /// In a few words.
        message: String,
    },
    /// A step was applied.
    StepFinished {
        /// Its name.
        step: S,
        /// What became of it.
        #[serde(flatten)]
        outcome: Outcome,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
    /// A step did not come to its end.
    StepFailed {
        /// Its name.
        step: S,
        /// Why.
        error: String,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
    /// The run ends.
    RunFinished {
        /// How.
        end: RunEnd,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
}

/// A step as the plan has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedStep<S = &'static str> {
    /// Its name.
    pub name: S,
    /// What it ensures.
    pub description: String,
}

/// What became of a step that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "kebab-case")]
pub enum Outcome {
    /// It was so before.
    Unchanged(String),
    /// It was made.
    Created(String),
    /// It was there and was changed.
    Updated(String),
    /// It was made by an earlier run or by somebody else, and is used.
    Adopted(String),
    /// It was waited for, and came.
    Arrived(String),
    /// It was removed.
    Removed(String),
}

impl Outcome {
    /// The stable word of the JSON output.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unchanged(_) => "unchanged",
            Self::Created(_) => "created",
            Self::Updated(_) => "updated",
            Self::Adopted(_) => "adopted",
            Self::Arrived(_) => "arrived",
            Self::Removed(_) => "removed",
        }
    }

    /// What it is about.
    pub fn detail(&self) -> &str {
        match self {
            Self::Unchanged(detail)
            | Self::Created(detail)
            | Self::Updated(detail)
            | Self::Adopted(detail)
            | Self::Arrived(detail)
            | Self::Removed(detail) => detail,
        }
    }
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// Every step is done.
    Done,
    /// A step failed.
    Failed,
    /// The operator interrupted it.
    Interrupted,
}

/// Where events go. Sending never waits and never fails: a run does not depend on who listens.
#[derive(Debug, Clone)]
pub struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    /// A channel of events.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Tells the listener, if there still is one.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}
