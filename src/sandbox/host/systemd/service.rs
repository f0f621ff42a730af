//! Services: their commands one after the other, their output into the journal, restarts, time-outs, stopping.

use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::exec::{self, Line};
use super::journal::{INFO, NOTICE, WARNING, split_priority};
use super::manager::{Active, Manager};
use super::protocol::Outcome;
use super::span;
use super::unit::Unit;

/// Folders that systemd makes for a service, with where they go.
pub(super) const DIRECTORIES: [(&str, &str); 5] = [
    ("RuntimeDirectory", "/run"),
    ("StateDirectory", "/var/lib"),
    ("CacheDirectory", "/var/cache"),
    ("LogsDirectory", "/var/log"),
    ("ConfigurationDirectory", "/etc"),
];

/// systemd's default for starting and stopping.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);
/// systemd's default limit: five starts in ten seconds.
const START_LIMIT: (usize, Duration) = (5, Duration::from_secs(10));
/// Longer lines are split, as journald does (`LineMax=`).
const LONGEST_LINE: usize = 48 * 1024;

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

/// What happens when a deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deadline {
    StartTimeout,
    Kill,
    Restart,
}

/// The state of a service.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub main: Option<i32>,
    /// Exit status of the last main process.
    pub status: i32,
    queue: VecDeque<(Phase, Line)>,
    current: Option<Line>,
    groups: Vec<i32>,
    deadline: Option<(Instant, Deadline)>,
    starts: Vec<Instant>,
    stopping: bool,
}

impl Service {
    pub fn forget_starts(&mut self) {
        self.starts.clear();
    }

    pub fn waits_for_restart(&self) -> bool {
        matches!(self.deadline, Some((_, Deadline::Restart)))
    }

    fn signal(&self, signal: Signal) {
        for group in &self.groups {
            // A group that is gone needs no signal.
            let _ = killpg(Pid::from_raw(*group), signal);
        }
    }
}

/// What a service writes, on its way into the journal.
#[derive(Debug)]
pub(super) struct Output {
    pub pipe: PipeReader,
    unit: String,
    identifier: String,
    pid: i32,
    /// `journal+console`.
    console: bool,
    prefixes: bool,
    rest: Vec<u8>,
}

