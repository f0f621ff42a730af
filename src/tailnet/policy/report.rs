//! What a check finds, and where.

use super::expectations::Expectations;
use super::hujson::{Document, Position};
use crate::text::foreign;

/// The longest text that people are shown of one finding.
const LONGEST: usize = 600;

/// What a check found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// How many customers' tags the file names.
    pub customers: usize,
    /// How many ordered pairs of different customers there are.
    pub pairs: u64,
    /// How many rules were looked at.
    pub rules: usize,
    /// How the file's own tests end.
    pub tests: Expectations,
    /// What is wrong.
    pub violations: Vec<Finding>,
    /// Whether it names single addresses of the tailnet of which it is not known whose they are.
    #[serde(skip)]
    pub names_addresses: bool,
    /// What should be known, but opens no way between customers.
    pub notes: Vec<Finding>,
}

impl Report {
    /// Whether the file is proven to keep customers apart, and to let through what must be.
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A customer reaches another customer.
    CustomersConnected,
    /// A customer reaches the team, the operator or people's own devices.
    TeamExposed,
    /// A customer gets into the brain.
    BrainExposed,
    /// Somebody may take a customer's tag who should not.
    TagClaimable,
    /// A customer's host may announce routes by itself, or others' traffic leads through it.
    RoutesClaimable,
    /// A customer does not reach the brain.
    BrainUnreachable,
    /// The team does not get into a customer's host.
    SshUnreachable,
    /// One of the file's own tests fails.
    TestFails,
    /// One of the file's own SSH tests fails.
    SshTestFails,
    /// Tailscale refuses it.
    Invalid,
    /// It is not understood, so nothing can be proven.
    NotUnderstood,
    /// A customer reaches something else than the brain's port.
    ReachesMore,
    /// Something that customers reach reaches customers.
    TwoHops,
    /// A customer's host may be reached from the internet.
    Funnel,
    /// Tests that depend on what the file does not say.
    Undecided,
}

/// Something that was found in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Of which kind.
    pub kind: Kind,
    /// The rule: `grants[3]`.
    pub rule: String,
    /// Where it stands.
    #[serde(flatten)]
    pub at: Position,
    /// A source, for example.
    pub source: Option<String>,
    /// A destination, for example.
    pub destination: Option<String>,
    /// A port, for example.
    pub port: Option<String>,
    /// How many pairs of customers it is about.
    pub pairs: Option<u64>,
    /// What it is, in a sentence.
    pub what: String,
}

impl Finding {
    /// Something found at a place.
    pub fn new(kind: Kind, document: &Document, rule: &str, at: usize, what: String) -> Self {
        Self {
            kind,
            rule: rule.to_owned(),
            at: document.position(at),
            source: None,
            destination: None,
            port: None,
            pairs: None,
            what,
        }
    }

    /// What it is, as it may be shown: tags and comments come from a file, and may hold what moves a terminal.
    pub fn shown(&self) -> String {
        foreign(&self.what, LONGEST)
    }

    /// The rule, as it may be shown.
    pub fn shown_rule(&self) -> String {
        foreign(&self.rule, LONGEST)
    }

    /// Between whom, for example.
    pub fn between(
        mut self,
        source: impl Into<String>,
        destination: impl Into<String>,
        port: Option<String>,
    ) -> Self {
        self.source = Some(source.into());
        self.destination = Some(destination.into());
        self.port = port;
        self
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rule, what) = (self.shown_rule(), self.shown());
        write!(f, "line {}, {rule}: {what}", self.at.line)
    }
}
