//! A heartbeat, and which host it proves to be alive: one judgement, wherever heartbeats are looked at.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::events::BrainEvent;

/// How far a host's clock may be ahead of the brain's: as far as AWS takes the host's signatures.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A heartbeat as the brain recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// What the host calls itself.
    pub hostname: String,
    /// `i-…`, where the heartbeat says it: a plain script's does not.
    pub instance_id: Option<String>,
    /// When the host says it happened.
    pub ts: Timestamp,
    /// Where the host's bootstrap stands, where the heartbeat says it.
    pub bootstrap: Option<Bootstrap>,
    /// The beginning of the SHA-256 of the bootstrap.sh that set the host up.
    pub scripts: Option<String>,
    /// The beginning of the SHA-256 of the key it came with.
    pub key: Option<String>,
}

/// Where a host's bootstrap stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Bootstrap {
    /// It is at a step.
    Running {
        /// Counted from 1.
        step: u32,
        /// `packages`, for example.
        name: String,
    },
    /// It ended at a step, without success.
    Failed {
        /// Counted from 1.
        step: u32,
        /// `packages`, for example.
        name: String,
    },
    /// It came to its end.
    Complete,
}

impl Bootstrap {
    /// `running step=7 name=heartbeat`, `failed step=2 name=packages` or `complete`.
    pub fn parse(text: &str) -> Option<Self> {
        let (state, at) = text.split_once(' ').unwrap_or((text, ""));
        if state == "complete" {
            return Some(Self::Complete);
        }
        let (step, name) = at.strip_prefix("step=")?.split_once(" name=")?;
        let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let step = step.parse().ok()?;
        if name.is_empty() || name.len() > 40 || !name.chars().all(is_name) {
            return None;
        }
        let name = name.to_owned();
        match state {
            "running" => Some(Self::Running { step, name }),
            "failed" => Some(Self::Failed { step, name }),
            _ => None,
        }
    }

    /// Whether it ended without success.
    pub fn has_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    /// Whether something is still to come.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { step, name } => write!(f, "is at step {step} ({name})"),
            Self::Failed { step, name } => write!(f, "failed at step {step} ({name})"),
            Self::Complete => f.write_str("is complete"),
        }
    }
}

/// A host that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// `i-…`
    pub id: &'a str,
    /// The name that EC2 gave it, once it has.
    pub name: Option<&'a str>,
    /// When it was launched or last started.
    pub launched: Option<Timestamp>,
}

/// What a heartbeat says of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It is the host's own.
    Alive,
    /// It is another host's.
    OtherHost,
    /// It is of a time before the host.
    BeforeLaunch,
    /// Its time is ahead of the brain's clock, so that it says nothing.
    Ahead,
}

impl Heartbeat {
    /// A heartbeat from the event that it came as; none where its time is none.
    pub fn of(event: &BrainEvent) -> Option<Self> {
        let text = |member| event.text(member).filter(|text| !text.is_empty());
        Some(Self {
            hostname: text("hostname").unwrap_or_default(),
            instance_id: text("instance_id"),
            ts: event.ts.at()?,
            bootstrap: text("bootstrap").and_then(|text| Bootstrap::parse(&text)),
            scripts: text("scripts"),
            key: text("key"),
        })
    }

    /// What it says of a host, by the brain's clock.
    pub fn proof(&self, host: Host<'_>, now: Timestamp) -> Proof {
        if self.ts.duration_since(now) > SKEW {
            return Proof::Ahead;
        }
        match &self.instance_id {
            Some(id) if id == host.id => Proof::Alive,
            Some(_) => Proof::OtherHost,
            None if !host
                .name
                .is_some_and(|name| same_host(&self.hostname, name)) =>
            {
                Proof::OtherHost
            }
            // A name is given again, to a later host.
            None if host.launched.is_some_and(|at| self.ts < at) => Proof::BeforeLaunch,
            None => Proof::Alive,
        }
    }

    /// Who sent it, in a few words.
    pub fn sender(&self) -> String {
        match &self.instance_id {
            Some(id) => format!("{} (`{}`)", id.escape_debug(), self.hostname.escape_debug()),
            None => format!("`{}`", self.hostname.escape_debug()),
        }
    }
}

/// Heartbeats of one customer.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeats {
    newest_first: Vec<Heartbeat>,
    /// The brain's clock when it was asked.
    pub now: Timestamp,
}

impl Heartbeats {
    /// Heartbeats in any order, and the brain's clock.
    pub fn new(mut heartbeats: Vec<Heartbeat>, now: Timestamp) -> Self {
        heartbeats.sort_by_key(|beat| std::cmp::Reverse(beat.ts));
        Self {
            newest_first: heartbeats,
            now,
        }
    }