fn lines(unit: &Unit, phase: Phase) -> impl Iterator<Item = (Phase, Line)> {
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

fn kind(unit: &Unit) -> &str {
    unit.last("Service", "Type").unwrap_or("simple")
}

fn timeout(unit: &Unit, key: &str, default: Duration) -> Duration {
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

    /// `Some(is_assert)` where a condition of the unit does not hold.
    fn unmet_condition(&self, name: &str) -> Option<bool> {
        let unit = &self.units.get(name)?.unit;
        unit.beginning_with("Unit", &["Condition", "Assert"])
            .into_iter()
            .find_map(|(key, value)| {
                let assert = key.starts_with("Assert");
                let (value, wanted) = value
                    .strip_prefix('!')
                    .map_or((value, true), |value| (value, false));
                let path = Path::new(value.trim_start_matches('|').trim());
                let holds = match key
                    .trim_start_matches("Condition")
                    .trim_start_matches("Assert")
                {
                    "PathExists" => path.exists(),
                    "PathIsDirectory" => path.is_dir(),
                    "PathIsSymbolicLink" => path.is_symlink(),
                    "DirectoryNotEmpty" => {
                        fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
                    }
                    "FileNotEmpty" => fs::metadata(path)
                        .is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0),
                    "FileIsExecutable" => fs::metadata(path).is_ok_and(|metadata| {
                        metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
                    }),
                    // The others ask about the machine; a host of the sandbox is as any other.
                    _ => wanted,
                };
                (holds != wanted).then_some(assert)
            })
    }

    /// Runs the next command, or finishes the start.
    fn advance(&mut self, name: &str) {
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

    fn run(&mut self, name: &str, phase: Phase, line: &Line) -> Result<(), ()> {
        let Some(loaded) = self.units.get_mut(name) else {
            return Err(());
        };
        let unit = loaded.unit.clone();
        let invocation = format!(
            "{:032x}",
            Instant::now().duration_since(self.booted).as_nanos()
        );
        let mut environment = match exec::environment(&unit, &invocation) {
            Ok(environment) => environment,
            Err(text) => {
                self.note(name, WARNING, &format!("{name}: {text}"));
                self.note(
                    name,
                    WARNING,
                    &format!(
                        "{name}: Failed to run '{}' task: No such file or directory",
                        phase_name(phase)
                    ),
                );
                return Err(());
            }
        };
        for (key, base) in DIRECTORIES {
            let paths: Vec<_> = unit
                .names("Service", key)
                .iter()
                .map(|path| format!("{base}/{path}"))
                .collect();
            if !paths.is_empty() {
                environment.insert(directory_variable(key), paths.join(":"));
            }
        }
        match load_credentials(&unit) {
            Ok(Some(folder)) => {
                drop(environment.insert("CREDENTIALS_DIRECTORY".to_owned(), folder))
            }
            Ok(None) => {}
            Err(error) => {
                self.note(
                    name,
                    WARNING,
                    &format!("{name}: Failed to set up credentials: {error}"),
                );
                return Err(());
            }
        }
        let Ok((streams, pipes)) = outputs(&unit) else {
            return Err(());
        };
        match exec::spawn(&unit, line, &environment, streams) {
            Ok(pid) => {
                let identifier = unit.last("Service", "SyslogIdentifier").map(str::to_owned);
                let program = line
                    .words
                    .first()
                    .and_then(|word| word.rsplit('/').next())
                    .unwrap_or_default();
                let identifier = identifier.unwrap_or_else(|| program.to_owned());
                for (pipe, console) in pipes {
                    self.outputs.push(Output {
                        pipe,
                        unit: name.to_owned(),
                        identifier: identifier.clone(),
                        pid,
                        console,
                        prefixes: unit
                            .last("Service", "SyslogLevelPrefix")
                            .is_none_or(|value| !matches!(value, "no" | "false" | "0" | "off")),
                        rest: Vec::new(),
                    });
                }
                self.processes.insert(pid, (name.to_owned(), phase));
                if let Some(loaded) = self.units.get_mut(name) {
                    loaded.service.groups.push(pid);
                    loaded.service.current = Some(line.clone());
                    if phase == Phase::Main {
                        loaded.service.main = Some(pid);
                    }
                }
                Ok(())
            }
            Err(error) => {
                for message in &error.messages {
                    self.note(name, 3, message);
                }
                let status = status_name(error.status);
                self.note(
                    name,
                    NOTICE,
                    &format!(
                        "{name}: {} process exited, code=exited, status={status}",
                        role(phase)
                    ),
                );
                if let Some(loaded) = self.units.get_mut(name)
                    && phase == Phase::Main
                {
                    loaded.service.status = error.status;
                }
                Err(())
            }
        }
    }

    /// A process has ended; `false` where it is none of a service's.
    pub fn process_ended(&mut self, status: WaitStatus) -> bool {
        let Some((name, phase)) = status
            .pid()
            .and_then(|pid| self.processes.remove(&pid.as_raw()))
        else {
            return false;
        };
        self.drain_outputs(&name);
        let (code, signal) = match status {
            WaitStatus::Exited(_, code) => (code, None),
            WaitStatus::Signaled(_, signal, _) => (0, Some(signal)),
            _ => return true,
        };
        let Some(loaded) = self.units.get_mut(&name) else {
            return true;
        };
        let clean = matches!(
            signal,
            Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGPIPE)
        );
        let accepted = loaded
            .unit
            .names("Service", "SuccessExitStatus")
            .iter()
            .any(|status| *status == code.to_string());
        let daemon = !matches!(kind(&loaded.unit), "oneshot") && phase == Phase::Main;
        let success = match signal {
            None => code == 0 || accepted,
            Some(_) => clean && (daemon || loaded.service.stopping),
        };
        let ignored = loaded
            .service
            .current
            .as_ref()
            .is_some_and(|line| line.ignore_failure);
        if phase == Phase::Main {
            loaded.service.main = None;
            loaded.service.status = signal.map_or(code, |signal| signal as i32);
        }
        if !success {
            let text = match signal {
                None => format!("code=exited, status={}", status_name(code)),
                Some(signal) => format!(
                    "code=killed, status={}/{}",
                    signal as i32,
                    signal.as_str().trim_start_matches("SIG")
                ),
            };
            self.note(
                &name,
                NOTICE,
                &format!("{name}: {} process exited, {text}", role(phase)),
            );
        }
        let result = if signal.is_some() {
            "signal"
        } else {
            "exit-code"
        };
        let timed_out = self.units[&name].result == "timeout";
        match phase {
            Phase::Condition if signal.is_none() && (1..255).contains(&code) => {
                self.rests(&name, "success")
            }
            Phase::Stop | Phase::StopPost => self.advance(&name),
            _ if timed_out => self.service_fails(&name, "timeout"),
            Phase::Main if daemon && kind(&self.units[&name].unit) != "forking" => {
                self.main_ended(
                    &name,
                    if success || ignored {
                        "success"
                    } else {
                        result
                    },
                );
            }
            _ if success || ignored => self.advance(&name),
            _ => self.command_failed(&name, phase, result),
        }
        self.run_jobs();
        true
    }

    fn main_ended(&mut self, name: &str, result: &'static str) {
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

    fn command_failed(&mut self, name: &str, phase: Phase, result: &'static str) {
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

    fn service_fails(&mut self, name: &str, result: &'static str) {
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
    fn rests(&mut self, name: &str, result: &'static str) {
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
            .is_some_and(|job| job.kind == super::manager::Kind::Start);
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

    fn restart_later(&mut self, name: &str) {
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

    /// Descriptors with output to read.
    pub fn output_pipes(&self) -> impl Iterator<Item = &PipeReader> {
        self.outputs.iter().map(|output| &output.pipe)
    }

    /// Reads what services have written.
    pub fn read_outputs(&mut self) {
        self.drain(|_| true);
    }

    fn drain_outputs(&mut self, unit: &str) {
        self.drain(|output| output.unit == unit);
    }

    fn drain(&mut self, wanted: impl Fn(&Output) -> bool) {
        for mut output in std::mem::take(&mut self.outputs) {
            let open = !wanted(&output) || self.read_output(&mut output);
            if open {
                self.outputs.push(output);
            } else if !output.rest.is_empty() {
                let rest = std::mem::take(&mut output.rest);
                self.journal_line(&output, &rest);
            }
        }
    }

    /// Reads all there is; `false` at the end of the file.
    fn read_output(&mut self, output: &mut Output) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match output.pipe.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => output.rest.extend(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            while let Some(end) = output
                .rest
                .iter()
                .position(|byte| *byte == b'\n')
                .or((output.rest.len() > LONGEST_LINE).then_some(LONGEST_LINE))
            {
                let mut line: Vec<u8> = output.rest.drain(..=end).collect();
                line.pop_if(|byte| *byte == b'\n');
                self.journal_line(output, &line);
            }
        }
    }

    fn journal_line(&mut self, output: &Output, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let (priority, text) = if output.prefixes {
            split_priority(&text, INFO)
        } else {
            (INFO, &*text)
        };
        self.journal.add(
            Some(&output.unit),
            &output.identifier,
            output.pid,
            priority,
            text,
        );
        if output.console {
            let line = format!(
                "{} {}[{}]: {text}",
                self.uptime(),
                output.identifier,
                output.pid
            );
            self.show(&line);
        }
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Main => "start",
        Phase::StartPre => "start-pre",
        Phase::StartPost => "start-post",
        Phase::Condition => "condition",
        Phase::Stop => "stop",
        Phase::StopPost => "stop-post",
    }
}

fn role(phase: Phase) -> &'static str {
    if phase == Phase::Main {
        "Main"
    } else {
        "Control"
    }
}

/// An exit status as systemd shows it.
pub(super) fn status_name(status: i32) -> String {
    let name = match status {
        0 => "SUCCESS",
        1 => "FAILURE",
        2 => "INVALIDARGUMENT",
        126 => "n/a",
        200 => "CHDIR",
        203 => "EXEC",
        226 => "NAMESPACE",
        _ => "n/a",
    };
    format!("{status}/{name}")
}

fn directory_variable(key: &str) -> String {
    // RuntimeDirectory → RUNTIME_DIRECTORY
    format!(
        "{}_DIRECTORY",
        key.trim_end_matches("Directory").to_ascii_uppercase()
    )
}

fn make_directories(unit: &Unit) -> io::Result<()> {
    for (key, base) in DIRECTORIES {
        let mode = unit
            .last("Service", &format!("{key}Mode"))
            .and_then(|mode| u32::from_str_radix(mode, 8).ok())
            .unwrap_or(0o755);
        for name in unit.names("Service", key) {
            let path = Path::new(base).join(name);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// `LoadCredential=name:path`, as root-only copies in the unit's own folder.
fn load_credentials(unit: &Unit) -> io::Result<Option<String>> {
    let credentials = unit.all("Service", "LoadCredential");
    if credentials.is_empty() {
        return Ok(None);
    }
    let folder = format!("/run/credentials/{}", unit.name);
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    for credential in credentials {
        let (name, path) = credential
            .split_once(':')
            .unwrap_or((credential, credential));
        let content =
            fs::read(path).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        let target = Path::new(&folder).join(name);
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(&target, content)?;
        fs::set_permissions(&target, Permissions::from_mode(0o400))?;
    }
    Ok(Some(folder))
}

type Streams = ((OwnedFd, OwnedFd), Vec<(PipeReader, bool)>);

/// Where standard output and error go, with the pipes that lead to the journal.
fn outputs(unit: &Unit) -> io::Result<Streams> {
    let mut pipes = Vec::new();
    let setting = |key: &str| unit.last("Service", key).unwrap_or("inherit").to_owned();
    let mut open = |setting: &str| -> io::Result<OwnedFd> {
        if let Some((how, path)) = setting.split_once(':')
            && path.starts_with('/')
        {
            let mut options = File::options();
            options
                .create(true)
                .write(true)
                .append(how == "append")
                .truncate(how == "truncate");
            return Ok(options.open(path)?.into());
        }
        if setting == "null" {
            return Ok(File::options().write(true).open("/dev/null")?.into());
        }
        let (read, write) = io::pipe()?;
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        pipes.push((
            read,
            matches!(setting, "journal+console" | "tty" | "kmsg+console"),
        ));
        Ok(write.into())
    };
    let stdout = setting("StandardOutput");
    let stderr = setting("StandardError");
    let out = open(&stdout)?;
    // Inheriting keeps the two in order, as one stream.
    let err = if stderr == "inherit" || stderr == stdout {
        out.try_clone()?
    } else {
        open(&stderr)?
    };
    Ok(((out, err), pipes))
}
