//! The end of onboarding: the brain has a heartbeat of the customer's host. While it is waited for, the host is
//! watched, so that one that fails is told within seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::auth_key_facts::explained;
use super::host::VISIBLE_PATIENCE;
use super::{Context, tailnet_watch};
use crate::aws::AwsError;
use crate::aws::ec2::Instance;
use crate::bootstrap_log::BootstrapLog;
use crate::brain::heartbeat::Bootstrap;
use crate::brain::{BrainError, Heartbeat, Heartbeats};
use crate::console_text::whole_lines;
use crate::diagnosis::{self, Diagnosis, Heard, Situation, Verdict, judge};
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::{BrainKey, ExposeSecret as _};
use crate::wait::{Pace, Wait};

/// A heartbeat older than this says nothing about now: three beats of the timer, which beats every five minutes.
pub(crate) const RECENT: SignedDuration = SignedDuration::from_mins(15);
/// How soon the brain is asked a second time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The first heartbeat, or a recent one of a host that was there before.
pub struct FirstHeartbeat(pub Arc<Context>);

impl FirstHeartbeat {
    /// Heartbeats of the customer since then: those of this host, and what may be taken for them.
    pub(crate) async fn heartbeats(
        &self,
        host: &Instance,
        key: Option<&BrainKey>,
        since: Timestamp,
    ) -> Result<Heartbeats, BrainError> {
        let context = &self.0;
        let feeds = context.feeds();
        feeds
            .heartbeats(&context.customer, key, &[host.into()], since)
            .await
    }

