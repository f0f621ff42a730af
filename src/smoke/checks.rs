//! What a smoke run checks after the first heartbeat.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::aws::ec2::{Instance, same_host};
use crate::brain::{BrainError, ToolCall};
use crate::console_text::{last_lines, whole_lines};
use crate::diagnosis;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::steps::Context;
use crate::steps::first_heartbeat::FirstHeartbeat;

/// How often EC2 and the brain are asked again.
const PACE: Duration = Duration::from_secs(2);
/// The first questions come sooner: the last line is mostly there by the time the heartbeat is.
const FIRST_PACE: Duration = Duration::from_millis(200);

/// What the checks found.
#[derive(Default)]
pub struct Findings {
    console: Mutex<Vec<u8>>,
    /// What the brain has as the host's name, and what EC2 has.
    pub hostname: OnceLock<(String, String)>,
    /// The call of a tool that was waited for.
    pub tool_call: OnceLock<ToolCall>,
}

impl Findings {
    /// The console as it was last read.
    pub fn console(&self) -> Vec<u8> {
        self.console
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps the console, unless it has become shorter: EC2 answers with nothing once a host is gone.
    pub fn keep_console(&self, bytes: Vec<u8>) {
        let mut kept = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() >= kept.len() {
            *kept = bytes;
        }
    }
}

fn host(context: &Context) -> Result<&Instance, StepError> {
    context
        .found
        .host
        .get()
        .ok_or_else(|| StepError::Precondition {
            problem: format!("{} has no host to check", context.customer),
            hint: "run the same command again".to_owned(),
        })
}

/// Pauses that grow to the usual pace.
async fn next(run: &StepRun, asked: u32) -> Result<(), StepError> {
    run.pause((FIRST_PACE * asked.min(10)).min(PACE)).await
}

/// The bootstrap's last line is on the console.
pub struct BootstrapComplete {
    /// The run.
    pub context: Arc<Context>,
    /// Where the console is kept.
    pub findings: Arc<Findings>,
}

#[async_trait]
impl Step for BootstrapComplete {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    fn after(&self) -> &'static [&'static str] {
        &["first-heartbeat"]
    }

    fn describe(&self) -> String {
        format!("`complete for {}` on the console", self.context.customer)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        Ok(Observation::missing(format!(
            "read `m8trx-bootstrap: complete for {}` on the host's console",
            self.context.customer
        )))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let context = &self.context;
        let host = &host(context)?.id;
        let heartbeat = FirstHeartbeat(Arc::clone(context));
        let began = Instant::now();
        let mut asked = 0;
        loop {
            let console = context.aws.console_output(host).await?;
            self.findings.keep_console(console.clone());
            let situation = heartbeat.situation(host, None, whole_lines(&console));
            let log = heartbeat.judge(&situation)?.log;
            match log.complete.as_deref() {
                Some(id) => return Ok(Outcome::Arrived(format!("complete for {id}"))),
                None if began.elapsed() >= context.timeout => {
                    let at = "the packages that come after the first heartbeat";
                    let fact = format!("the bootstrap has not ended: it is at {at}");
                    let mut diagnosis = diagnosis::of_fact("packages", fact, &situation);
                    diagnosis.evidence.extend(last_lines(&console, 12));
                    return Err(heartbeat.failed(diagnosis));
                }
                None => run.progress(log.describe()),
            }
            asked += 1;
            next(run, asked).await?;
        }
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}

/// The name in the heartbeat is the name EC2 gave the host: the beat came from this very host.
pub struct Hostname {
    /// The run.
    pub context: Arc<Context>,
    /// Where the names are kept.
    pub findings: Arc<Findings>,
}

#[async_trait]
impl Step for Hostname {
    fn name(&self) -> &'static str {
        "hostname"
    }

