//! After the brain has moved: which hosts report to where it is now.
//!
//! Hosts keep the URL they know until a beat to it fails, and then read it from SSM again. So they follow one by one, each
//! within one beat after the old brain has stopped answering, and not before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::Serialize;

use crate::aws::Aws;
use crate::aws::ec2::Instance;
use crate::brain::client::KeyCheck;
use crate::brain::heartbeat::Host;
use crate::brain::{Brain, BrainError, Feeds, Heartbeats};
use crate::customer::{BRAIN_URL_PARAMETER, CustomerId};
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::secret::{BrainKey, ExposeSecret as _, SecretString};
use crate::text;
use crate::wait::Wait;

/// How many customers are asked about at once: SSM answers 40 reads a second by default.
const AT_ONCE: usize = 8;
/// How often the brain is asked again.
const PACE: Duration = Duration::from_secs(2);

/// The running hosts of every customer, and the brain they should report to.
pub struct Fleet {
    aws: Aws,
    brain: Brain,
    feeds: Feeds,
    hosts: BTreeMap<CustomerId, Vec<Instance>>,
    keys: Mutex<HashMap<CustomerId, BrainKey>>,
    /// Hosts of which a heartbeat was seen, by id.
    seen: Mutex<HashMap<String, Timestamp>>,
}

/// How the fleet stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Following {
    /// Running hosts.
    pub hosts: usize,
    /// Those that have reported to the brain since it is where it is.
    pub following: usize,
    /// The others.
    pub missing: Vec<Missing>,
}

