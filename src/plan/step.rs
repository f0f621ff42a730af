//! One thing that is ensured: it can be described, observed, applied and undone.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::event::{Event, Events, Outcome};
use crate::aws::AwsError;
use crate::aws::ssm::PutError;
use crate::brain::BrainError;
use crate::diagnosis::Diagnosis;
use crate::secret::InvalidSecret;
use crate::tailnet::TailnetError;
use crate::tailnet::lock::LockError;

/// One thing that is ensured.
#[async_trait]
pub trait Step: Send + Sync {
    /// A short stable name, `iam-role` for one; part of the JSON output and the journal.
    fn name(&self) -> &'static str;

    /// The names of the steps that must be done before this one is applied.
    fn after(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it ensures, in a few words.
    fn describe(&self) -> String;

    /// How it stands now. Read-only.
    async fn observe(&self) -> Result<Observation, StepError>;

    /// Makes it so. Called when it was observed to be otherwise; must do no harm when that has changed since.
    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError>;

    /// Removes what `apply` makes; says what was removed. Does nothing when there is nothing.
    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError>;
}

/// How a step stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Observation {
    /// Nothing needs to be done.
    Satisfied {
        /// What is there.
        detail: String,
    },
    /// It is not there, or not yet known to be.
    Missing {
        /// What applying would do, one line each.
        changes: Vec<String>,
    },
    /// It is there, but otherwise than it should be.
    Drifted {
        /// What differs, and what applying would do about it, one line each.
        differences: Vec<String>,
    },
}

impl Observation {
    /// Satisfied, with what is there.
    pub fn satisfied(detail: impl Into<String>) -> Self {
        Self::Satisfied {
            detail: detail.into(),
        }
    }

    /// Missing, with the one thing applying would do.
    pub fn missing(change: impl Into<String>) -> Self {
        Self::Missing {
            changes: vec![change.into()],
        }
    }

    /// Whether nothing needs to be done.
    pub fn is_satisfied(&self) -> bool {
        matches!(self, Self::Satisfied { .. })
    }

    /// The lines that describe it.
    pub fn lines(&self) -> Vec<&str> {
        match self {
            Self::Satisfied { detail } => vec![detail.as_str()],
            Self::Missing { changes } => changes.iter().map(String::as_str).collect(),
            Self::Drifted { differences } => differences.iter().map(String::as_str).collect(),
        }
    }
}

/// What a step is given while it is applied or undone.
#[derive(Debug, Clone)]
pub struct StepRun {
    /// The step's name, for the events it emits.
    pub step: &'static str,
    /// Where its progress goes.
    pub events: Events,
    /// Set when the operator interrupts the run. Waits end at once; calls under way are finished.
    pub interrupt: CancellationToken,
}

impl StepRun {
    /// Tells what is going on right now.
    pub fn progress(&self, message: impl Into<String>) {
        self.events.send(Event::StepProgress {
            step: self.step,
            message: message.into(),
        });
    }

    /// Waits, unless the run is interrupted first.
    pub async fn pause(&self, duration: std::time::Duration) -> Result<(), StepError> {
        tokio::select! {
            () = self.interrupt.cancelled() => Err(StepError::Interrupted),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }
}

/// Why a step did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// AWS refused or did not answer.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The brain refused or did not answer.
    #[error(transparent)]
    Brain(#[from] BrainError),
    /// Tailscale's API refused or did not answer.
    #[error(transparent)]
    Tailnet(#[from] TailnetError),
    /// The key or the node could not be signed for Tailnet Lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A secret that cannot be used.
    #[error(transparent)]
    Secret(#[from] InvalidSecret),
    /// Something that must be settled by a person before anything is changed.
    #[error("{problem}")]
    Precondition {
        /// What happened and why.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// EC2 refused to launch the host, and it is known what that means.
    #[error("the host could not be launched: {}", .diagnosis.what)]
    LaunchRefused {
        /// What it means.
        diagnosis: Box<Diagnosis>,
        /// EC2's own words.
        #[source]
        error: AwsError,
    },
    /// The host's boot ended without success.
    #[error("{0}")]
    HostFailed(Box<Diagnosis>),
    /// The host is up but nothing arrived.
    #[error(
        "no heartbeat of {customer} reached the brain within {waited_s} s; {instance_id} is {state}, {bootstrap}: {}",
        .diagnosis.what
    )]
    NoHeartbeat {
        /// The customer.
        customer: String,
        /// The host.
        instance_id: String,
        /// Its state.
        state: String,
        /// How far its bootstrap came.
        bootstrap: String,
        /// How long it was waited for, in seconds.
        waited_s: u64,
        /// Why, as far as it can be told.
        diagnosis: Box<Diagnosis>,
    },
    /// The host beats, but nothing on it reported the call of a tool.
    #[error(
        "no `tool_call` event of {customer} reached the brain within {waited_s} s; {instance_id} sends heartbeats"
    )]
    NoToolCall {
        /// The customer.
        customer: String,
        /// The host.
        instance_id: String,
        /// How long it was waited for, in seconds.
        waited_s: u64,
    },
    /// The heartbeat is not of the customer's host.
    #[error("the brain has no heartbeat of {instance_id}, the host of {customer}: {instead}")]
    OtherHost {
        /// The customer.
        customer: String,
        /// The host.
        instance_id: String,
        /// What the brain has instead.
        instead: String,
    },
    /// The host runs, and its device in the tailnet cannot reach the brain.
    #[error("the host {instance_id} of {customer} cannot reach the brain: {what}")]
    Device {
        /// The customer.
        customer: String,
        /// The host.
        instance_id: String,
        /// What is wrong with the device.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A new key is stored, and hosts have not beaten with it.
    #[error(
        "no heartbeat with the new brain key of {customer} reached the brain within {waited_s} s ({})",
        .hosts.join("; ")
    )]
    KeyNotFollowed {
        /// The customer.
        customer: String,
        /// The hosts, each with its last heartbeat.
        hosts: Vec<String>,
        /// How long they were waited for, in seconds.
        waited_s: u64,
        /// Whether the old key works no more.
        old_key_revoked: bool,
    },
    /// The brain has moved, and not every host reports to where it is now.
    #[error("{following} of {} reported to the brain at {url} within {waited_s} s", crate::text::counted(*.hosts, "host"))]
    UrlNotFollowed {
        /// Where the brain is now.
        url: String,
        /// How many hosts report to it.
        following: usize,
        /// How many run.
        hosts: usize,
        /// How long they were waited for, in seconds.
        waited_s: u64,
        /// The others, one line each.
        missing: Vec<String>,
    },
    /// The operator interrupted the run.
    #[error("interrupted")]
    Interrupted,
}

impl From<PutError> for StepError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::NotStored(error) | PutError::Untagged(error) => Self::Aws(error),
            unclear => Self::Precondition {
                problem: unclear.to_string(),
                hint: "run the same command again: it looks what is stored, and goes on from there"
                    .to_owned(),
            },
        }
    }
}