    /// All of them, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Heartbeat> {
        self.newest_first.iter()
    }

    /// Whether one's time is ahead of the brain's clock, so that it proves nothing.
    pub fn is_ahead(&self, beat: &Heartbeat) -> bool {
        beat.ts.duration_since(self.now) > SKEW
    }

    /// The newest heartbeat that proves a host.
    pub fn of(&self, host: Host<'_>) -> Option<&Heartbeat> {
        let proves = |beat: &&Heartbeat| beat.proof(host, self.now) == Proof::Alive;
        self.newest_first.iter().find(proves)
    }

    /// Those that prove a host, newest first.
    pub fn all_of<'a>(&'a self, host: Host<'a>) -> impl Iterator<Item = &'a Heartbeat> {
        let now = self.now;
        self.newest_first
            .iter()
            .filter(move |beat| beat.proof(host, now) == Proof::Alive)
    }

    /// The newest heartbeat of somebody who is none of these hosts.
    pub fn of_others(&self, hosts: &[Host<'_>]) -> Option<&Heartbeat> {
        self.newest_first.iter().find(|beat| {
            !hosts.is_empty()
                && hosts
                    .iter()
                    .all(|host| beat.proof(*host, self.now) == Proof::OtherHost)
        })
    }

    /// The newest heartbeat whose time is ahead of the brain's clock.
    pub fn ahead(&self) -> Option<&Heartbeat> {
        self.iter().find(|beat| self.is_ahead(beat))
    }

    /// [`Self::ahead`] in a few words.
    pub fn ahead_in_words(&self) -> Option<String> {
        let beat = self.ahead()?;
        Some(format!(
            "a heartbeat of {} with the time {} proves nothing: that is ahead of the brain's clock, {:.0}",
            beat.sender(),
            beat.ts,
            self.now
        ))
    }

    /// What there is instead of a heartbeat of this host, in a few words: what is easily taken for one.
    pub fn instead_of(&self, host: Host<'_>) -> Option<String> {
        if let Some(words) = self.ahead_in_words() {
            return Some(words);
        }
        let beat = self.of_others(&[host])?;
        Some(format!(
            "the brain's last heartbeat, at {}, is of {}, which is not this host",
            beat.ts,
            beat.sender()
        ))
    }
}

/// Whether two names are one host's: the first label counts, since the heartbeat's may be short and EC2's is not.
fn same_host(one: &str, other: &str) -> bool {
    let label = |name: &str| {
        name.split('.')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    !label(one).is_empty() && label(one) == label(other)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::events::{HEARTBEAT, When};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const NOW: i64 = 100_000;
    const HOST: Host<'_> = Host {
        id: "i-0a",
        name: Some("ip-10-0-0-1.ec2.internal"),
        launched: Some(Timestamp::constant(NOW - 600, 0)),
    };

    fn beat(second: i64, payload: Value) -> Heartbeat {
        Heartbeat::of(&BrainEvent {
            ts: When::At(at(second)),
            event_type: HEARTBEAT.to_owned(),
            payload,
        })
        .unwrap()
    }

    #[test]
    fn a_heartbeat_proves_the_host_it_names_and_no_other() {
        for (second, payload, proof) in [
            (
                0,
                json!({"hostname": "x", "instance_id": "i-0a"}),
                Proof::Alive,
            ),
            // The name is the host's own, but another one says it is its.
            (
                0,
                json!({"hostname": "ip-10-0-0-1", "instance_id": "i-0b"}),
                Proof::OtherHost,
            ),
            (-10, json!({"hostname": "ip-10-0-0-1"}), Proof::Alive),
            (
                -10,
                json!({"hostname": "IP-10-0-0-1.eu-central-1.compute.internal"}),
                Proof::Alive,
            ),
            (
                -10,
                json!({"hostname": "ip-10-0-0-1", "instance_id": ""}),
                Proof::Alive,
            ),
            (-10, json!({"hostname": "ip-10-0-0-11"}), Proof::OtherHost),
            (-10, json!({"hostname": ""}), Proof::OtherHost),
            (
                -601,
                json!({"hostname": "ip-10-0-0-1"}),
                Proof::BeforeLaunch,
            ),
            (299, json!({"instance_id": "i-0a"}), Proof::Alive),
            (301, json!({"instance_id": "i-0a"}), Proof::Ahead),
            (301, json!({"hostname": "ip-10-0-0-1"}), Proof::Ahead),
        ] {
            let found = beat(NOW + second, payload.clone()).proof(HOST, at(NOW));
            assert_eq!(found, proof, "{second} {payload}");
        }
        let unnamed = Host { name: None, ..HOST };
        let named = beat(NOW, json!({"hostname": "ip-10-0-0-1"}));
        assert_eq!(named.proof(unnamed, at(NOW)), Proof::OtherHost);
    }

    #[test]
    fn what_proves_nothing_hides_nothing_and_is_named() {
        let ahead = beat(
            4_102_444_800,
            json!({"hostname": "old", "instance_id": "i-0a"}),
        );
        let other = beat(NOW - 1, json!({"hostname": "old", "instance_id": "i-0b"}));
        let own = beat(NOW - 2, json!({"hostname": "ip-10-0-0-1"}));
        let all = Heartbeats::new(vec![own.clone(), ahead, other.clone()], at(NOW));
        assert_eq!(all.of(HOST), Some(&own));
        assert_eq!(all.of_others(&[HOST]), Some(&other));
        insta::assert_snapshot!(
            all.instead_of(HOST).unwrap(),
            @"a heartbeat of i-0a (`old`) with the time 2100-01-01T00:00:00Z proves nothing: that is ahead of the brain's clock, 1970-01-02T03:46:40Z"
        );
        let all = Heartbeats::new(vec![other], at(NOW));
        insta::assert_snapshot!(
            all.instead_of(HOST).unwrap(),
            @"the brain's last heartbeat, at 1970-01-02T03:46:39Z, is of i-0b (`old`), which is not this host"
        );
        assert_eq!(Heartbeats::new(Vec::new(), at(NOW)).instead_of(HOST), None);
    }

    #[test]
    fn where_the_bootstrap_stands_is_read() {
        for (text, words) in [
            (
                "running step=7 name=heartbeat",
                Some("is at step 7 (heartbeat)"),
            ),
            (
                "failed step=2 name=packages",
                Some("failed at step 2 (packages)"),
            ),
            ("complete", Some("is complete")),
            ("", None),
            ("done", None),
            ("failed", None),
            ("failed step=x name=packages", None),
            ("failed step=2 name=\u{1b}[2J", None),
        ] {
            let read = Bootstrap::parse(text).map(|state| state.to_string());
            assert_eq!(read.as_deref(), words, "{text:?}");
        }
    }
}
