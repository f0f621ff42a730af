//! Waiting until every running host beats with the new key: a heartbeat says which key it came with.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{Followed, Rotation};
use crate::brain::BrainError;
use crate::brain::client::KeyCheck;
use crate::brain::database::Database;
use crate::brain::events::{BrainEvent, HEARTBEAT};
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::secret::BrainKey;

/// Heartbeats of this time are looked through.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// And at most so many.
const MOST: usize = 100;
/// How often the brain is asked, and how often EC2.
const PACE: Duration = Duration::from_secs(2);
const HOST_PACE: Duration = Duration::from_secs(10);

/// Every running host has beaten with the new key.
pub struct HostsFollow(pub Arc<Rotation>);

/// A heartbeat, as far as it tells who sent it with which key.
struct Beat {
    instance_id: Option<String>,
    fingerprint: Option<String>,
    ts: Timestamp,
}

impl Beat {
    fn of(event: &BrainEvent) -> Option<Self> {
        Some(Self {
            instance_id: event.text("instance_id"),
            fingerprint: event.text("key"),
            ts: event.ts.at()?,
        })
    }

    fn is_of(&self, host: &str) -> bool {
        self.instance_id.as_deref() == Some(host)
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

    async fn database(&self) -> Result<Option<Database>, StepError> {
        Ok(match &self.0.context.database_url {
            Some(url) => Some(Database::connect(url).await?),
            None => None,
        })
    }

    async fn beats(
        &self,
        database: Option<&Database>,
        key: &BrainKey,
    ) -> Result<Vec<Beat>, BrainError> {
        let context = &self.0.context;
        let since = Timestamp::now()
            .checked_sub(WINDOW)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let feed = match database {
            Some(database) => {
                database
                    .events(&context.customer, Some(&[HEARTBEAT]), since, MOST)
                    .await?
            }
            None => {
                context
                    .brain
                    .events(&context.customer, key, HEARTBEAT, since, MOST)
                    .await?
            }
        };
        Ok(feed.events.iter().filter_map(Beat::of).collect())
    }

    /// The brain tells nothing of heartbeats over HTTP: known before anything is changed.
    async fn check_can_be_asked(&self) -> Result<(), StepError> {
        let Some(key) = self.stored_key().await? else {
            return Ok(());
        };
        match self.beats(self.database().await?.as_ref(), &key).await {
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

    fn not_followed(&self, waiting: &[String], beats: &[Beat]) -> StepError {
        let last = |host: &String| {
            let newest = beats
                .iter()
                .filter(|beat| beat.is_of(host))
                .max_by_key(|beat| beat.ts);
            match newest {
                None => format!("{host}: no heartbeat in the last hour"),
                Some(Beat {
                    fingerprint: None,
                    ts,
                    ..
                }) => {
                    format!(
                        "{host}: last heartbeat at {ts}; it does not say which key it came with"
                    )
                }
                Some(Beat { ts, .. }) => {
                    format!("{host}: last heartbeat at {ts}, with another key")
                }
            }
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
        let database = self.database().await?;
        let mut waiting = self.running().await?;
        let began = Instant::now();
        let mut hosts_asked = Instant::now();
        let mut beats = Vec::new();
        // A heartbeat script that does not say which key it used: what comes after the old key was revoked came with the
        // new one.
        let mut before: Option<HashMap<String, Timestamp>> = None;
        let mut told = 0;
        while !waiting.is_empty() {
            match self.beats(database.as_ref(), &after.key).await {
                Ok(now) => beats = now,
                // The brain or the tailnet may be away for a moment; the answer to the last question counts.
                Err(e @ BrainError::Unreachable { .. }) if began.elapsed() < context.timeout => {
                    run.progress(e.to_string());
                }
                Err(e) => return Err(e.into()),
            }
            if self.0.revoked().is_some() && before.is_none() {
                let newest =
                    |host: &String| beats.iter().filter(|b| b.is_of(host)).map(|b| b.ts).max();
                before = Some(
                    waiting
                        .iter()
                        .map(|host| (host.clone(), newest(host).unwrap_or(Timestamp::UNIX_EPOCH)))
                        .collect(),
                );
            }
            waiting.retain(|host| {
                let came = beats.iter().find(|beat| {
                    beat.is_of(host)
                        && match (&beat.fingerprint, &before) {
                            (Some(fingerprint), _) => *fingerprint == mark,
                            (None, Some(before)) => {
                                before.get(host).is_some_and(|last| beat.ts > *last)
                            }
                            (None, None) => false,
                        }
                });
                if let Some(beat) = came {
                    self.note(host, beat.ts);
                }
                came.is_none()
            });
            if waiting.is_empty() {
                break;
            }
            if told != waiting.len() {
                told = waiting.len();
                run.progress(format!(
                    "waiting for {} to beat with the new key; a host looks for one every five minutes",
                    waiting.join(", ")
                ));
            }
            if began.elapsed() >= context.timeout {
                return Err(self.not_followed(&waiting, &beats));
            }
            if hosts_asked.elapsed() >= HOST_PACE {
                hosts_asked = Instant::now();
                let running = self.running().await?;
                waiting.retain(|host| running.contains(host));
                if context.brain.check_key(&after.key).await? == KeyCheck::Refused {
                    return Err(self.refused());
                }
            }
            run.pause(PACE.min(context.timeout.saturating_sub(began.elapsed())))
                .await?;
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