    /// A host that reports, and whose bootstrap failed after its first heartbeat: the software that others install has not
    /// what it needs.
    async fn check_bootstrap(&self, host: &Instance, beat: &Heartbeat) -> Result<(), StepError> {
        let Some(state @ Bootstrap::Failed { name, .. }) = &beat.bootstrap else {
            return Ok(());
        };
        // The heartbeat is the proof; the console says why.
        let console = self.0.aws.console_output(&host.id).await;
        let console = console.unwrap_or_default();
        let situation = self.situation(&host.id, None, whole_lines(&console));
        self.judge(&situation)?;
        let fact = format!("{} sends heartbeats, and its bootstrap {state}", host.id);
        Err(self.failed(diagnosis::of_fact(name, fact, &situation)))
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

    /// When the brain last heard of this host, if it ever did, and what it has instead.
    async fn last_heard(&self, host: &Instance, key: Option<&BrainKey>) -> (Heard, Option<String>) {
        let launched = host.launched.unwrap_or(Timestamp::UNIX_EPOCH);
        match self.heartbeats(host, key, launched).await {
            Ok(all) => match all.of(host.into()) {
                Some(last) => (Heard::Stopped(last.ts), all.ahead_in_words()),
                None => (Heard::Never, all.instead_of(host.into())),
            },
            // It has just been asked for newer ones, and answered.
            Err(_) => (Heard::Never, None),
        }
    }

    async fn wait(&self, host: &Instance, run: &StepRun) -> Result<Heartbeat, StepError> {
        let context = &self.0;
        let since = self.wanted_since(host);
        let key = context.found.brain_key.get();
        let mut wait = Wait::new(run, context.timeout);
        let mut brain_pace = Pace::new(FIRST_PAUSE, Duration::from_secs(3));
        let mut host_pace = Pace::new(Duration::from_millis(400), context.pace.host);
        let mut standing = Standing::default();
        let mut console = Vec::new();
        let mut host = host.clone();
        let mut state = host.state.clone();
        // Only of a host whose first heartbeat is still to come is it known when it must come: any other beats by its timer.
        let is_first = context.found.heartbeat_after.get().is_none();
        let mut booting = is_first && context.found.launched.get().is_some();
        let mut accepted: Option<Instant> = None;
        let mut silent: Option<Instant> = None;
        let mut in_vain = false;
        wait.progress(format!("{} is {state}", host.id));
        loop {
            if brain_pace.is_due()
                && let Some(all) = wait.ask(self.heartbeats(&host, key, since)).await?
            {
                if let Some(beat) = all.of((&host).into()) {
                    self.check_bootstrap(&host, beat).await?;
                    return Ok(beat.clone());
                }
                silent = Some(Instant::now());
            }
            if host_pace.is_due() {
                match self.look(&host.id, wait.elapsed()).await {
                    Ok(None) => {}
                    Ok(Some((now, output))) => {
                        console = output;
                        let known = now.as_ref().map_or(("unknown to EC2", None), |now| {
                            (now.state.as_str(), now.state_reason.as_deref())
                        });
                        // A line that is still being written would be taken for another failure.
                        let lines = whole_lines(&console);
                        standing = self.judge(&self.situation(&host.id, Some(known), lines))?;
                        state = known.0.to_owned();
                        // It may have got its name only now, by which a plain heartbeat is known.
                        host = now.unwrap_or(host);
                        wait.progress(format!("{} {}", host.id, standing.tell(&state)));
                    }
                    // The heartbeat is the proof, and EC2 only helps to see sooner what is wrong.
                    Err(error) if !in_vain => {
                        in_vain = true;
                        wait.progress(format!(
                            "{} cannot be looked at, and its heartbeat is still waited for: {}",
                            host.id,
                            in_words(&error)
                        ));
                    }
                    Err(_) => {}
                }
            }
            booting |= is_first && standing.log.step.is_some() && !standing.has_reported();
            if booting && standing.has_reported() && accepted.is_none() {
                accepted = Some(Instant::now());
                brain_pace.begin_again();
            }
            // What the brain has accepted it shows at once; a long wait would only hide that it does not.
            let lost = accepted
                .zip(silent)
                .is_some_and(|(since, asked)| asked >= since + context.pace.accepted);
            if lost || wait.is_over() {
                let (heard, instead) = self.last_heard(&host, key).await;
                let situation = Situation {
                    heard,
                    over: true,
                    ..self.situation(&host.id, None, &console)
                };
                let Verdict::Failed(mut diagnosis) = judge(&situation) else {
                    unreachable!("a wait that is over without a heartbeat is a failure");
                };
                diagnosis.evidence.extend(instead);
                return Err(StepError::NoHeartbeat {
                    customer: context.customer.to_string(),
                    instance_id: host.id.clone(),
                    state,
                    bootstrap: standing.log.describe(),
                    waited_s: wait.elapsed().as_secs(),
                    diagnosis: Box::new(self.masked(*diagnosis)),
                });
            }
            wait.tick().await?;
        }
    }

    /// The host and its console as they are now; nothing as long as EC2 need not know it yet.
    async fn look(
        &self,
        id: &str,
        waited: Duration,
    ) -> Result<Option<(Option<Instance>, Vec<u8>)>, AwsError> {
        let aws = &self.0.aws;
        let now = aws.instance(id).await?;
        if now.is_none() && waited < VISIBLE_PATIENCE {
            return Ok(None);
        }
        Ok(Some((now, aws.console_output(id).await?)))
    }
}

/// What AWS refused, and what would help.
pub(crate) fn in_words(error: &AwsError) -> String {
    match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
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
        let source = self.0.feeds().source();
        let missing = || {
            let later = self
                .0
                .found
                .heartbeat_after
                .get()
                .map_or(String::new(), |last| format!(" later than {last}"));
            Observation::missing(format!(
                "wait up to {} for a heartbeat{later} in {source}",
                crate::text::duration(self.0.timeout)
            ))
        };
        let (Some(&host), Some(stored)) = (live.first(), stored) else {
            return Ok(missing());
        };
        let Ok(key) = BrainKey::parse(stored.value.expose_secret()) else {
            return Ok(missing());
        };
        let since = self.wanted_since(host);
        let all = match self.heartbeats(host, Some(&key), since).await {
            Ok(all) => all,
            // The key's own step reports a refused key, and replaces it.
            Err(BrainError::Refused { .. }) => return Ok(missing()),
            // It has just answered: it may be away for a moment, which the wait outlasts.
            Err(e) if e.is_passing() => return Ok(missing()),
            Err(e) => return Err(e.into()),
        };
        let Some(beat) = all.of(host.into()) else {
            return Ok(missing());
        };
        let age = all.now.duration_since(beat.ts).as_secs().max(0);
        if let Some(state) = beat.bootstrap.as_ref().filter(|state| state.has_failed()) {
            return Ok(Observation::Drifted {
                differences: vec![format!(
                    "{} sent a heartbeat {age} s ago, and its bootstrap {state}",
                    host.id
                )],
            });
        }
        let detail = format!("{}, {age} s ago", beat.hostname);
        let _ = self.0.found.heartbeat.set(beat.clone());
        Ok(Observation::satisfied(detail))
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
