//! The end of onboarding: the brain has a heartbeat of the customer's host. While it is waited for, the host is
//! watched, so that one that fails is told within seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::auth_key_facts::explained;
use super::host::VISIBLE_PATIENCE;
use super::{Context, tailnet_watch};
use crate::aws::ec2::Instance;
use crate::bootstrap_log::BootstrapLog;
use crate::brain::database::Database;
use crate::brain::{BrainError, Heartbeat};
use crate::console_text::whole_lines;
use crate::diagnosis::{Diagnosis, Heard, Situation, Verdict, judge};
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::{BrainKey, ExposeSecret as _};

/// A heartbeat older than this says nothing about now: three beats of the timer, which beats every five minutes.
pub(crate) const RECENT: SignedDuration = SignedDuration::from_mins(15);
/// How soon the brain is asked a second time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

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

    /// Something is about to come: from now on as at the beginning.
    fn begin_again(&mut self, first: Duration) {
        self.next = Instant::now();
        self.pause = first;
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

    /// [`Self::since`], and after the heartbeat that was there before, where another one is wanted.
    fn wanted_since(&self, host: &Instance) -> Timestamp {
        let since = Self::since(host);
        let next = self.0.found.heartbeat_after.get().and_then(|last| {
            // Brains keep microseconds at the finest (PostgreSQL).
            last.checked_add(SignedDuration::from_micros(1)).ok()
        });
        next.map_or(since, |next| next.max(since))
    }

    pub(crate) fn failed(&self, diagnosis: Diagnosis) -> StepError {
        StepError::HostFailed(Box::new(self.masked(diagnosis)))
    }

    /// Without the secrets that this run knows, should the host have printed one.
    fn masked(&self, diagnosis: Diagnosis) -> Diagnosis {
        let key = self.0.found.brain_key.get().map(BrainKey::expose);
        let auth_key = self.0.tailscale_auth_key.get().map(|key| key.expose());
        let known: Vec<&str> = key.into_iter().chain(auth_key).collect();
        diagnosis.masking(&known)
    }

    /// What is known of a host of this customer.
    pub(crate) fn situation<'a>(
        &'a self,
        host: &'a str,
        state: Option<(&'a str, Option<&'a str>)>,
        console: &'a [u8],
    ) -> Situation<'a> {
        Situation {
            customer: Some(self.0.customer.as_str()),
            instance_id: Some(host),
            region: Some(&self.0.aws.region),
            state,
            console,
            first_boot: self.0.found.launched.get().is_some(),
            ..Situation::default()
        }
    }

    /// How far the host came, or its failure.
    pub(crate) fn judge(&self, situation: &Situation<'_>) -> Result<Standing, StepError> {
        match judge(situation) {
            Verdict::Failed(diagnosis) => Err(self.failed(*diagnosis)),
            Verdict::Reports(log) => Ok(Standing { log, trouble: None }),
            Verdict::Booting { log, trouble } => Ok(Standing {
                log,
                trouble: trouble.map(|diagnosis| self.masked(*diagnosis)),
            }),
        }
    }

    /// When the brain last heard of this host, if it ever did.
    async fn last_heard(
        &self,
        host: &Instance,
        database: Option<&Database>,
        key: Option<&BrainKey>,
    ) -> Heard {
        let launched = host.launched.unwrap_or(Timestamp::UNIX_EPOCH);
        match self.ask(database, key, launched).await {
            Ok(Some(last)) => Heard::Stopped(last.ts),
            // It has just been asked for newer ones, and answered.
            Ok(None) | Err(_) => Heard::Never,
        }
    }

    async fn wait(&self, host: &Instance, run: &StepRun) -> Result<Heartbeat, StepError> {
        let context = &self.0;
        let since = self.wanted_since(host);
        let key = context.found.brain_key.get();
        let database = self.database().await?;
        let began = Instant::now();
        let mut brain_pace = Pace::new(FIRST_PAUSE, Duration::from_secs(3));
        let mut host_pace = Pace::new(Duration::from_millis(400), context.pace.host);
        let mut standing = Standing::default();
        let mut console = Vec::new();
        let mut state = host.state.clone();
        // Only of a host whose first heartbeat is still to come is it known when it must come: any other beats by its timer.
        let is_first = context.found.heartbeat_after.get().is_none();
        let mut booting = is_first && context.found.launched.get().is_some();
        let mut accepted: Option<Instant> = None;
        let mut silent: Option<Instant> = None;
        let mut told = format!("{} is {state}", host.id);
        run.progress(&told);
        loop {
            if brain_pace.is_due() {
                match self.ask(database.as_ref(), key, since).await {
                    Ok(Some(heartbeat)) => return Ok(heartbeat),
                    Ok(None) => silent = Some(Instant::now()),
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
                let now = context.aws.instance(&host.id).await?;
                if now.is_some() || began.elapsed() >= VISIBLE_PATIENCE {
                    console = context.aws.console_output(&host.id).await?;
                    let known = now.as_ref().map_or(("unknown to EC2", None), |now| {
                        (now.state.as_str(), now.state_reason.as_deref())
                    });
                    // A line that is still being written would be taken for another failure.
                    let lines = whole_lines(&console);
                    standing = self.judge(&self.situation(&host.id, Some(known), lines))?;
                    state = known.0.to_owned();
                }
                let tell = format!("{} {}", host.id, standing.tell(&state));
                if tell != told {
                    run.progress(&tell);
                    told = tell;
                }
            }
            booting |= is_first && standing.log.step.is_some() && !standing.has_reported();
            if booting && standing.has_reported() && accepted.is_none() {
                accepted = Some(Instant::now());
                brain_pace.begin_again(FIRST_PAUSE);
            }
            // What the brain has accepted it shows at once; a long wait would only hide that it does not.
            let lost = accepted
                .zip(silent)
                .is_some_and(|(since, asked)| asked >= since + context.pace.accepted);
            if lost || began.elapsed() >= context.timeout {
                let situation = Situation {
                    heard: self.last_heard(host, database.as_ref(), key).await,
                    over: true,
                    ..self.situation(&host.id, None, &console)
                };
                let Verdict::Failed(diagnosis) = judge(&situation) else {
                    unreachable!("a wait that is over without a heartbeat is a failure");
                };
                return Err(StepError::NoHeartbeat {
                    customer: context.customer.to_string(),
                    instance_id: host.id.clone(),
                    state,
                    bootstrap: standing.log.describe(),
                    waited_s: began.elapsed().as_secs(),
                    diagnosis: Box::new(self.masked(*diagnosis)),
                });
            }
            run.pause(Duration::from_millis(100)).await?;
        }
    }
}

