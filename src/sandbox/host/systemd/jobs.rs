//! Jobs: what has to start or stop, in which order, and who waits for it.

use std::os::unix::net::UnixStream;

use super::journal::WARNING;
use super::manager::{Active, Manager, answer};
use super::protocol::{JobResult, Outcome, Reply, Verb};
use super::timer::Timer;
use super::unit::LoadError;

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
pub(super) struct Waiter {
    pub stream: UnixStream,
    pub pending: Vec<String>,
    pub results: Vec<JobResult>,
}

impl Manager {
    pub(super) fn enqueue(&mut self, verb: Verb, names: Vec<String>, stream: Option<UnixStream>) {
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
        if let Some(stream) = stream {
            self.waiters.push(Waiter {
                stream,
                pending,
                results,
            })
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
    pub(super) fn bad_setting(&self, name: &str) -> Option<String> {
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
