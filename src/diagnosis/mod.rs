//! Why a host does not report: from what its console, EC2 and the brain say to a cause, the lines that show it, and what
//! the operator does about it.
//!
//! Everything that is known is brought into the form of lines: the console's, and one line each for what EC2 and the brain
//! say. A table of causes ([`causes`]) says which lines show which cause; nothing else knows any cause. [`judge`] reads the
//! boots in their order, and the recogniser decides which lines count.

pub mod causes;
mod judge;
mod pattern;
mod recogniser;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::aws::AwsError;
use crate::bootstrap_log::BootstrapLog;
use crate::customer::CustomerId;
use causes::Advice;
pub use judge::{judge, of_fact};
use recogniser::recognise_text;
use words::Words;

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
/// Where a console says nothing of the bootstrap yet, or at all.
pub const CONSOLE: &str = "console";
/// Where a host reports and the brain has nothing.
pub const FIRST_HEARTBEAT: &str = "first-heartbeat";
/// Where a host has been set up, and something has befallen it since.
pub const LATER: &str = "later";

/// The step of the bootstrap that joins the tailnet.
const TAILSCALE: &str = "tailscale";
/// What Tailscale's API says of a key that was refused in that step.
const TAILNET: &str = "tailnet";

/// How many lines are shown of a failure that nothing recognises.
const LAST_LINES: usize = 12;

/// How sure a diagnosis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The bootstrap, EC2 or the brain says it.
    Certain,
    /// What stands around the failure says it.
    Likely,
    /// Nothing says it.
    Unknown,
}

/// What went wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The customer, where it is known.
    pub customer: Option<String>,
    /// The host, where there is one.
    pub instance_id: Option<String>,
    /// The region, where it is known.
    pub region: Option<String>,
    /// A step of the bootstrap, or one of [`LAUNCH`], [`INSTANCE`], [`BOOT`], [`CONSOLE`],
    /// [`FIRST_HEARTBEAT`] and [`LATER`].
    pub step: String,
    /// A stable word.
    pub cause: &'static str,
    /// How sure that is.
    pub confidence: Confidence,
    /// Whether the host reports all the same, where it has: it may have ceased to.
    pub reports: Option<bool>,
    /// In one sentence.
    pub what: String,
    /// What else the same lines may mean. The remedy begins with what tells the readings apart.
    pub or: Vec<String>,
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
        match (self.step.as_str(), self.reports) {
            (LAUNCH, _) => f.write_str(" could not be launched")?,
            (INSTANCE, _) => f.write_str(" is gone")?,
            (BOOT, _) => f.write_str(" failed to boot")?,
            (CONSOLE, _) => f.write_str(" has said nothing that explains it")?,
            (FIRST_HEARTBEAT, _) => f.write_str(" does not report")?,
            (LATER, _) => f.write_str(" was set up and has reported, and then failed")?,
            (step, Some(true)) => write!(
                f,
                " reports (its heartbeat was accepted), but its bootstrap failed at step {step} after that"
            )?,
            (step, _) => write!(f, " failed at step {step} of its bootstrap")?,
        }
        write!(f, ": {}", self.what)?;
        for other in &self.or {
            write!(f, "; or: {other}")?;
        }
        Ok(())
    }
}

impl Diagnosis {
    /// Whether the host itself has not said what is wrong, so that others are worth asking.
    pub fn host_is_silent(&self) -> bool {
        matches!(self.step.as_str(), CONSOLE | BOOT | FIRST_HEARTBEAT | LATER)
            || self.confidence == Confidence::Unknown
    }

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
        const BEFORE: [&str; 5] = [BOOT, CONSOLE, "identity", "packages", TAILSCALE];
        let joined = self.reports.is_some() || !BEFORE.contains(&self.step.as_str());
        self.customer.is_some() && joined
    }

    /// More exactly, where facts that were found out elsewhere say more than the host could. They say it of the same step.
    pub fn explained_by(self, facts: &[String]) -> Self {
        let Some(found) = facts.iter().find_map(|fact| recognise_text(TAILNET, fact)) else {
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
        self.or.iter_mut().for_each(mask);
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
    // What the operator may not do, and what nothing is known of, the error itself says best.
    let is_known =
        |found: &recogniser::Found| !found.cause.general && found.cause.name != "launch-denied";
    let found = recognise_text(LAUNCH, &line).filter(is_known)?;
    let mut diagnosis = words.diagnosis(LAUNCH, Some(found), "", Vec::new());
    // With the request's id, for a support case.
    diagnosis.evidence = vec![error.to_string()];
    Some(diagnosis)
}
