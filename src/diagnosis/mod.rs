//! Why a host does not report: from what its console, EC2 and the brain say to a cause, the lines that show it, and what
//! the operator does about it.
//!
//! Everything that is known is brought into the form of lines: the console's, and one line each for what EC2 and the brain
//! say. A table of causes ([`causes`]) says which lines show which cause; nothing else knows any cause.

pub mod causes;
mod recogniser;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::aws::AwsError;
use crate::bootstrap_log::{BootstrapFailure, BootstrapLog, last_lines};
use crate::customer::CustomerId;
use causes::Advice;
use recogniser::{Found, Words, recognise};

/// The version of the JSON form.
pub const SCHEMA: &str = "m8trx.diagnosis/1";
/// The cause of a failure that no entry of the table recognises.
pub const UNKNOWN: &str = "unknown";

/// Where EC2 refuses a launch.
pub const LAUNCH: &str = "launch";
/// Where EC2 ends or stops an instance.
pub const INSTANCE: &str = "instance";
/// Where an instance boots without running its user-data.
pub const BOOT: &str = "boot";
/// Where a host reports and the brain has nothing.
pub const FIRST_HEARTBEAT: &str = "first-heartbeat";

/// The step of the bootstrap that joins the tailnet.
const TAILSCALE: &str = "tailscale";
/// What Tailscale's API says of a key that was refused in that step.
const TAILNET: &str = "tailnet";

/// EC2 keeps the last 64 KiB of a console: of a longer one, the beginning is gone.
const WHOLE_CONSOLE: usize = 60 * 1024;
/// How many lines are shown of a failure that nothing recognises.
const LAST_LINES: usize = 12;

/// What went wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The customer, where it is known.
    pub customer: Option<String>,
    /// The host, where there is one.
    pub instance_id: Option<String>,
    /// The region, where it is known.
    pub region: Option<String>,
    /// A step of the bootstrap, or one of [`LAUNCH`], [`INSTANCE`], [`BOOT`] and [`FIRST_HEARTBEAT`].
    pub step: String,
    /// A stable word.
    pub cause: &'static str,
    /// In one sentence.
    pub what: String,
    /// The lines that show it, secrets masked.
    pub evidence: Vec<String>,
    /// What to do, in this order.
    pub remedy: Vec<Remedy>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// A sentence.
    Do(String),
    /// A command that can be pasted into a shell.
    Run(String),
}

impl Remedy {
    /// Its words.
    pub fn text(&self) -> &str {
        match self {
            Self::Do(text) | Self::Run(text) => text,
        }
    }
}

impl Serialize for Remedy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host")?;
        if let Some(id) = &self.instance_id {
            write!(f, " {id}")?;
        }
        if let Some(customer) = &self.customer {
            write!(f, " of {customer}")?;
        }
        match self.step.as_str() {
            LAUNCH => f.write_str(" could not be launched")?,
            INSTANCE => f.write_str(" is gone")?,
            BOOT => f.write_str(" failed to boot")?,
            FIRST_HEARTBEAT => f.write_str(" does not report")?,
            step => write!(f, " failed at step {step} of its bootstrap")?,
        }
        write!(f, ": {}", self.what)
    }
}

impl Diagnosis {
    /// How to reach the host, where there still is one.
    pub fn how_to_reach_it(&self) -> Vec<Remedy> {
        self.with_the_host_kept(if self.has_joined() {
            causes::REACH_BY_TAILNET
        } else {
            causes::REACH
        })
    }

    /// How to go on with the host or to be rid of it, where there still is one.
    pub fn how_to_go_on(&self) -> Vec<Remedy> {
        self.with_the_host_kept(causes::GO_ON)
    }

    fn with_the_host_kept(&self, advice: &[Advice]) -> Vec<Remedy> {
        let gone = matches!(self.step.as_str(), LAUNCH | INSTANCE);
        if gone || self.instance_id.is_none() {
            return Vec::new();
        }
        let words = Words::of(&self.situation(), &BootstrapLog::default());
        advice.iter().map(|advice| words.fill(advice)).collect()
    }

    /// Whether the failure came after the host had joined the tailnet.
    fn has_joined(&self) -> bool {
        const BEFORE: [&str; 4] = [BOOT, "identity", "packages", "tailscale"];
        self.customer.is_some() && !BEFORE.contains(&self.step.as_str())
    }