/// A host that has not reported yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Whose it is.
    pub customer: CustomerId,
    /// `i-…`
    pub instance_id: String,
    /// Why it cannot be told, where that is so.
    pub problem: Option<String>,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}: ", self.instance_id, self.customer)?;
        f.write_str(self.problem.as_deref().unwrap_or("no heartbeat yet"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// Finds the running hosts.
    pub async fn find(
        aws: &Aws,
        brain: Brain,
        database_url: Option<SecretString>,
    ) -> Result<Self, StepError> {
        let mut hosts: BTreeMap<CustomerId, Vec<Instance>> = BTreeMap::new();
        for host in aws.customers_instances(None).await? {
            let customer = host.customer.as_deref().and_then(|id| id.parse().ok());
            if let Some(customer) = customer
                && matches!(host.state.as_str(), "pending" | "running")
            {
                hosts.entry(customer).or_default().push(host);
            }
        }
        Ok(Self {
            aws: aws.clone(),
            feeds: Feeds::new(brain.clone(), database_url),
            brain,
            hosts,
            keys: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// How many hosts run.
    pub fn hosts(&self) -> usize {
        self.hosts.values().map(Vec::len).sum()
    }

    /// Whose they are.
    pub fn customers(&self) -> usize {
        self.hosts.len()
    }

    async fn key(&self, customer: &CustomerId) -> Result<Option<BrainKey>, StepError> {
        if let Some(key) = lock(&self.keys).get(customer) {
            return Ok(Some(key.clone()));
        }
        let stored = self.aws.parameter(&customer.brain_key_parameter()).await?;
        let key = stored.and_then(|stored| BrainKey::parse(stored.value.expose_secret()).ok());
        if let Some(key) = &key {
            lock(&self.keys).insert(customer.clone(), key.clone());
        }
        Ok(key)
    }

    /// The customers with running hosts whose stored key this brain refuses: their hosts could not follow.
    pub async fn refused(&self) -> Result<Vec<CustomerId>, StepError> {
        let questions: Vec<_> = self
            .hosts
            .keys()
            .map(|customer| async move {
                let Some(key) = self.key(customer).await? else {
                    return Ok(None);
                };
                let refused = self.brain.check_key(&key).await? == KeyCheck::Refused;
                Ok::<_, StepError>(refused.then(|| customer.clone()))
            })
            .collect();
        let checked: Vec<Option<CustomerId>> = futures::stream::iter(questions)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(checked.into_iter().flatten().collect())
    }

    /// Which hosts have reported since.
    pub async fn following(&self, since: Timestamp) -> Result<Following, StepError> {
        let questions: Vec<_> = self
            .hosts
            .iter()
            .map(|(customer, hosts)| self.missing(customer, hosts, since))
            .collect();
        let missing: Vec<Vec<Missing>> = futures::stream::iter(questions)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let missing: Vec<Missing> = missing.into_iter().flatten().collect();
        Ok(Following {
            hosts: self.hosts(),
            following: self.hosts() - missing.len(),
            missing,
        })
    }

    async fn missing(
        &self,
        customer: &CustomerId,
        hosts: &[Instance],
        since: Timestamp,
    ) -> Result<Vec<Missing>, StepError> {
        let unseen: Vec<&Instance> = {
            let seen = lock(&self.seen);
            let unseen = hosts.iter().filter(|host| !seen.contains_key(&host.id));
            unseen.collect()
        };
        if unseen.is_empty() {
            return Ok(Vec::new());
        }
        let (heartbeats, problem) = match self.heartbeats(customer, &unseen, since).await {
            Ok(heartbeats) => (Some(heartbeats), None),
            Err(StepError::Brain(BrainError::Refused { .. })) => {
                // It may have been rotated since it was read.
                lock(&self.keys).remove(customer);
                (None, Some("the brain refuses its key".to_owned()))
            }
            Err(StepError::Precondition { problem, .. }) => (None, Some(problem)),
            Err(error) => return Err(error),
        };
        let mut missing = Vec::new();
        for host in unseen {
            let all = heartbeats.as_ref();
            match all.and_then(|all| all.of(host.into())) {
                Some(beat) => {
                    lock(&self.seen).insert(host.id.clone(), beat.ts);
                }
                None => missing.push(Missing {
                    customer: customer.clone(),
                    instance_id: host.id.clone(),
                    problem: problem
                        .clone()
                        .or_else(|| all.and_then(|all| all.instead_of(host.into()))),
                }),
            }
        }
        Ok(missing)
    }

    async fn heartbeats(
        &self,
        customer: &CustomerId,
        hosts: &[&Instance],
        since: Timestamp,
    ) -> Result<Heartbeats, StepError> {
        let key = match self.feeds.needs_key() {
            true => self.key(customer).await?,
            false => None,
        };
        if key.is_none() && self.feeds.needs_key() {
            return Err(StepError::Precondition {
                problem: "the customer has no usable brain key in SSM".to_owned(),
                hint: String::new(),
            });
        }
        let hosts: Vec<Host<'_>> = hosts.iter().map(|host| (*host).into()).collect();
        let asked = self.feeds.heartbeats(customer, key.as_ref(), &hosts, since);
        Ok(asked.await?)
    }

    /// Since when the stored URL is this brain's; `None` while it is another's.
    pub async fn moved(&self) -> Result<Option<Timestamp>, StepError> {
        let stored = self.aws.parameter(BRAIN_URL_PARAMETER).await?;
        Ok(stored
            .filter(|stored| stored.value.expose_secret() == self.brain.url().as_str())
            .and_then(|stored| stored.modified))
    }
}

/// Every running host reports to the brain that the stored URL names.
pub struct HostsFollow {
    /// The fleet.
    pub fleet: Arc<Fleet>,
    /// How long they are waited for.
    pub timeout: Duration,
}

#[async_trait]
impl Step for HostsFollow {
    fn name(&self) -> &'static str {
        "hosts-follow"
    }

    fn after(&self) -> &'static [&'static str] {
        &["brain-url"]
    }

    fn describe(&self) -> String {
        format!(
            "{} report to {}",
            text::counted(self.fleet.hosts(), "host"),
            self.fleet.brain.url()
        )
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let count = self.fleet.hosts();
        if count == 0 {
            return Ok(Observation::satisfied("no host runs"));
        }
        if let Some(since) = self.fleet.moved().await?
            && self.fleet.following(since).await?.missing.is_empty()
        {
            return Ok(Observation::satisfied(format!(
                "all of {}",
                text::counted(count, "host")
            )));
        }
        Ok(Observation::missing(format!(
            "wait up to {} until {} that run reported to {}",
            text::duration(self.timeout),
            text::counted(count, "host"),
            self.fleet.brain.url()
        )))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let mut wait = Wait::new(run, self.timeout);
        let since = self.fleet.moved().await?.unwrap_or_else(Timestamp::now);
        loop {
            let overdue = wait.is_over();
            match wait.ask(self.fleet.following(since)).await? {
                None => {}
                Some(now) if now.missing.is_empty() => {
                    return Ok(Outcome::Arrived(format!(
                        "from all of {}",
                        text::counted(now.hosts, "host")
                    )));
                }
                Some(now) if overdue => {
                    return Err(StepError::UrlNotFollowed {
                        url: self.fleet.brain.url().to_string(),
                        following: now.following,
                        hosts: now.hosts,
                        waited_s: self.timeout.as_secs(),
                        missing: now.missing.iter().map(ToString::to_string).collect(),
                    });
                }
                Some(now) => wait.progress(format!(
                    "{} of {}",
                    now.following,
                    text::counted(now.hosts, "host")
                )),
            }
            wait.pause(PACE).await?;
        }
    }

    /// Nothing was made.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}
