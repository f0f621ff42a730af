//! Services: their commands one after the other, their output into the journal, restarts, time-outs, stopping.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::deadline::Deadline;
use super::exec::Line;
use super::journal::{INFO, WARNING};
use super::manager::{Active, Manager};
use super::places::make_directories;
use super::protocol::Outcome;
use super::span;
use super::unit::Unit;

/// systemd's default for starting and stopping.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);
/// systemd's default limit: five starts in ten seconds.
const START_LIMIT: (usize, Duration) = (5, Duration::from_secs(10));

/// What a command of a service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Condition,
    StartPre,
    Main,
    StartPost,
    Stop,
    StopPost,
}

/// The state of a service.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub main: Option<i32>,
    /// Exit status of the last main process.
    pub status: i32,
    pub queue: VecDeque<(Phase, Line)>,
    pub current: Option<Line>,
    pub groups: Vec<i32>,
    pub deadline: Option<(Instant, Deadline)>,
    starts: Vec<Instant>,
    pub stopping: bool,
}

impl Service {
    pub fn forget_starts(&mut self) {
        self.starts.clear();
    }

    pub fn waits_for_restart(&self) -> bool {
        matches!(self.deadline, Some((_, Deadline::Restart)))
    }

    pub fn signal(&self, signal: Signal) {
        for group in &self.groups {
            // A group that is gone needs no signal.
            let _ = killpg(Pid::from_raw(*group), signal);
        }
    }
}

pub(super) fn lines(unit: &Unit, phase: Phase) -> impl Iterator<Item = (Phase, Line)> {
    let key = match phase {
        Phase::Condition => "ExecCondition",
        Phase::StartPre => "ExecStartPre",
        Phase::Main => "ExecStart",
        Phase::StartPost => "ExecStartPost",
        Phase::Stop => "ExecStop",
        Phase::StopPost => "ExecStopPost",
    };
    unit.all("Service", key)
        .into_iter()
        .filter_map(move |text| Some((phase, Line::parse(text)?)))
}

pub(super) fn kind(unit: &Unit) -> &str {
    unit.last("Service", "Type").unwrap_or("simple")
}

pub(super) fn timeout(unit: &Unit, key: &str, default: Duration) -> Duration {
    let value = unit
        .last("Service", key)
        .or(unit.last("Service", "TimeoutSec"))
        .and_then(span::parse);
    // For time-outs systemd reads 0 as none.
    match value {
        Some(Duration::ZERO) => Duration::MAX,
        other => other.unwrap_or(default),
    }
}

/// How many starts in how long; an interval of 0 means no limit.
fn start_limit(unit: &Unit) -> (usize, Duration) {
    let value = |name: &str| unit.last("Unit", name).or(unit.last("Service", name));
    let interval = value("StartLimitIntervalSec")
        .or(value("StartLimitInterval"))
        .and_then(span::parse);
    let burst = value("StartLimitBurst").and_then(|value| value.parse().ok());
    match interval.unwrap_or(START_LIMIT.1) {
        Duration::ZERO => (usize::MAX, Duration::ZERO),
        interval => (burst.unwrap_or(START_LIMIT.0), interval),
    }
}

impl Manager {
    pub(super) fn status_line(&mut self, good: bool, description: &str) {
        if self.finished {
            return;
        }
        let line = if good {
            format!("[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39m{description}\x1b[0m.")
        } else {
            format!("[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39m{description}\x1b[0m.")
        };
        self.show(&line);
    }

    pub(super) fn start_service(&mut self, name: &str) {
        if let Some(unmet) = self.unmet_condition(name) {
            let description = self.units[name].unit.description().to_owned();
            self.note(
                name,
                INFO,
                &format!("Condition check resulted in {description} being skipped."),
            );
            if unmet {
                return self.job_done(name, Outcome::Failed("assert".into()));
            }
            return self.job_done(name, Outcome::Done);
        }
        let Some(loaded) = self.units.get_mut(name) else {
            return;
        };
        let now = Instant::now();
        let (burst, interval) = start_limit(&loaded.unit);
        let service = &mut loaded.service;
        service
            .starts
            .retain(|start| now.duration_since(*start) < interval);
        if service.starts.len() >= burst {
            loaded.result = "start-limit-hit";
            loaded.set(Active::Failed, "failed");
            self.note(
                name,
                WARNING,
                &format!("{name}: Start request repeated too quickly."),
            );
            return self.service_failed_to_start(name, "start-limit-hit");
        }
        service.starts.push(now);
        service.stopping = false;
        service.main = None;
        let unit = &loaded.unit;
        service.queue = lines(unit, Phase::Condition)
            .chain(lines(unit, Phase::StartPre))
            .chain(lines(unit, Phase::Main))
            .chain(lines(unit, Phase::StartPost))
            .collect();
        let oneshot = kind(unit) == "oneshot";
        let limit = timeout(
            unit,
            "TimeoutStartSec",
            if oneshot {
                Duration::MAX
            } else {
                DEFAULT_TIMEOUT
            },
        );
        service.deadline = now
            .checked_add(limit)
            .map(|at| (at, Deadline::StartTimeout));
        loaded.result = "success";
        loaded.set(Active::Activating, "start");
        let description = loaded.unit.description().to_owned();
        if let Err(error) = make_directories(&loaded.unit) {
            self.note(
                name,
                WARNING,
                &format!("{name}: Failed to set up special execution directory: {error}"),
            );
            return self.service_fails(name, "exit-code");
        }
        if oneshot {
            self.note(name, INFO, &format!("Starting {description}..."));
        }
        self.advance(name);
    }

