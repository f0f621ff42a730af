//! What a smoke run and a cleanup give as JSON, and their one line for people.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::super::onboarding::stdout_failed;
use super::finish::removal_failure;
use crate::customer::CustomerId;
use crate::inventory::Item;
use crate::smoke::removal::Removed;
use crate::tags::Mark;
use crate::terminal::failure::Failure;
use crate::terminal::{Terminal, text};

/// Writes a result to stdout.
pub(super) fn stdout(
    terminal: &Terminal,
    result: &(impl Serialize + fmt::Display),
) -> Result<(), Failure> {
    terminal.result(result).map_err(stdout_failed)
}

/// The result of a run that proved what it should.
#[derive(Debug, Serialize)]
pub(super) struct Smoked {
    pub(super) schema: &'static str,
    pub(super) customer: CustomerId,
    pub(super) run: String,
    pub(super) instance_id: String,
    pub(super) instance_hostname: String,
    pub(super) heartbeat: Beat,
    pub(super) tool_call: Option<Called>,
    pub(super) steps: Vec<StepLine>,
    pub(super) removed: Vec<String>,
    pub(super) kept: Vec<Item>,
    pub(super) notes: Vec<String>,
    pub(super) elapsed_ms: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Beat {
    pub(super) hostname: String,
    pub(super) ts: Timestamp,
}

#[derive(Debug, Serialize)]
pub(super) struct Called {
    pub(super) tool_name: String,
    pub(super) ts: Timestamp,
}

#[derive(Debug, Serialize)]
pub(super) struct StepLine {
    pub(super) name: &'static str,
    pub(super) outcome: &'static str,
    pub(super) elapsed_ms: u64,
}

impl fmt::Display for Smoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = text::duration(std::time::Duration::from_millis(self.elapsed_ms));
        write!(
            f,
            "smoke passed: {} reported as {} at {}",
            self.instance_id, self.heartbeat.hostname, self.heartbeat.ts
        )?;
        match self.kept.len() {
            0 => write!(f, "; everything is removed again, after {took}"),
            count => write!(f, "; {count} things are kept, after {took}"),
        }
    }
}

/// The result of `--cleanup`.
#[derive(Debug, Serialize)]
pub(super) struct Cleaned {
    schema: &'static str,
    customer: CustomerId,
    runs: Vec<String>,
    removed: Vec<String>,
    notes: Vec<String>,
}

impl Cleaned {
    pub(super) fn new(customer: &CustomerId) -> Self {
        Self {
            schema: "m8trx.smoke-cleanup/1",
            customer: customer.clone(),
            runs: Vec::new(),
            removed: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, mark: &Mark, mut removed: Removed) -> Result<(), Failure> {
        if let Some(failure) = removal_failure(&self.customer, &mut removed) {
            return Err(failure);
        }
        self.runs.push(mark.value.clone());
        self.removed.append(&mut removed.removed);
        self.notes.append(&mut removed.notes);
        Ok(())
    }
}

impl fmt::Display for Cleaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.runs.is_empty() {
            return write!(
                f,
                "nothing to remove: no smoke run of {} left anything",
                self.customer
            );
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        write!(f, "removed: {}", self.removed.join(", "))
    }
}
