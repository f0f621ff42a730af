//! What is told of a fleet: the document `m8trx.status/1`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::expiry::{Expiry, Stage};
use crate::brain::activity::Hour;
use crate::customer::CustomerId;
use crate::home::Home;

/// How a customer stands, in one word. What comes first weighs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Something is there otherwise than it should be.
    Misconfigured,
    /// Something is not there.
    Partial,
    /// Everything is there, and yet the host does not beat.
    Silent,
    /// The brain cannot be asked whether the host beats.
    Unreachable,
    /// The host was launched a short while ago and has not beaten yet.
    Booting,
    /// The host beats.
    Healthy,
}

impl Word {
    /// Every word, the gravest first.
    pub const ALL: [Self; 6] = [
        Self::Misconfigured,
        Self::Partial,
        Self::Silent,
        Self::Unreachable,
        Self::Booting,
        Self::Healthy,
    ];

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Misconfigured => "misconfigured",
            Self::Partial => "partial",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::Booting => "booting",
            Self::Healthy => "healthy",
        }
    }
}

/// Something a person should see to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The word it makes of the customer; none for a warning.
    #[serde(rename = "status")]
    pub word: Option<Word>,
    /// What it is.
    pub what: String,
    /// What to do, mostly a command.
    pub remedy: Option<String>,
}

/// How the fleet stands.
#[derive(Debug, Clone, Serialize)]
pub struct FleetStatus {
    schema: &'static str,
    /// When AWS and the brain were asked.
    pub at: Timestamp,
    /// The AWS account.
    pub account: String,
    /// The AWS region.
    pub region: String,
    /// How many customers there are of each word.
    pub summary: Summary,
    /// How the brain was asked.
    pub brain: BrainStatus,
    /// What belongs to no single customer and a person should see to.
    pub problems: Vec<String>,
    /// What could not be looked at.
    pub notes: Vec<String>,
    /// The customers, the gravest first.
    pub customers: Vec<CustomerStatus>,
    /// Customers of the account that live in another region, or another account: nothing of them is here.
    pub elsewhere: Vec<LivesElsewhere>,
    /// Customers that were named and of which nothing was found.
    pub not_found: Vec<CustomerId>,
}

impl FleetStatus {
    /// A document about these customers, with nothing else to tell.
    pub fn new(
        account: &str,
        region: &str,
        brain: BrainStatus,
        customers: Vec<CustomerStatus>,
    ) -> Self {
        Self {
            schema: "m8trx.status/1",
            at: Timestamp::now(),
            account: account.to_owned(),
            region: region.to_owned(),
            summary: Summary::of(&customers),
            brain,
            problems: Vec::new(),
            notes: Vec::new(),
            customers,
            elsewhere: Vec::new(),
            not_found: Vec::new(),
        }
    }
}

/// A customer of which nothing is here.
#[derive(Debug, Clone, Serialize)]
pub struct LivesElsewhere {
    /// The customer.
    pub customer: CustomerId,
    /// Where it lives.
    #[serde(flatten)]
    pub home: Home,
}

/// How many customers there are.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// In all.
    pub customers: usize,
    /// Those that a person should see to.
    pub needs_person: usize,
    /// By word.
    pub by_status: BTreeMap<&'static str, usize>,
}

/// How the brain was asked.
#[derive(Debug, Clone, Serialize)]
pub struct BrainStatus {
    /// `http`, `database` or none.
    pub source: Option<&'static str>,
    /// The URL that hosts are given, as it is stored.
    pub url: Option<String>,
    /// When it was stored.
    pub url_modified: Option<Timestamp>,
    /// Why it could not be asked.
    pub problem: Option<String>,
}

/// How one customer stands.
#[derive(Debug, Clone, Serialize)]
pub struct CustomerStatus {
    /// The customer.
    pub customer: CustomerId,
    /// In one word.
    pub status: Word,
    /// Whether a person should see to it.
    pub needs_person: bool,
    /// What a person should see to, the gravest first.
    pub problems: Vec<Problem>,
    /// Its parameters.
    pub parameters: Parameters,
    /// Its hosts: those that live, or where none does, the last one EC2 still lists.
    pub hosts: Vec<HostStatus>,
    /// The last heartbeat the brain has; none where there is none, or it is not known.
    pub heartbeat: Option<HeartbeatStatus>,
    /// The last hour at the brain; none where it is not known.
    pub last_hour: Option<Hour>,
    /// Why the last hour is not known though the heartbeat is.
    pub last_hour_problem: Option<String>,
}

/// A customer's parameters.
#[derive(Debug, Clone, Serialize)]
pub struct Parameters {
    /// `brain-key`
    pub brain_key: Option<ParameterStatus>,
    /// `tailscale-auth-key`
    pub tailscale_auth_key: Option<ParameterStatus>,
    /// The id of the Tailscale auth key, where it was read to ask Tailscale about it.
    pub tailscale_auth_key_id: Option<String>,
    /// Whether Tailscale takes the auth key for this customer's hosts; none where it was not asked.
    pub tailscale_auth_key_good: Option<bool>,
    /// When the Tailscale auth key ends; none for one that is not good for another reason.
    pub tailscale_auth_key_expiry: Option<ExpiryStatus>,
    /// The names of others.
    pub others: Vec<String>,
}

/// A parameter.
#[derive(Debug, Clone, Serialize)]
pub struct ParameterStatus {
    /// `SecureString`, or what it should not be.
    #[serde(rename = "type")]
    pub kind: String,
    /// Raised by one at each overwrite.
    pub version: i64,
    /// When it was last written.
    pub modified: Option<Timestamp>,
    /// How long ago that was, in seconds.
    pub age_s: Option<i64>,
}

/// When a Tailscale auth key ends.
#[derive(Debug, Clone, Serialize)]
pub struct ExpiryStatus {
    /// When, and how that is known.
    #[serde(flatten)]
    pub expiry: Expiry,
    /// How near that is.
    pub stage: Stage,
    /// In how many seconds; negative afterwards.
    pub left_s: i64,
}

/// A host.
#[derive(Debug, Clone, Serialize)]
pub struct HostStatus {
    /// `i-…`
    pub instance_id: String,
    /// EC2's word for its state.
    pub state: String,
    /// Why it is in this state, where EC2 says.
    pub state_reason: Option<String>,
    /// `t3.small`, for example.
    pub instance_type: Option<String>,
    /// When it was launched or last started.
    pub launched: Option<Timestamp>,
    /// How long ago that was, in seconds.
    pub age_s: Option<i64>,
    /// The name of its instance profile.
    pub instance_profile: Option<String>,
}

/// A heartbeat.
#[derive(Debug, Clone, Serialize)]
pub struct HeartbeatStatus {
    /// When.
    pub ts: Timestamp,
    /// How long ago, in seconds; zero where the host's clock is ahead.
    pub age_s: i64,
    /// What the host calls itself.
    pub hostname: String,
}

impl Summary {
    fn of(customers: &[CustomerStatus]) -> Self {
        let mut by_status: BTreeMap<&'static str, usize> =
            Word::ALL.iter().map(|word| (word.name(), 0)).collect();
        for customer in customers {
            *by_status.entry(customer.status.name()).or_default() += 1;
        }
        Self {
            customers: customers.len(),
            needs_person: customers.iter().filter(|c| c.needs_person).count(),
            by_status,
        }
    }
}