    fn after(&self) -> &'static [&'static str] {
        &["bootstrap"]
    }

    fn describe(&self) -> String {
        "the heartbeat's hostname is the instance's".to_owned()
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let how = if self.context.database_url.is_some() {
            "the brain's database"
        } else {
            "the brain"
        };
        Ok(Observation::missing(format!(
            "read the heartbeat's hostname back from {how}, and compare it with the instance's"
        )))
    }

    async fn apply(&self, _run: &StepRun) -> Result<Outcome, StepError> {
        let context = &self.context;
        let launched = host(context)?;
        let heartbeat = FirstHeartbeat(Arc::clone(context));
        let database = heartbeat.database().await?;
        let key = context.found.brain_key.get();
        let since = FirstHeartbeat::since(launched);
        let beat = heartbeat.ask(database.as_ref(), key, since).await?;
        let instance = context.aws.instance(&launched.id).await?;
        let expected = instance
            .and_then(|instance| instance.private_dns_name)
            .or_else(|| launched.private_dns_name.clone());
        let (Some(beat), Some(expected)) = (beat, expected) else {
            return Err(StepError::Precondition {
                problem: format!(
                    "the heartbeat of {} cannot be compared: the brain or EC2 no longer has a name for it",
                    launched.id
                ),
                hint: "run the same command again".to_owned(),
            });
        };
        let _ = self
            .findings
            .hostname
            .set((beat.hostname.clone(), expected.clone()));
        if !same_host(&beat.hostname, &expected) {
            return Err(StepError::OtherHost {
                customer: context.customer.to_string(),
                instance_id: launched.id.clone(),
                reported: beat.hostname,
                expected,
            });
        }
        Ok(Outcome::Arrived(format!(
            "{} is {expected}",
            beat.hostname.escape_debug()
        )))
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}

/// Software on the host has reported the call of a tool.
pub struct ToolCalled {
    /// The run.
    pub context: Arc<Context>,
    /// Where the event is kept.
    pub findings: Arc<Findings>,
}

#[async_trait]
impl Step for ToolCalled {
    fn name(&self) -> &'static str {
        "tool-call"
    }

    fn after(&self) -> &'static [&'static str] {
        &["hostname"]
    }

    fn describe(&self) -> String {
        format!("a `tool_call` event of {}", self.context.customer)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        Ok(Observation::missing(format!(
            "wait up to {} for a `tool_call` event",
            crate::terminal::text::duration(self.context.timeout)
        )))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let context = &self.context;
        let customer = &context.customer;
        let host = host(context)?;
        let since = FirstHeartbeat::since(host);
        let database = FirstHeartbeat(Arc::clone(context)).database().await?;
        let began = Instant::now();
        let mut asked = 0;
        loop {
            let found = match (&database, context.found.brain_key.get()) {
                (Some(database), _) => database.latest_tool_call(customer, since).await,
                (None, Some(key)) => context.brain.latest_tool_call(customer, key, since).await,
                (None, None) => Ok(None),
            };
            match found {
                Ok(Some(call)) => {
                    let detail = format!("{} at {}", call.tool_name.escape_debug(), call.ts);
                    let _ = self.findings.tool_call.set(call);
                    return Ok(Outcome::Arrived(detail));
                }
                // The brain or the tailnet may be away for a moment; the answer to the last question counts.
                Err(e @ BrainError::Unreachable { .. }) if began.elapsed() < context.timeout => {
                    run.progress(e.to_string());
                }
                Err(e) => return Err(e.into()),
                Ok(None) if began.elapsed() >= context.timeout => {
                    return Err(StepError::NoToolCall {
                        customer: customer.to_string(),
                        instance_id: host.id.clone(),
                        waited_s: context.timeout.as_secs(),
                    });
                }
                Ok(None) => {
                    run.progress("waiting for software on the host to report the call of a tool");
                }
            }
            asked += 1;
            next(run, asked).await?;
        }
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_by_their_first_label() {
        assert!(same_host("ip-10-0-0-1", "ip-10-0-0-1.ec2.internal"));
        assert!(same_host(
            "IP-10-0-0-1.ec2.internal",
            "ip-10-0-0-1.eu-central-1.compute.internal"
        ));
        assert!(!same_host("ip-10-0-0-1", "ip-10-0-0-11"));
        assert!(!same_host("", ""));
        assert!(!same_host("", "ip-10-0-0-1"));
    }

    #[test]
    fn the_longest_console_is_kept() {
        let findings = Findings::default();
        findings.keep_console(b"all of it".to_vec());
        findings.keep_console(Vec::new());
        assert_eq!(findings.console(), b"all of it");
    }
}
