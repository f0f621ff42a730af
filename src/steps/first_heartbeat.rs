//! The end of onboarding: the brain has a heartbeat of the customer's host. While it is waited for, the host is
//! watched, so that one that fails is told within seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{Context, tailnet_watch};
use crate::aws::ec2::Instance;
use crate::bootstrap_log::{BootstrapLog, last_lines};
use crate::brain::database::Database;
use crate::brain::{BrainError, Heartbeat};
use crate::plan::step::HostFailure;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::secret::{BrainKey, ExposeSecret as _};

/// A heartbeat older than this says nothing about now: three beats of the timer, which beats every five minutes.
pub(crate) const RECENT: SignedDuration = SignedDuration::from_mins(15);
/// How many lines of the console are shown for a failure without lines of its own.
const LAST_LINES: usize = 12;
/// EC2 may take this long to show an instance it has just launched.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(60);

/// The first heartbeat, or a recent one of a host that was there before.
pub struct FirstHeartbeat(pub Arc<Context>);

/// Pauses that grow from a fraction of a second to a few seconds.
struct Pace {
    next: Instant,
    pause: Duration,
    longest: Duration,
}

impl Pace {
    fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: Instant::now(),
            pause: first,
            longest,
        }
    }

    fn is_due(&mut self) -> bool {
        if Instant::now() < self.next {
            return false;
        }
        self.next = Instant::now() + self.pause;
        self.pause = (self.pause * 3 / 2).min(self.longest);
        true
    }
}

impl FirstHeartbeat {
    pub(crate) async fn ask(
        &self,
        database: Option<&Database>,
        key: Option<&BrainKey>,
        since: Timestamp,
    ) -> Result<Option<Heartbeat>, StepError> {
        let customer = &self.0.customer;
        Ok(match (database, key) {
            (Some(database), _) => database.latest_heartbeat(customer, since).await?,
            (None, Some(key)) => self.0.brain.latest_heartbeat(customer, key, since).await?,
            (None, None) => None,
        })
    }

    pub(crate) async fn database(&self) -> Result<Option<Database>, StepError> {
        Ok(match &self.0.database_url {
            Some(url) => Some(Database::connect(url).await?),
            None => None,
        })
    }

    /// From when on a heartbeat counts: since the launch, and not from another age.
    pub(crate) fn since(host: &Instance) -> Timestamp {
        let recent = Timestamp::now()
            .checked_sub(RECENT)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        host.launched
            .map_or(recent, |launched| launched.max(recent))
    }

    pub(crate) fn failed(
        &self,
        host: &str,
        what: String,
        evidence: Vec<String>,
        hint: String,
    ) -> StepError {
        StepError::HostFailed(Box::new(HostFailure {
            customer: self.0.customer.to_string(),
            instance_id: host.to_owned(),
            what,
            evidence,
            hint,
        }))
    }

    /// What the console says, as an error when it says that the bootstrap ended without success.
    pub(crate) fn judge_console(
        &self,
        host: &str,
        console: &[u8],
    ) -> Result<BootstrapLog, StepError> {
        let log = BootstrapLog::parse(console);
        let Some(failure) = &log.failure else {
            return Ok(log);
        };
        let mut what = format!("bootstrap step {} ({})", failure.step, failure.name);
        match (&failure.reason, failure.exit) {
            (Some(reason), _) => what.push_str(&format!(": {reason}")),
            (None, Some(exit)) => what.push_str(&format!(" ended with exit code {exit}")),
            (None, None) => {}
        }
        let evidence = if failure.evidence.is_empty() {
            last_lines(console, LAST_LINES)
        } else {
            failure.evidence.clone()
        };
        Err(self.failed(host, what, evidence, self.relaunch_hint(host)))
    }

    fn relaunch_hint(&self, host: &str) -> String {
        format!(
            "the host is kept; its whole log: aws ec2 get-console-output --latest --output text --instance-id {host}. \
             When the cause is mended, end it with `aws ec2 terminate-instances --instance-ids {host}` and run the same command again"
        )
    }

    fn check_state(&self, host: &Instance) -> Result<(), StepError> {
        if matches!(host.state.as_str(), "pending" | "running") {
            return Ok(());
        }
        let why = host
            .state_reason
            .as_deref()
            .unwrap_or("EC2 gives no reason");
        Err(self.failed(
            &host.id,
            format!("the instance is {} ({why})", host.state),
            Vec::new(),
            "run the same command again to launch another; if it ends again, the reason above says why".to_owned(),
        ))
    }

