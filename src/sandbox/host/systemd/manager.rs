//! The manager: units with their state, jobs and who waits for them, and what `systemctl` asks.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use jiff::Timestamp;

use super::journal::{self, INFO, Journal, WARNING};
use super::protocol::{JobResult, Outcome, Reply, Request, UnitView, Verb};
use super::service::{Output, Phase, Service};
use super::timer::Timer;
use super::unit::{LoadError, Unit};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Start,
    Stop,
    /// Stop, then start.
    Restart,
}

#[derive(Debug)]
pub(super) struct Job {
    pub kind: Kind,
    pub running: bool,
}

/// A `systemctl` that waits for jobs.
#[derive(Debug)]
struct Waiter {
    stream: UnixStream,
    pending: Vec<String>,
    results: Vec<JobResult>,
}

/// The service manager of one host.
#[derive(Debug)]
pub(in crate::sandbox::host) struct Manager {
    pub(super) units: BTreeMap<String, Loaded>,
    pub(super) jobs: BTreeMap<String, Job>,
    waiters: Vec<Waiter>,
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

    fn enqueue(&mut self, verb: Verb, names: Vec<String>, stream: Option<UnixStream>) {
        let mut results = Vec::new();
        let mut pending = Vec::new();
        for name in names {
            match self.add_job(&name, verb) {
                Ok(true) => pending.push(name),
                Ok(false) => results.push(JobResult {
                    unit: name,
                    outcome: Outcome::Done,
                }),
                Err(text) => results.push(JobResult {
                    unit: name,
                    outcome: Outcome::Refused(text),
                }),
            }
        }
        match stream {
            Some(stream) => self.waiters.push(Waiter {
                stream,
                pending,
                results,
            }),
            None => {}
        }
        self.run_jobs();
    }

    /// Adds a job with those it pulls in; `false` where there is nothing to do.
    fn add_job(&mut self, name: &str, verb: Verb) -> Result<bool, String> {
        if let Err(error) = self.load(name) {
            if verb == Verb::Stop && error == LoadError::NotFound {
                return Err(format!("Unit {name} not loaded."));
            }
            return Err(match error {
                LoadError::NotFound => format!("Unit {name} not found."),
                LoadError::Masked => format!("Unit {name} is masked."),
            });
        }
        let loaded = &self.units[name];
        let active = loaded.active;
        let kind = match verb {
            Verb::Stop => Kind::Stop,
            Verb::TryRestart if active != Active::Active => return Ok(false),
            Verb::Restart | Verb::TryRestart
                if !matches!(active, Active::Inactive | Active::Failed) =>
            {
                Kind::Restart
            }
            _ => Kind::Start,
        };
        if kind == Kind::Stop {
            if matches!(active, Active::Inactive | Active::Failed)
                && !loaded.service.waits_for_restart()
            {
                return Ok(false);
            }
            self.jobs.insert(
                name.to_owned(),
                Job {
                    kind,
                    running: false,
                },
            );
            return Ok(true);
        }
        if kind == Kind::Start && active == Active::Active {
            return Ok(false);
        }
        if let Some(problem) = self.bad_setting(name) {
            self.note(name, WARNING, &problem);
            return Err(format!("Unit {name} has a bad unit file setting."));
        }
        if kind == Kind::Start && active == Active::Activating && self.jobs.contains_key(name) {
            return Ok(true);
        }
        self.jobs.insert(
            name.to_owned(),
            Job {
                kind,
                running: false,
            },
        );
        let (required, wanted) = self.units[name].unit.pulls();
        for (other, needed) in required
            .into_iter()
            .map(|name| (name, true))
            .chain(wanted.into_iter().map(|name| (name, false)))
        {
            let busy = self.jobs.contains_key(&other);
            if busy
                || self
                    .units
                    .get(&other)
                    .is_some_and(|loaded| loaded.active == Active::Active)
            {
                continue;
            }
            if let Err(text) = self.add_job(&other, Verb::Start)
                && needed
            {
                self.jobs.remove(name);
                return Err(text);
            }
        }
        Ok(true)
    }

    /// Why a unit cannot be started at all, in systemd's words.
    fn bad_setting(&self, name: &str) -> Option<String> {
        let unit = &self.units.get(name)?.unit;
        unit.path.as_ref()?;
        if name.ends_with(".service") {
            let oneshot = unit.last("Service", "Type") == Some("oneshot");
            let starts = unit.all("Service", "ExecStart");
            if starts.is_empty() && unit.all("Service", "ExecStop").is_empty() {
                return Some(format!(
                    "{name}: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing."
                ));
            }
            if starts.len() > 1 && !oneshot {
                return Some(format!(
                    "{name}: Service has more than one ExecStart= setting, which is only allowed for Type=oneshot services. Refusing."
                ));
            }
            if oneshot
                && matches!(
                    unit.last("Service", "Restart"),
                    Some("always" | "on-success")
                )
            {
                return Some(format!(
                    "{name}: Service has Restart= set to either always or on-success, which isn't allowed for Type=oneshot services. Refusing."
                ));
            }
        }
        if name.ends_with(".timer") && Timer::values(unit).is_empty() {
            return Some(format!("{name}: Timer unit lacks value setting. Refusing."));
        }
        None
    }

