//! Timers: when they elapse next, and what they start.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::calendar::Calendar;
use super::journal::INFO;
use super::manager::{Active, Manager};
use super::protocol::Outcome;
use super::span;
use super::unit::Unit;
use crate::host::init::boot_began;

const BASES: [&str; 6] = [
    "OnActiveSec",
    "OnBootSec",
    "OnStartupSec",
    "OnUnitActiveSec",
    "OnUnitInactiveSec",
    "OnCalendar",
];

/// The state of a timer unit.
#[derive(Debug, Default)]
pub(super) struct Timer {
    activated: Option<Instant>,
    next: Option<Instant>,
    last: Option<Instant>,
}

impl Timer {
    /// Its `On…=` settings.
    pub fn values(unit: &Unit) -> Vec<(&str, &str)> {
        let mut values: Vec<(&str, &str)> = Vec::new();
        for (key, value) in unit.beginning_with("Timer", &["On"]) {
            if value.is_empty() {
                // An empty assignment forgets all of them (`man systemd.timer`).
                values.clear();
            } else if BASES.contains(&key) {
                values.push((key, value));
            }
        }
        values
    }

    /// The unit a timer starts.
    pub fn triggers(unit: &Unit) -> Option<String> {
        let default = || format!("{}.service", unit.stem());
        unit.name.ends_with(".timer").then(|| {
            unit.last("Timer", "Unit")
                .map_or_else(default, str::to_owned)
        })
    }

    pub fn disarm(&mut self) {
        self.next = None;
    }

    pub fn next_time(&self) -> Option<Timestamp> {
        let left = self.next?.saturating_duration_since(Instant::now());
        Timestamp::now().checked_add(left).ok()
    }

    pub fn last_time(&self) -> Option<Timestamp> {
        Timestamp::now().checked_sub(self.last?.elapsed()).ok()
    }
}

impl Manager {
    pub(super) fn start_timer(&mut self, name: &str) {
        let Some(loaded) = self.units.get(name) else {
            return;
        };
        let description = loaded.unit.description().to_owned();
        let triggered = Timer::triggers(&loaded.unit).unwrap_or_default();
        if self.load(&triggered).is_err() {
            self.note(
                name,
                super::journal::WARNING,
                &format!("{name}: Refusing to start, unit {triggered} to trigger not loaded."),
            );
            self.note(name, 3, &format!("Failed to start {description}."));
            return self.job_done(name, Outcome::Failed("resources".into()));
        }
        if let Some(loaded) = self.units.get_mut(name) {
            loaded.timer = Timer {
                activated: Some(Instant::now()),
                last: loaded.timer.last,
                next: None,
            };
            loaded.set(Active::Active, "waiting");
        }
        self.note(name, INFO, &format!("Started {description}."));
        self.status_line(true, &description);
        self.schedule(name, true);
        self.job_done(name, Outcome::Done);
    }

    /// Finds when a timer elapses next.
    fn schedule(&mut self, name: &str, initial: bool) {
        let Some(loaded) = self.units.get(name) else {
            return;
        };
        let triggered = Timer::triggers(&loaded.unit).unwrap_or_default();
        let trigger = self.units.get(&triggered);
        let now = Instant::now();
        let timer = &loaded.timer;
        let mut next: Option<Instant> = None;
        for (key, value) in Timer::values(&loaded.unit) {
            let wait = span::parse(value);
            let once = matches!(key, "OnActiveSec" | "OnBootSec" | "OnStartupSec");
            let base = match key {
                "OnActiveSec" => timer.activated,
                "OnBootSec" | "OnStartupSec" => Some(boot_began(self.booted)),
                "OnUnitActiveSec" => timer
                    .last
                    .max(trigger.and_then(|trigger| trigger.left_inactive)),
                "OnUnitInactiveSec" => trigger
                    .filter(|trigger| matches!(trigger.active, Active::Inactive | Active::Failed))
                    .and_then(|trigger| trigger.became_inactive),
                _ => None,
            };
            let at = if key == "OnCalendar" {
                let real = Timestamp::now();
                let at = Calendar::parse(value).and_then(|calendar| calendar.next(real));
                at.and_then(|at| Duration::try_from(at.duration_since(real)).ok())
                    .map(|wait| now + wait)
            } else {
                let elapses = base
                    .zip(wait)
                    .and_then(|(base, wait)| base.checked_add(wait));
                // What lies in the past elapses at once when the timer starts, and never again.
                elapses.filter(|at| !once || initial || *at > now)
            };
            next = [next, at].into_iter().flatten().min();
        }
        let jitter = loaded
            .unit
            .last("Timer", "RandomizedDelaySec")
            .and_then(span::parse)
            .map_or(Duration::ZERO, random_below);
        if let Some(loaded) = self.units.get_mut(name) {
            loaded.timer.next = next.map(|next| next.max(now) + jitter);
            let sub = if next.is_some() { "waiting" } else { "elapsed" };
            loaded.set(Active::Active, sub);
        }
    }

    /// A unit has come to rest: timers that start it compute their next time.
    pub(super) fn reschedule_timers_of(&mut self, service: &str) {
        let timers: Vec<_> = self
            .units
            .iter()
            .filter(|(_, loaded)| {
                loaded.active == Active::Active
                    && Timer::triggers(&loaded.unit).as_deref() == Some(service)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for timer in timers {
            self.schedule(&timer, false);
        }
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.units
            .values()
            .filter_map(|loaded| loaded.timer.next)
            .min()
    }

    /// Starts what has elapsed.
    pub(super) fn run_timers(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .units
            .iter_mut()
            .filter(|(_, loaded)| loaded.timer.next.is_some_and(|next| next <= now))
            .map(|(name, loaded)| {
                loaded.timer.next = None;
                loaded.timer.last = Some(now);
                loaded.sub = "running";
                (
                    name.clone(),
                    Timer::triggers(&loaded.unit).unwrap_or_default(),
                )
            })
            .collect();
        for (timer, triggered) in due {
            self.start(&triggered);
            // A unit that is busy makes its timer wait until it rests.
            let busy = self.units.get(&triggered).is_some_and(|loaded| {
                matches!(loaded.active, Active::Activating | Active::Deactivating)
            });
            if !busy {
                self.schedule(&timer, false);
            }
        }
    }
}

/// A random duration below `limit`, so that a fleet's hosts do not beat together. The standard library's hash keys are random.
fn random_below(limit: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    limit.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}
