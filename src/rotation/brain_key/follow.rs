//! Waiting until every running host beats with the new key: a heartbeat says which key it came with.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{Followed, Rotation};
use crate::brain::client::KeyCheck;
use crate::brain::heartbeat::Host;
use crate::brain::{BrainError, Heartbeat, Heartbeats};
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::secret::BrainKey;
use crate::wait::Wait;

/// Heartbeats of this time are looked through.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// How often the brain is asked, and how often EC2.
const PACE: Duration = Duration::from_secs(2);
const HOST_PACE: Duration = Duration::from_secs(10);

/// Every running host has beaten with the new key.
pub struct HostsFollow(pub Arc<Rotation>);

/// Heartbeats of a host by its id alone: the running ones are known by it.
fn host(id: &str) -> Host<'_> {
    Host {
        id,
        name: None,
        launched: None,
    }
}

impl HostsFollow {
    /// The hosts that run, by what EC2 says now.
    async fn running(&self) -> Result<Vec<String>, StepError> {
        let context = &self.0.context;
        let all = context.aws.customer_instances(&context.customer).await?;
        Ok(all
            .into_iter()
            .filter(|host| matches!(host.state.as_str(), "pending" | "running"))
            .map(|host| host.id)
            .collect())
    }

    async fn beats(&self, hosts: &[String], key: &BrainKey) -> Result<Heartbeats, BrainError> {
        let context = &self.0.context;
        let since = Timestamp::now()
            .checked_sub(WINDOW)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let hosts: Vec<Host<'_>> = hosts.iter().map(|id| host(id)).collect();
        let feeds = context.feeds();
        feeds
            .heartbeats(&context.customer, Some(key), &hosts, since)
            .await
    }

    /// The brain tells nothing of heartbeats over HTTP: known before anything is changed.
    async fn check_can_be_asked(&self) -> Result<(), StepError> {
        let Some(key) = self.stored_key().await? else {
            return Ok(());
        };
        match self.beats(&[], &key).await {
            // A refused key is a reason to rotate it.
            Ok(_) | Err(BrainError::Refused { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    async fn stored_key(&self) -> Result<Option<BrainKey>, StepError> {
        use crate::secret::ExposeSecret as _;
        let stored = self.0.context.stored_brain_key().await?;
        Ok(stored.and_then(|stored| BrainKey::parse(stored.value.expose_secret()).ok()))
    }

    fn note(&self, host: &str, ts: Timestamp) {
        let mut followed = self
            .0
            .followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        followed.push(Followed {
            instance_id: host.to_owned(),
            ts,
        });
    }

    fn not_followed(&self, waiting: &[String], beats: &Heartbeats) -> StepError {
        let last = |id: &String| match beats.of(host(id)) {
            None => match beats.instead_of(host(id)) {
                Some(instead) => format!("{id}: no heartbeat in the last hour; {instead}"),
                None => format!("{id}: no heartbeat in the last hour"),
            },
            Some(Heartbeat { key: None, ts, .. }) => {
                format!("{id}: last heartbeat at {ts}; it does not say which key it came with")
            }
            Some(Heartbeat { ts, .. }) => format!("{id}: last heartbeat at {ts}, with another key"),
        };
        StepError::KeyNotFollowed {
            customer: self.0.context.customer.to_string(),
            hosts: waiting.iter().map(last).collect(),
            waited_s: self.0.context.timeout.as_secs(),
            old_key_revoked: self.0.revoked().is_some(),
        }
    }

    async fn wait(&self, run: &StepRun) -> Result<(), StepError> {
        let (_, after) = self.0.both()?;
        let context = &self.0.context;
        let mark = after.key.fingerprint();
        let mut waiting = self.running().await?;
        let mut wait = Wait::new(run, context.timeout);
        let mut hosts_asked = Instant::now();
        let mut beats = Heartbeats::new(Vec::new(), Timestamp::now());
        // A heartbeat script that does not say which key it used: what comes after the old key was revoked came with the
        // new one.
        let mut before: Option<HashMap<String, Timestamp>> = None;
        while !waiting.is_empty() {
            if let Some(now) = wait.ask(self.beats(&waiting, &after.key)).await? {
                beats = now;
            }
            if self.0.revoked().is_some() && before.is_none() {
                let newest = |id: &String| beats.of(host(id)).map(|beat| beat.ts);
                before = Some(
                    waiting
                        .iter()
                        .map(|id| (id.clone(), newest(id).unwrap_or(Timestamp::UNIX_EPOCH)))
                        .collect(),
                );
            }
            waiting.retain(|id| {
                let came = beats
                    .all_of(host(id))
                    .find(|beat| match (&beat.key, &before) {
                        (Some(fingerprint), _) => *fingerprint == mark,
                        (None, Some(before)) => before.get(id).is_some_and(|last| beat.ts > *last),
                        (None, None) => false,
                    });
                if let Some(beat) = came {
                    self.note(id, beat.ts);
                }
                came.is_none()
            });
            if waiting.is_empty() {
                break;
            }
            wait.progress(format!(
                "waiting for {} to beat with the new key; a host looks for one every five minutes",
                waiting.join(", ")
            ));
            if wait.is_over() {
                return Err(self.not_followed(&waiting, &beats));
            }
            if hosts_asked.elapsed() >= HOST_PACE {
                hosts_asked = Instant::now();
                // EC2 and the brain may be away for a moment: who runs and what the brain thinks of the key can be asked later.
                if let Ok(running) = self.running().await {
                    waiting.retain(|id| running.contains(id));
                }
                if wait.ask(context.brain.check_key(&after.key)).await? == Some(KeyCheck::Refused) {
                    return Err(self.refused());
                }
            }
            wait.pause(PACE).await?;
        }
        Ok(())
    }

    fn refused(&self) -> StepError {
        BrainError::Refused {
            url: self.0.context.brain.url().to_string(),
            what: format!("new brain key of {}", self.0.context.customer),
        }
        .into()
    }
}

#[async_trait]
impl Step for HostsFollow {
    fn name(&self) -> &'static str {
        "hosts"
    }

    fn after(&self) -> &'static [&'static str] {
        if self.0.revoke_at_once {
            &["old-key"]
        } else {
            &["brain-key"]
        }
    }

    fn describe(&self) -> String {
        format!("heartbeats of {} with the new key", self.0.context.customer)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let running = self.running().await?;
        if running.is_empty() {
            return Ok(Observation::satisfied(
                "no host is running: one that starts reads the new key",
            ));
        }
        self.check_can_be_asked().await?;
        Ok(Observation::missing(format!(
            "wait up to {} until {} beats with it",
            crate::text::duration(self.0.context.timeout),
            running.join(", ")
        )))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        self.wait(run).await?;
        let followed: Vec<String> = self
            .0
            .followed()
            .into_iter()
            .map(|host| format!("{} at {}", host.instance_id, host.ts))
            .collect();
        Ok(if followed.is_empty() {
            Outcome::Unchanged("no host is running any more".to_owned())
        } else {
            Outcome::Arrived(followed.join(", "))
        })
    }

    /// What the brain has recorded stays recorded.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}