    /// Runs what is ready to run, until nothing changes any more.
    pub(super) fn run_jobs(&mut self) {
        loop {
            let ready = self
                .jobs
                .iter()
                .find(|(name, job)| !job.running && !self.must_wait(name));
            let Some(name) = ready.map(|(name, _)| name.clone()) else {
                break;
            };
            let Some(job) = self.jobs.get_mut(&name) else {
                break;
            };
            job.running = true;
            match job.kind {
                Kind::Start => self.begin(&name),
                Kind::Stop | Kind::Restart => self.end(&name),
            }
        }
        let done = self
            .waiters
            .extract_if(.., |waiter| waiter.pending.is_empty());
        for waiter in done.collect::<Vec<_>>() {
            answer(waiter.stream, &Reply::Jobs(waiter.results));
        }
    }

    /// Whether a job has to wait for another that its unit comes after.
    fn must_wait(&self, name: &str) -> bool {
        let Some(loaded) = self.units.get(name) else {
            return false;
        };
        let after = loaded.unit.names("Unit", "After");
        let before = |other: &String| {
            let unit = self.units.get(other).map(|loaded| &loaded.unit);
            unit.is_some_and(|unit| {
                unit.names("Unit", "Before")
                    .iter()
                    .any(|before| before == name)
            })
        };
        self.jobs.keys().any(|other| {
            other != name
                && (after.contains(other) && !after_each_other(self, name, other) || before(other))
        })
    }

    fn begin(&mut self, name: &str) {
        let Some(loaded) = self.units.get(name) else {
            return;
        };
        let (required, _) = loaded.unit.pulls();
        let lacking = required.iter().any(|other| {
            self.units
                .get(other)
                .is_some_and(|other| other.active == Active::Failed)
        });
        if lacking {
            let text = format!(
                "Dependency failed for {}.",
                self.units[name].unit.description()
            );
            self.note(name, WARNING, &text);
            return self.job_done(name, Outcome::Dependency);
        }
        if name.ends_with(".timer") {
            self.start_timer(name);
        } else if name.ends_with(".service") && self.units[name].unit.path.is_some() {
            self.start_service(name);
        } else if let Some(loaded) = self.units.get_mut(name) {
            loaded.set(Active::Active, "active");
            self.job_done(name, Outcome::Done);
        }
    }

    fn end(&mut self, name: &str) {
        let bound: Vec<_> = self
            .units
            .iter()
            .filter(|(_, other)| {
                let unit = &other.unit;
                other.active == Active::Active
                    && ["Requires", "BindsTo", "PartOf"]
                        .iter()
                        .any(|key| unit.names("Unit", key).iter().any(|needed| needed == name))
            })
            .map(|(other, _)| other.clone())
            .collect();
        for other in bound {
            self.jobs.entry(other).or_insert(Job {
                kind: Kind::Stop,
                running: false,
            });
        }
        if name.ends_with(".service")
            && self
                .units
                .get(name)
                .is_some_and(|loaded| loaded.unit.path.is_some())
        {
            return self.stop_service(name);
        }
        if let Some(loaded) = self.units.get_mut(name) {
            loaded.timer.disarm();
            loaded.set(Active::Inactive, "dead");
        }
        self.ended(name);
    }

    /// A unit has come to rest: a stop job is done, a restart goes on.
    pub(super) fn ended(&mut self, name: &str) {
        match self.jobs.get_mut(name) {
            Some(job) if job.kind == Kind::Restart => {
                job.kind = Kind::Start;
                job.running = false;
            }
            Some(job) if job.kind == Kind::Stop => self.job_done(name, Outcome::Done),
            _ => {}
        }
    }

    pub(super) fn job_done(&mut self, name: &str, outcome: Outcome) {
        if self.jobs.remove(name).is_none() {
            return;
        }
        for waiter in &mut self.waiters {
            if let Some(at) = waiter.pending.iter().position(|pending| pending == name) {
                waiter.pending.remove(at);
                waiter.results.push(JobResult {
                    unit: name.to_owned(),
                    outcome: outcome.clone(),
                });
            }
        }
    }

    /// Starts a unit from inside: at boot, by a timer, or because another failed.
    pub fn start(&mut self, name: &str) {
        if let Err(text) = self.add_job(name, Verb::Start) {
            self.journal.manager(
                Some(name),
                WARNING,
                &format!("Failed to start {name}: {text}"),
            );
        }
        self.run_jobs();
    }
}

/// Units ordered after each other would wait for ever; systemd breaks such a cycle as well.
fn after_each_other(manager: &Manager, a: &str, b: &str) -> bool {
    let unit = manager.units.get(b).map(|loaded| &loaded.unit);
    unit.is_some_and(|unit| unit.names("Unit", "After").iter().any(|after| after == a))
}

fn answer(mut stream: UnixStream, reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        // Whoever asked may have been interrupted.
        let _ = stream.write_all(&line);
    }
}