    /// More exactly, where facts that were found out elsewhere say more than the host could. They say it of the same step.
    pub fn explained_by(self, facts: &[String]) -> Self {
        let Some(found) = recognise(TAILNET, None, facts) else {
            return self;
        };
        let words = Words::of(&self.situation(), &BootstrapLog::default());
        let mut explained = words.diagnosis(&self.step, Some(found), "", Vec::new());
        explained.evidence = facts.to_vec();
        explained.evidence.extend(self.evidence);
        explained
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            customer: self.customer.as_deref(),
            instance_id: self.instance_id.as_deref(),
            region: self.region.as_deref(),
            ..Situation::default()
        }
    }

    /// Masks secrets that are known.
    pub fn masking(mut self, secrets: &[&str]) -> Self {
        let mask = |text: &mut String| *text = crate::secret::mask(text, secrets);
        mask(&mut self.what);
        self.evidence.iter_mut().for_each(mask);
        for remedy in &mut self.remedy {
            let (Remedy::Do(text) | Remedy::Run(text)) = remedy;
            mask(text);
        }
        self
    }
}

/// What the brain says about a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Heard {
    /// It was not asked, or gives no answer.
    #[default]
    Unknown,
    /// It has no heartbeat of this host.
    Never,
    /// The last one is too long ago.
    Stopped(jiff::Timestamp),
}

/// Everything that is known about a host that may have failed.
#[derive(Debug, Clone, Default)]
pub struct Situation<'a> {
    /// The customer, where it is known.
    pub customer: Option<&'a str>,
    /// The host, where it is known.
    pub instance_id: Option<&'a str>,
    /// The region, where it is known.
    pub region: Option<&'a str>,
    /// The instance's state, and why it is in it.
    pub state: Option<(&'a str, Option<&'a str>)>,
    /// Its console: any bytes.
    pub console: &'a [u8],
    /// What the brain says.
    pub heard: Heard,
    /// The host was launched just now. One that was started again does not run its user-data again.
    pub first_boot: bool,
    /// Nothing more is waited for: what has not happened by now is a failure.
    pub over: bool,
}

/// How a host stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is on its way. `trouble` is what it is trying to overcome right now, where that can be told.
    Booting {
        /// How far it came.
        log: BootstrapLog,
        /// What holds it up.
        trouble: Option<Box<Diagnosis>>,
    },
    /// Its bootstrap has sent a heartbeat, or is complete, and nothing speaks against it.
    Reports(BootstrapLog),
    /// It has failed.
    Failed(Box<Diagnosis>),
}

/// Judges a host.
pub fn judge(situation: &Situation<'_>) -> Verdict {
    let log = BootstrapLog::parse(situation.console);
    let words = Words::of(situation, &log);
    let failed = |diagnosis: Diagnosis| Verdict::Failed(Box::new(diagnosis));
    // What the console says comes first: it is why an instance was ended.
    if let Some(failure) = &log.failure {
        return failed(of_failure(failure, &log, &words));
    }
    if let Some((state, reason)) = situation.state
        && !matches!(state, "pending" | "running")
    {
        let host = situation.instance_id.unwrap_or("the instance");
        let reason = reason.unwrap_or("EC2 gives no reason");
        return failed(words.of_fact(INSTANCE, format!("{host} is {state}: {reason}")));
    }
    if let (Some(other), Some(wanted)) = (&log.complete, situation.customer)
        && other != wanted
    {
        let line = format!("the bootstrap is complete for {other}, not for {wanted}");
        return failed(words.of_fact(FIRST_HEARTBEAT, line));
    }
    if log.complete.is_some() || log.first_heartbeat {
        return match (situation.over, &situation.heard) {
            (true, Heard::Never) => failed(of_silence(&log, None, &words)),
            (true, Heard::Stopped(at)) => failed(of_silence(&log, Some(*at), &words)),
            _ => Verdict::Reports(log),
        };
    }
    match trouble(situation, &log, &words) {
        Some(diagnosis) if situation.over || is_final(&diagnosis, situation, &log) => {
            failed(diagnosis)
        }
        trouble => Verdict::Booting {
            log,
            trouble: trouble.map(Box::new),
        },
    }
}

/// A failure that shows elsewhere than on the console: one fact, in the form of a line.
pub fn of_fact(step: &str, fact: String, situation: &Situation<'_>) -> Diagnosis {
    let log = BootstrapLog::parse(situation.console);
    Words::of(situation, &log).of_fact(step, fact)
}

/// A launch that AWS refused, where the table knows why.
pub fn of_launch(error: &AwsError, customer: &CustomerId) -> Option<Diagnosis> {
    let line = format!(
        "An error occurred ({}) when calling the {} operation: {}",
        error.code()?,
        error.operation,
        error.message().unwrap_or_default()
    );
    let situation = Situation {
        customer: Some(customer.as_str()),
        region: Some(&error.region),
        ..Situation::default()
    };
    let words = Words::of(&situation, &BootstrapLog::default());
    let found = recognise(LAUNCH, None, std::slice::from_ref(&line))?;
    let mut diagnosis = words.diagnosis(LAUNCH, Some(found), "", Vec::new());
    // With the request's id, for a support case.
    diagnosis.evidence = vec![error.to_string()];
    Some(diagnosis)
}

