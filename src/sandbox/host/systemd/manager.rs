//! The manager: units with their state, jobs and who waits for them, and what `systemctl` asks.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use jiff::Timestamp;

use super::jobs::{Job, Waiter};
use super::journal::{self, INFO, Journal, WARNING};
use super::output::Output;
use super::protocol::{Reply, Request, UnitView};
use super::service::{Phase, Service};
use super::timer::Timer;
use super::unit::{LoadError, Unit};

// systemd calls both the property and one of its values so.
#[allow(clippy::enum_variant_names)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Active {
    Inactive,
    Activating,
    Active,
    Deactivating,
    Failed,
}

impl Active {
    fn name(self) -> &'static str {
        match self {
            Active::Inactive => "inactive",
            Active::Activating => "activating",
            Active::Active => "active",
            Active::Deactivating => "deactivating",
            Active::Failed => "failed",
        }
    }
}

/// A unit with its state.
#[derive(Debug)]
pub(super) struct Loaded {
    pub unit: Unit,
    stamp: Vec<(PathBuf, Option<SystemTime>)>,
    pub active: Active,
    pub sub: &'static str,
    pub result: &'static str,
    pub since: Option<Timestamp>,
    /// When it last left `inactive`, and when it last came back.
    pub left_inactive: Option<Instant>,
    pub became_inactive: Option<Instant>,
    pub service: Service,
    pub timer: Timer,
}

impl Loaded {
    fn new(unit: Unit) -> Loaded {
        Loaded {
            stamp: stamp(&unit),
            unit,
            active: Active::Inactive,
            sub: "dead",
            result: "success",
            since: None,
            left_inactive: None,
            became_inactive: None,
            service: Service::default(),
            timer: Timer::default(),
        }
    }

    pub fn set(&mut self, active: Active, sub: &'static str) {
        let idle = |active| matches!(active, Active::Inactive | Active::Failed);
        if idle(self.active) && !idle(active) {
            self.left_inactive = Some(Instant::now());
        }
        if !idle(self.active) && idle(active) {
            self.became_inactive = Some(Instant::now());
        }
        if self.active != active {
            self.since = Some(Timestamp::now());
        }
        self.active = active;
        self.sub = sub;
    }
}

fn stamp(unit: &Unit) -> Vec<(PathBuf, Option<SystemTime>)> {
    let time = |path: &Path| {
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    unit.path
        .iter()
        .chain(&unit.drop_ins)
        .map(|path| (path.clone(), time(path)))
        .collect()
}

/// The service manager of one host.
#[derive(Debug)]
pub(in crate::host) struct Manager {
    pub(super) units: BTreeMap<String, Loaded>,
    pub(super) jobs: BTreeMap<String, Job>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) processes: HashMap<i32, (String, Phase)>,
    pub(super) outputs: Vec<Output>,
    pub(super) journal: Journal,
    console: File,
    pub(super) booted: Instant,
    /// The boot is over.
    pub finished: bool,
    /// A `daemon-reload` does not come back any more (a drill).
    broken: bool,
}

impl Manager {
    pub fn new(console: File, booted: Instant, broken: bool) -> io::Result<Manager> {
        Ok(Manager {
            units: BTreeMap::new(),
            jobs: BTreeMap::new(),
            waiters: Vec::new(),
            processes: HashMap::new(),
            outputs: Vec::new(),
            journal: Journal::open(Path::new(journal::PATH))?,
            console,
            booted,
            finished: false,
            broken,
        })
    }

    /// Writes a line to the console, as systemd does while it boots.
    pub(super) fn show(&mut self, line: &str) {
        // A console that is gone means that the host is about to end.
        let _ = self.console.write_all(format!("{line}\r\n").as_bytes());
    }

    pub fn log(&mut self, identifier: &str, pid: i32, priority: u8, message: &str) {
        self.journal.add(None, identifier, pid, priority, message);
    }

    pub(super) fn note(&mut self, unit: &str, priority: u8, message: &str) {
        self.journal.manager(Some(unit), priority, message);
    }

    /// A unit as it is known: loaded now if it is not in use.
    pub(super) fn load(&mut self, name: &str) -> Result<&mut Loaded, LoadError> {
        let idle = self.units.get(name).is_none_or(|loaded| {
            loaded.active == Active::Inactive && !self.jobs.contains_key(name)
        });
        if idle {
            self.read(name)?;
        }
        self.units.get_mut(name).ok_or(LoadError::NotFound)
    }