    async fn wait(&self, host: &Instance, run: &StepRun) -> Result<Heartbeat, StepError> {
        let context = &self.0;
        let since = Self::since(host);
        let key = context.found.brain_key.get();
        let database = self.database().await?;
        let began = Instant::now();
        let mut brain_pace = Pace::new(Duration::from_millis(200), Duration::from_secs(3));
        let mut host_pace = Pace::new(Duration::from_millis(400), Duration::from_secs(5));
        let mut log = BootstrapLog::default();
        let mut state = host.state.clone();
        let mut told = format!("{} is {state}", host.id);
        run.progress(&told);
        loop {
            if brain_pace.is_due() {
                match self.ask(database.as_ref(), key, since).await {
                    Ok(Some(heartbeat)) => return Ok(heartbeat),
                    Ok(None) => {}
                    // The brain or the tailnet may be away for a moment; the answer to the last question counts.
                    Err(StepError::Brain(e @ BrainError::Unreachable { .. }))
                        if began.elapsed() < context.timeout =>
                    {
                        run.progress(e.to_string());
                    }
                    Err(e) => return Err(e),
                }
            }
            if host_pace.is_due() {
                match context.aws.instance(&host.id).await? {
                    Some(now) => {
                        // The console is read first: it says why an instance has ended.
                        let console = context.aws.console_output(&host.id).await?;
                        log = self.judge_console(&host.id, &console)?;
                        self.check_state(&now)?;
                        state = now.state;
                    }
                    None if began.elapsed() < VISIBLE_PATIENCE => {}
                    None => {
                        return Err(self.failed(
                            &host.id,
                            "EC2 does not know the instance any more".to_owned(),
                            Vec::new(),
                            "run the same command again to launch another".to_owned(),
                        ));
                    }
                }
                let tell = match &log.step {
                    Some(step) if log.complete.is_none() => {
                        format!("{} is {state}, {step}", host.id)
                    }
                    _ if log.complete.is_some() => format!("{} has booted", host.id),
                    _ => format!("{} is {state}", host.id),
                };
                if tell != told {
                    run.progress(&tell);
                    told = tell;
                }
            }
            if began.elapsed() >= context.timeout {
                return Err(StepError::NoHeartbeat {
                    customer: context.customer.to_string(),
                    instance_id: host.id.clone(),
                    state,
                    bootstrap: log.describe(),
                    waited_s: context.timeout.as_secs(),
                });
            }
            run.pause(Duration::from_millis(100)).await?;
        }
    }
}

#[async_trait]
impl Step for FirstHeartbeat {
    fn name(&self) -> &'static str {
        "first-heartbeat"
    }

    fn after(&self) -> &'static [&'static str] {
        &["host"]
    }

    fn describe(&self) -> String {
        format!("heartbeat of {} at the brain", self.0.customer)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let live = self.0.live_hosts().await?;
        let stored = self.0.stored_brain_key().await?;
        let source = if self.0.database_url.is_some() {
            "the brain's database"
        } else {
            "the brain"
        };
        let missing = || {
            Observation::missing(format!(
                "wait up to {} for a heartbeat in {source}",
                crate::terminal::text::duration(self.0.timeout)
            ))
        };
        let (Some(host), Some(stored)) = (live.first(), stored) else {
            return Ok(missing());
        };
        let Ok(key) = BrainKey::parse(stored.value.expose_secret()) else {
            return Ok(missing());
        };
        let database = self.database().await?;
        match self
            .ask(database.as_ref(), Some(&key), Self::since(host))
            .await
        {
            Ok(Some(heartbeat)) => {
                let age = Timestamp::now()
                    .duration_since(heartbeat.ts)
                    .as_secs()
                    .max(0);
                let detail = format!("{}, {age} s ago", heartbeat.hostname);
                let _ = self.0.found.heartbeat.set(heartbeat);
                Ok(Observation::satisfied(detail))
            }
            Ok(None) => Ok(missing()),
            // The key's own step tells of a refused key, and mends it.
            Err(StepError::Brain(BrainError::Refused { .. })) => Ok(missing()),
            Err(e) => Err(e),
        }
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let Some(host) = self.0.found.host.get() else {
            return Err(StepError::Precondition {
                problem: format!("{} has no host to wait for", self.0.customer),
                hint: "run the same command again".to_owned(),
            });
        };
        let waiting = self.wait(host, run);
        let heartbeat = tailnet_watch::alongside(&self.0, host, run, waiting).await?;
        let detail = format!("from {} at {}", heartbeat.hostname, heartbeat.ts);
        let _ = self.0.found.heartbeat.set(heartbeat);
        Ok(Outcome::Arrived(detail))
    }

    /// What the brain has recorded stays recorded.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}
