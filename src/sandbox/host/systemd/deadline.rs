//! What happens to services later: stopping, time-outs, restarts.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::journal::{INFO, WARNING};
use super::manager::{Active, Manager};
use super::service::{Phase, lines};
use super::span;

/// What happens when a deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    StartTimeout,
    Kill,
    Restart,
}

impl Manager {
    pub(super) fn restart_later(&mut self, name: &str) {
        let Some(loaded) = self.units.get_mut(name) else {
            return;
        };
        let wait = loaded
            .unit
            .last("Service", "RestartSec")
            .and_then(span::parse)
            .unwrap_or(Duration::from_millis(100));
        loaded.service.deadline = Instant::now()
            .checked_add(wait)
            .map(|at| (at, Deadline::Restart));
        if loaded.service.deadline.is_some() && loaded.active != Active::Failed {
            loaded.sub = "auto-restart";
        }
    }

    pub(super) fn stop_service(&mut self, name: &str) {
        let Some(loaded) = self.units.get_mut(name) else {
            return;
        };
        loaded.service.stopping = true;
        loaded.service.deadline = None;
        if matches!(loaded.active, Active::Inactive | Active::Failed) {
            loaded.set(Active::Inactive, "dead");
            return self.ended(name);
        }
        loaded.set(Active::Deactivating, "stop");
        let description = loaded.unit.description().to_owned();
        loaded.service.queue = lines(&loaded.unit, Phase::Stop).collect();
        if loaded.service.main.is_none() {
            // A oneshot in the middle of its start.
            loaded.service.signal(Signal::SIGTERM);
        }
        self.note(name, INFO, &format!("Stopping {description}..."));
        self.advance(name);
    }

    /// When something is due next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let services = self
            .units
            .values()
            .filter_map(|loaded| loaded.service.deadline.map(|(at, _)| at));
        services.chain(self.next_timer()).min()
    }

    /// Does what is due.
    pub fn tick(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .units
            .iter_mut()
            .filter_map(|(name, loaded)| match loaded.service.deadline {
                Some((at, deadline)) if at <= now => {
                    loaded.service.deadline = None;
                    Some((name.clone(), deadline))
                }
                _ => None,
            })
            .collect();
        for (name, deadline) in due {
            match deadline {
                Deadline::Restart => self.start(&name),
                Deadline::Kill => {
                    self.note(
                        &name,
                        WARNING,
                        &format!("{name}: State 'stop-sigterm' timed out. Killing."),
                    );
                    self.units[&name].service.signal(Signal::SIGKILL);
                }
                Deadline::StartTimeout => {
                    self.note(
                        &name,
                        WARNING,
                        &format!("{name}: start operation timed out. Terminating."),
                    );
                    if let Some(loaded) = self.units.get_mut(&name) {
                        loaded.result = "timeout";
                        loaded.service.signal(Signal::SIGTERM);
                        loaded.service.deadline =
                            Some((now + Duration::from_secs(5), Deadline::Kill));
                    }
                }
            }
        }
        self.run_timers();
        self.run_jobs();
    }
}
