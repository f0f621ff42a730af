//! The one map from errors to what people and scripts see of them: kind, exit code, hint. The same fault ends every command
//! in the same way.

use crate::aws::AwsError;
use crate::aws::client::ConnectError;
use crate::brain::BrainError;
use crate::config::ConfigError;
use crate::home::HomeError;
use crate::plan::{InvalidPlan, StepError};
use crate::tailnet::TailnetError;
use crate::tailnet::lock::LockError;
use crate::tailnet::policy::change::ChangeError;
use crate::terminal::failure::{Failure, Kind};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Kind::Precondition, &error).maybe_hint(error.hint())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(Kind::Precondition, &error).maybe_hint(error.hint())
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Elsewhere(error) => {
                Self::new(Kind::Precondition, &*error).hint(error.hint())
            }
            HomeError::Aws(error) => Self::from(error)
                .within("where the customer lives could not be looked up; nothing was changed"),
        }
    }
}

impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        let kind = if error.is_refusal() {
            Kind::Refused
        } else {
            Kind::Other
        };
        Self::new(kind, &error).maybe_hint(error.hint())
    }
}

impl From<TailnetError> for Failure {
    fn from(error: TailnetError) -> Self {
        let kind = if error.is_refusal() {
            Kind::Refused
        } else {
            Kind::Other
        };
        Self::new(kind, &error).maybe_hint(error.hint())
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let kind = match &error {
            LockError::NoCommand | LockError::Failed { .. } => Kind::Precondition,
            LockError::File(_) | LockError::NoNodeKey(_) => Kind::Other,
        };
        Self::new(kind, &error).hint(error.hint())
    }
}

impl From<BrainError> for Failure {
    fn from(error: BrainError) -> Self {
        let kind = match &error {
            // It is elsewhere, or this machine is not in the tailnet, or it must be configured otherwise.
            BrainError::Unreachable { .. }
            | BrainError::NoBrain { .. }
            | BrainError::NoEventsRoute { .. }
            | BrainError::NoKeysRoute { .. } => Kind::Precondition,
            BrainError::Mint { .. }
            | BrainError::Page { .. }
            | BrainError::TooLong { .. }
            | BrainError::KeyLost { .. }
            | BrainError::NoAnswer(_)
            | BrainError::Database(_)
            | BrainError::DatabaseAway(_) => Kind::Other,
            BrainError::Status { .. }
            | BrainError::NotRevoked { .. }
            | BrainError::Refused { .. }
            | BrainError::Unexpected { .. }
            | BrainError::OtherCustomer { .. } => Kind::Refused,
        };
        Self::new(kind, &error).maybe_hint(error.hint())
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Tailnet(error) => error.into(),
            other => {
                let kind = match &other {
                    ChangeError::Invalid(_)
                    | ChangeError::KeepsChanging { .. }
                    | ChangeError::EtagNotTaken => Kind::Refused,
                    _ => Kind::Precondition,
                };
                Self::new(kind, &other).maybe_hint(other.hint())
            }
        }
    }
}

/// A mistake in this program, which its tests are there to find.
impl From<InvalidPlan> for Failure {
    fn from(error: InvalidPlan) -> Self {
        Self::new(Kind::Other, &error).within("the steps have no order")
    }
}

/// Why a run ended early.
pub(super) fn failed(step: &str, error: StepError) -> Failure {
    match error {
        StepError::Interrupted => {
            Failure::words(Kind::Interrupted, format!("interrupted at {step}"))
        }
        error => step_failure(error).within(format!("{step} failed")),
    }
}

/// A step's error with its exit code, its evidence and what to do.
pub(super) fn step_failure(error: StepError) -> Failure {
    match error {
        StepError::Aws(error) => error.into(),
        StepError::Brain(error) => error.into(),
        StepError::Tailnet(error) => error.into(),
        StepError::Lock(error) => error.into(),
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
        error @ StepError::UrlNotFollowed { .. } => {
            let evidence = match &error {
                StepError::UrlNotFollowed { missing, .. } => missing.clone(),
                _ => Vec::new(),
            };
            let mut failure = Failure::new(Kind::NoHeartbeat, &error).hint(
                "the URL is stored, and hosts read it when a beat to the old brain fails: while that one answers they keep to it. `m8trx brain-url get --hosts` shows who has followed",
            );
            failure.evidence = evidence;
            failure
        }
        error @ StepError::OtherHost { .. } => Failure::new(Kind::Other, &error).hint(
            "another machine reports with this customer's key: find it by that name, and mint a new key",
        ),
        ref error @ StepError::Device { ref fix, .. } => Failure::new(Kind::Refused, error).hint(
            format!("{fix}; then run the same command again: the host is kept"),
        ),
        error @ StepError::KeyNotFollowed {
            old_key_revoked, ..
        } => Failure::new(Kind::NoHeartbeat, &error).hint(if old_key_revoked {
            "the new key is stored and the old one is revoked: on the host, `journalctl -u m8trx-brain-heartbeat` says in one line why it does not beat"
        } else {
            "both keys are valid, so nothing is lost: run the same command again to go on waiting. A host that does not say which key it uses takes the new one when the old one is refused: --revoke-at-once"
        }),
        StepError::Interrupted => Failure::words(Kind::Interrupted, "interrupted"),
    }
}
