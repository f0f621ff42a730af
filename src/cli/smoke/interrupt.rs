//! Ctrl-C during a smoke run: the first removes what was made, the second ends at once and says what is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::cleanup_command;
use crate::customer::{BRAIN_URL_PARAMETER, CustomerId};
use crate::inventory::{Item, Kind as Thing};
use crate::plan::{Event, Outcome};
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// The steps that make something.
const MAKERS: [&str; 8] = [
    "tailnet-policy",
    "brain-url",
    "brain-key",
    "tailscale-auth-key",
    "iam-role",
    "instance-profile",
    "security-group",
    "host",
];

/// What was made and is not removed yet, by the step that makes it.
#[derive(Clone, Default)]
pub(super) struct Left(Arc<Mutex<BTreeMap<String, String>>>);

impl Left {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows what is made.
    pub(super) fn event(&self, event: &Event) {
        let mut left = self.lock();
        match event {
            Event::StepStarted { step } if MAKERS.contains(step) => {
                left.insert((*step).to_owned(), "perhaps: it was under way".to_owned());
            }
            Event::StepFinished { step, outcome, .. } => match outcome {
                Outcome::Created(detail) => {
                    left.insert((*step).to_owned(), detail.clone());
                }
                _ => {
                    left.remove(*step);
                }
            },
            _ => {}
        }
    }

    /// Follows what is removed.
    pub(super) fn removal(&self, event: &Event) {
        if let Event::StepFinished { step, .. } = event {
            self.lock().remove(*step);
        }
    }

    /// Begins with what an earlier run left.
    pub(super) fn expect(&self, items: Vec<&Item>) {
        let mut left = self.lock();
        for item in items {
            let step = match item.kind {
                Thing::Host => "host",
                Thing::SecurityGroup => "security-group",
                Thing::InstanceProfile => "instance-profile",
                Thing::IamRole => "iam-role",
                Thing::Device | Thing::AuthKey => "tailscale-auth-key",
                Thing::PolicyEntry => "tailnet-policy",
                Thing::Parameter if item.id == BRAIN_URL_PARAMETER => "brain-url",
                // The brain's keys carry no mark.
                Thing::BrainKey => continue,
                Thing::Parameter => item.id.rsplit('/').next().unwrap_or(&item.id),
            };
            left.insert(step.to_owned(), item.id.clone());
        }
    }
}

/// Listens until stopped.
pub(super) struct Interrupts {
    first: CancellationToken,
    left: Left,
    task: tokio::task::JoinHandle<()>,
}

struct Signals([Signal; 3]);

impl Signals {
    /// Ctrl-C, and what a CI system or a closing terminal sends.
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

impl Interrupts {
    /// Begins to listen.
    pub(super) fn listen(
        customer: &CustomerId,
        keep: bool,
        terminal: &Terminal,
    ) -> Result<Self, Failure> {
        let mut signals = Signals::new().map_err(|e| {
            Failure::words(Kind::Other, format!("signals cannot be listened to: {e}"))
        })?;
        let first = CancellationToken::new();
        let left = Left::default();
        let task = tokio::spawn({
            let (first, left, terminal) = (first.clone(), left.clone(), terminal.clone());
            let cleanup = cleanup_command(customer);
            async move {
                signals.next().await;
                first.cancel();
                terminal.say(if keep {
                    "Stopping: what is under way is finished first. Ctrl-C again ends at once."
                } else {
                    "Stopping: what is under way is finished, and what was made is removed. Ctrl-C again ends at once and leaves it."
                });
                signals.next().await;
                let left = left.lock();
                if left.is_empty() {
                    terminal.say("Ended at once; nothing is left.");
                } else {
                    terminal.say("Ended at once. This is left:");
                    for (step, detail) in left.iter() {
                        terminal.say(format!("  {step}: {detail}"));
                    }
                    terminal.say(format!("Remove it: {cleanup}"));
                }
                std::process::exit(i32::from(Kind::Interrupted.exit_code()));
            }
        });
        Ok(Self { first, left, task })
    }

    /// Set by the first interrupt.
    pub(super) fn first(&self) -> CancellationToken {
        self.first.clone()
    }

    /// What is made and not removed yet.
    pub(super) fn left(&self) -> Left {
        self.left.clone()
    }

    /// From here on nothing is left to stop.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}
