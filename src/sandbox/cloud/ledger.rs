//! The record of every call the cloud handled.

use std::sync::Mutex;

use serde::Serialize;

/// One call, as the cloud saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedCall {
    /// When it was answered, RFC 3339.
    pub at: jiff::Timestamp,
    /// `ssm`, `iam`, `sts` or `ec2`.
    pub service: &'static str,
    /// `GetParameter`, …; empty when the request did not name one.
    pub action: String,
    /// The region of the request's signature.
    pub region: String,
    /// ARN of the caller; none when it was not established.
    pub identity: Option<String>,
    /// Whether the caller was let in and a policy allowed the call.
    pub allowed: bool,
    /// Whether the action changes something. A dry run does not.
    pub mutating: bool,
    /// Code of the error that was answered.
    pub error: Option<&'static str>,
}

/// The calls in the order of their answers.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Vec<RecordedCall>>);

impl Ledger {
    /// Adds a call.
    pub fn record(&self, call: RecordedCall) {
        super::lock(&self.0).push(call);
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<RecordedCall> {
        super::lock(&self.0).clone()
    }
}

/// Whether an action of this name changes something.
pub(crate) fn is_mutating(action: &str) -> bool {
    !["Get", "Describe", "List", "Decode"]
        .iter()
        .any(|prefix| action.starts_with(prefix))
}