/// How far a host came that has not failed.
#[derive(Default)]
pub(crate) struct Standing {
    pub(crate) log: BootstrapLog,
    trouble: Option<Diagnosis>,
}

impl Standing {
    /// Whether the host says that the brain took its heartbeat.
    fn has_reported(&self) -> bool {
        self.log.first_heartbeat || self.log.complete.is_some()
    }

    /// In a few words, with what it is trying to overcome.
    fn tell(&self, state: &str) -> String {
        if self.log.complete.is_some() {
            return "has booted".to_owned();
        }
        let mut text = format!("is {state}");
        if let Some(step) = &self.log.step {
            text.push_str(&format!(", {step}"));
        }
        if let Some(trouble) = &self.trouble {
            text.push_str(&format!(
                "; it is still trying: {} ({})",
                trouble.what, trouble.cause
            ));
        }
        text
    }
}

#[async_trait]
impl Step for FirstHeartbeat {
    fn name(&self) -> &'static str {
        Resource::FirstHeartbeat.name()
    }

    fn after(&self) -> &'static [&'static str] {
        Resource::FirstHeartbeat.after()
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
            let later = self
                .0
                .found
                .heartbeat_after
                .get()
                .map_or(String::new(), |last| format!(" later than {last}"));
            Observation::missing(format!(
                "wait up to {} for a heartbeat{later} in {source}",
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
            .ask(database.as_ref(), Some(&key), self.wanted_since(host))
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
        let heartbeat = match tailnet_watch::alongside(&self.0, host, run, waiting).await {
            Err(StepError::HostFailed(diagnosis)) => {
                let context = &self.0;
                return Err(self.failed(match &context.tailnet {
                    Some(tailnet) => {
                        explained(*diagnosis, &context.aws, tailnet, &context.customer).await
                    }
                    None => *diagnosis,
                }));
            }
            other => other?,
        };
        let detail = format!("from {} at {}", heartbeat.hostname, heartbeat.ts);
        let _ = self.0.found.heartbeat.set(heartbeat);
        Ok(Outcome::Arrived(detail))
    }

    /// What the brain has recorded stays recorded.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}