    /// Runs the next command, or finishes the start.
    pub(super) fn advance(&mut self, name: &str) {
        loop {
            let Some(loaded) = self.units.get_mut(name) else {
                return;
            };
            let Some((phase, line)) = loaded.service.queue.pop_front() else {
                return self.queue_is_empty(name);
            };
            match self.run(name, phase, &line) {
                Err(()) if line.ignore_failure => {}
                Err(()) => return self.command_failed(name, phase, "exit-code"),
                Ok(()) => {
                    let waits = phase != Phase::Main
                        || matches!(kind(&self.units[name].unit), "oneshot" | "forking");
                    if waits {
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn main_ended(&mut self, name: &str, result: &'static str) {
        let Some(loaded) = self.units.get_mut(name) else {
            return;
        };
        if loaded.unit.flag("Service", "RemainAfterExit")
            && result == "success"
            && !loaded.service.stopping
        {
            return loaded.set(Active::Active, "exited");
        }
        self.stop_post(name, result);
    }

    pub(super) fn command_failed(&mut self, name: &str, phase: Phase, result: &'static str) {
        if matches!(phase, Phase::Stop | Phase::StopPost) {
            return self.advance(name);
        }
        self.service_fails(name, result);
    }

    fn queue_is_empty(&mut self, name: &str) {
        let Some(loaded) = self.units.get_mut(name) else {
            return;
        };
        match loaded.active {
            Active::Activating => {
                loaded.service.deadline = None;
                let oneshot = kind(&loaded.unit) == "oneshot";
                let stays = loaded.unit.flag("Service", "RemainAfterExit");
                let description = loaded.unit.description().to_owned();
                if oneshot && !stays {
                    self.note(name, INFO, &format!("{name}: Deactivated successfully."));
                    self.note(name, INFO, &format!("Finished {description}."));
                    return self.stop_post(name, "success");
                }
                let sub = if oneshot { "exited" } else { "running" };
                loaded.set(Active::Active, sub);
                let word = if oneshot { "Finished" } else { "Started" };
                self.note(name, INFO, &format!("{word} {description}."));
                self.status_line(true, &description);
                self.job_done(name, Outcome::Done);
            }
            Active::Deactivating if loaded.service.main.is_some() => {
                loaded.service.signal(Signal::SIGTERM);
                let limit = timeout(&loaded.unit, "TimeoutStopSec", DEFAULT_TIMEOUT);
                loaded.service.deadline = Instant::now()
                    .checked_add(limit)
                    .map(|at| (at, Deadline::Kill));
            }
            Active::Deactivating => {
                let result = loaded.result;
                self.rests(name, result);
            }
            _ => {}
        }
    }

    pub(super) fn service_fails(&mut self, name: &str, result: &'static str) {
        self.stop_post(name, result);
    }

    /// Runs `ExecStopPost=`, after which the service rests.
    fn stop_post(&mut self, name: &str, result: &'static str) {
        let Some(loaded) = self.units.get_mut(name) else {
            return;
        };
        loaded.result = result;
        loaded.service.main = None;
        loaded.service.deadline = None;
        loaded.service.queue = lines(&loaded.unit, Phase::StopPost).collect();
        if loaded.service.queue.is_empty() {
            return self.rests(name, result);
        }
        // The job that started it is answered when it rests.
        loaded.active = Active::Deactivating;
        loaded.sub = "stop-post";
        self.advance(name);
    }

    /// Every command has ended.
    pub(super) fn rests(&mut self, name: &str, result: &'static str) {
        let Some(loaded) = self.units.get_mut(name) else {
            return;
        };
        // What a service leaves running ends with it.
        loaded.service.signal(Signal::SIGKILL);
        loaded.service.groups.clear();
        loaded.service.queue.clear();
        loaded.service.deadline = None;
        loaded.result = result;
        let failed = result != "success";
        let (active, sub) = if failed {
            (Active::Failed, "failed")
        } else {
            (Active::Inactive, "dead")
        };
        loaded.set(active, sub);
        let was_stopped = loaded.service.stopping;
        let restart = match loaded.unit.last("Service", "Restart").unwrap_or("no") {
            "always" => true,
            "on-success" => !failed,
            "on-failure" => failed,
            "on-abnormal" => matches!(result, "signal" | "timeout"),
            _ => false,
        };
        if failed {
            self.note(
                name,
                WARNING,
                &format!("{name}: Failed with result '{result}'."),
            );
            self.service_failed_to_start(name, result);
        } else if was_stopped {
            let description = self.units[name].unit.description().to_owned();
            self.note(name, INFO, &format!("Stopped {description}."));
            self.ended(name);
        } else {
            self.job_done(name, Outcome::Done);
        }
        if restart && !was_stopped {
            self.restart_later(name);
        }
        self.reschedule_timers_of(name);
        let then = if failed { "OnFailure" } else { "OnSuccess" };
        for other in self
            .units
            .get(name)
            .map(|loaded| loaded.unit.names("Unit", then))
            .unwrap_or_default()
        {
            self.start(&other);
        }
    }

    fn service_failed_to_start(&mut self, name: &str, result: &str) {
        let description = self.units[name].unit.description().to_owned();
        let starting = self
            .jobs
            .get(name)
            .is_some_and(|job| job.kind == super::jobs::Kind::Start);
        if starting {
            self.note(name, 3, &format!("Failed to start {description}."));
            self.status_line(false, &description);
            if !self.finished {
                self.show(&format!("See 'systemctl status {name}' for details."));
            }
            self.job_done(name, Outcome::Failed(result.to_owned()));
        } else {
            self.ended(name);
        }
    }
}