/// A bootstrap that ended without success.
fn of_failure(failure: &BootstrapFailure, log: &BootstrapLog, words: &Words) -> Diagnosis {
    let found = recognise(&failure.name, failure.reason.as_deref(), &log.lines);
    let what = match (&failure.reason, failure.exit) {
        (Some(reason), _) => format!("nothing in this program recognises it: {reason}"),
        (None, Some(exit)) => format!("it ended with exit code {exit} and no word of why"),
        (None, None) => "it ended with no word of why".to_owned(),
    };
    let mut diagnosis = words.diagnosis(&failure.name, found, &what, tail(&log.lines));
    diagnosis.evidence.push(failure.line_of_console.clone());
    diagnosis
}

/// A host that says it reports, of which the brain knows nothing.
fn of_silence(log: &BootstrapLog, last: Option<jiff::Timestamp>, words: &Words) -> Diagnosis {
    let says = match &log.complete {
        Some(customer) => format!("m8trx-bootstrap: complete for {customer}"),
        None => "m8trx-bootstrap: first heartbeat accepted".to_owned(),
    };
    let brain = match last {
        None => "the brain has no heartbeat of this host".to_owned(),
        Some(at) => format!("the brain's last heartbeat of this host is of {at}"),
    };
    let lines = [says, brain];
    let found = recognise(FIRST_HEARTBEAT, None, &lines);
    words.diagnosis(FIRST_HEARTBEAT, found, &lines[1], lines.to_vec())
}

/// What holds up a host whose bootstrap has not ended.
fn trouble(situation: &Situation<'_>, log: &BootstrapLog, words: &Words) -> Option<Diagnosis> {
    let step = log.step.as_ref().map(|step| step.name.as_str());
    let mut lines = log.lines.clone();
    if situation.over {
        lines.push(match &log.step {
            Some(step) => format!("the bootstrap has not ended: it is at {step}"),
            None if situation.console.is_empty() => "the console is empty".to_owned(),
            None if situation.console.len() < WHOLE_CONSOLE => {
                "nothing of the bootstrap is on the console".to_owned()
            }
            None => "the beginning of the console is cut off".to_owned(),
        });
    }
    // A console that someone saved may also hold what `aws ec2 run-instances` answered.
    let before = [LAUNCH, INSTANCE, BOOT];
    let steps: &[&str] = step.as_ref().map_or(&before, std::slice::from_ref);
    let found = steps
        .iter()
        .find_map(|step| Some((*step, recognise(step, None, &lines)?)));
    let (step, found) = match found {
        Some((step, found)) => (step, Some(found)),
        None if situation.over => (step.unwrap_or(BOOT), None),
        None => return None,
    };
    let shown = match last_lines(situation.console, LAST_LINES) {
        shown if shown.is_empty() => tail(&lines),
        shown => shown,
    };
    let what = "the host has not reported, and its console does not say why";
    Some(words.diagnosis(step, found, what, shown))
}

/// Whether nothing more will come: the boot is at its end, and the bootstrap had its chance.
fn is_final(diagnosis: &Diagnosis, situation: &Situation<'_>, log: &BootstrapLog) -> bool {
    let is_end = |line: &String| {
        (line.contains("Cloud-init v.") && line.contains(" finished at "))
            || line.contains("Kernel panic - not syncing")
            || line.contains("You are in emergency mode")
    };
    diagnosis.step == BOOT && situation.first_boot && log.lines.iter().any(is_end)
}

fn tail(lines: &[String]) -> Vec<String> {
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

impl Words {
    fn of_fact(&self, step: &str, fact: String) -> Diagnosis {
        let found = recognise(step, None, std::slice::from_ref(&fact));
        self.diagnosis(step, found, &fact, vec![fact.clone()])
    }

    /// The diagnosis that was found, or an honest one without.
    fn diagnosis(
        &self,
        step: &str,
        found: Option<Found>,
        unrecognised: &str,
        shown: Vec<String>,
    ) -> Diagnosis {
        let (cause, what, evidence, remedy) = match found {
            Some(found) => {
                let words = self.with(found.captured);
                let remedy = found.cause.remedy.iter().map(|advice| words.fill(advice));
                let what = words.sentence(found.cause.what);
                (found.cause.name, what, found.evidence, remedy.collect())
            }
            None => (
                UNKNOWN,
                unrecognised.to_owned(),
                shown,
                causes::UNRECOGNISED
                    .iter()
                    .map(|advice| self.fill(advice))
                    .collect(),
            ),
        };
        Diagnosis {
            customer: self.known("customer"),
            instance_id: self.known("id"),
            region: self.known("region"),
            step: step.to_owned(),
            cause,
            what,
            evidence,
            remedy,
        }
    }
}