    /// Reads a unit's files and keeps its state.
    fn read(&mut self, name: &str) -> Result<(), LoadError> {
        let unit = match Unit::load(name) {
            Ok(unit) => unit,
            Err(error) => {
                self.units.remove(name);
                return Err(error);
            }
        };
        let new = stamp(&unit);
        let known = self
            .units
            .get(name)
            .is_some_and(|loaded| loaded.stamp == new);
        if !known {
            for warning in unit.warnings.clone() {
                self.journal.manager(Some(name), WARNING, &warning);
                // systemd keeps this to its journal. A mistyped key does its harm silently, so the sandbox shows it.
                let line = format!("{} systemd[1]: {warning}", self.uptime());
                self.show(&line);
            }
        }
        match self.units.get_mut(name) {
            Some(loaded) => {
                loaded.unit = unit;
                loaded.stamp = new;
            }
            None => {
                self.units.insert(name.to_owned(), Loaded::new(unit));
            }
        }
        Ok(())
    }

    /// The kernel's prefix of console lines.
    pub fn uptime(&self) -> String {
        super::super::init::stamp(self.booted)
    }

    /// Handles one request. Where it waits for jobs the answer comes later.
    pub fn handle(&mut self, request: Request, stream: UnixStream) {
        let reply = match request {
            Request::Reload => self.reload(),
            Request::Job {
                verb,
                units,
                no_block,
            } => {
                self.enqueue(verb, units, (!no_block).then_some(stream));
                return;
            }
            Request::ResetFailed(units) => {
                for (name, loaded) in &mut self.units {
                    if loaded.active == Active::Failed && (units.is_empty() || units.contains(name))
                    {
                        loaded.set(Active::Inactive, "dead");
                        loaded.result = "success";
                        loaded.service.forget_starts();
                    }
                }
                Reply::Done
            }
            Request::Units(names) if names.is_empty() => {
                let names: Vec<_> = self.units.keys().cloned().collect();
                Reply::Units(names.iter().map(|name| self.view(name)).collect())
            }
            Request::Units(names) => {
                Reply::Units(names.iter().map(|name| self.view(name)).collect())
            }
            Request::SystemState => {
                let failed = self
                    .units
                    .values()
                    .any(|loaded| loaded.active == Active::Failed);
                let state = match (self.finished, failed) {
                    (false, _) => "starting",
                    (true, true) => "degraded",
                    (true, false) => "running",
                };
                Reply::SystemState(state.to_owned())
            }
        };
        answer(stream, &reply);
    }

    fn reload(&mut self) -> Reply {
        if self.broken {
            let line = format!(
                "{} systemd[1]: Failed to fork off serialization job: Cannot allocate memory",
                self.uptime()
            );
            self.show(&line);
            return Reply::Refused("Failed to reload daemon: Connection timed out".to_owned());
        }
        self.journal.manager(None, INFO, "Reloading.");
        let names: Vec<_> = self.units.keys().cloned().collect();
        for name in names {
            // A unit whose file has gone stays as it is while it runs.
            let running = self
                .units
                .get(&name)
                .is_some_and(|loaded| loaded.active != Active::Inactive);
            if !running || Unit::load(&name).is_ok() {
                // What is missing is dropped; nothing asks for it here.
                let _ = self.read(&name);
            }
        }
        Reply::Done
    }

    fn view(&mut self, name: &str) -> UnitView {
        let load = match self.load(name) {
            Ok(_) => "loaded",
            Err(LoadError::Masked) => "masked",
            Err(LoadError::NotFound) => "not-found",
        };
        let bad = load == "loaded" && self.bad_setting(name).is_some();
        let text = |path: &PathBuf| path.display().to_string();
        let loaded = self.units.get(name);
        let unit = loaded.map(|loaded| &loaded.unit);
        UnitView {
            id: name.to_owned(),
            description: unit.map_or(name, |unit| unit.description()).to_owned(),
            load: if bad { "bad-setting" } else { load }.to_owned(),
            active: loaded
                .map_or("inactive", |loaded| loaded.active.name())
                .to_owned(),
            sub: loaded.map_or("dead", |loaded| loaded.sub).to_owned(),
            result: loaded.map_or("success", |loaded| loaded.result).to_owned(),
            fragment: unit.and_then(|unit| unit.path.as_ref()).map(text),
            drop_ins: unit
                .map(|unit| unit.drop_ins.iter().map(text).collect())
                .unwrap_or_default(),
            main_pid: loaded.and_then(|loaded| loaded.service.main).unwrap_or(0),
            status: loaded.map_or(0, |loaded| loaded.service.status),
            since: loaded.and_then(|loaded| loaded.since),
            next_elapse: loaded.and_then(|loaded| loaded.timer.next_time()),
            last_trigger: loaded.and_then(|loaded| loaded.timer.last_time()),
            triggers: unit.and_then(Timer::triggers),
            need_reload: loaded.is_some_and(|loaded| stamp(&loaded.unit) != loaded.stamp),
        }
    }
}

pub(super) fn answer(mut stream: UnixStream, reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        // Whoever asked may have been interrupted.
        let _ = stream.write_all(&line);
    }
}
