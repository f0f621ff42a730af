//! Judges a host: the boots in their order, and in them the bootstrap's runs.

use super::causes::{
    self, BOOT_DONE, BOOT_SOURCELESS, BOOT_STUCK, DOWN, HALT, LATER_PACKAGES, SICK,
};
use super::recogniser::{
    Found, recognise, recognise_failure, recognise_text, recognise_trouble, shortened,
};
use super::words::Words;
use super::{
    BOOT, CONSOLE, Confidence, Diagnosis, FIRST_HEARTBEAT, Heard, INSTANCE, LAST_LINES, LATER,
    LAUNCH, Situation, UNKNOWN, Verdict,
};
use crate::bootstrap_log::{BootstrapFailure, BootstrapLog};
use crate::console_text::{Line, Speaker, last_lines};

/// Judges a host.
pub fn judge(situation: &Situation<'_>) -> Verdict {
    let log = BootstrapLog::parse(situation.console);
    let words = Words::of(situation, &log);
    let failed = |diagnosis: Diagnosis| Verdict::Failed(Box::new(diagnosis));
    // What the console says comes first: it is why an instance was ended.
    if let Some(halted) = of_halt(&log, &words) {
        return failed(halted);
    }
    if let Some(failure) = &log.failure {
        return failed(of_failure(failure, &log, &words));
    }
    if let Some((state, reason)) = situation.state
        && !matches!(state, "pending" | "running")
    {
        let host = situation.instance_id.unwrap_or("the instance");
        let reason = reason.unwrap_or("EC2 gives no reason");
        return failed(words.of_fact(INSTANCE, format!("{host} is {state}: {reason}")));
    }
    if let (Some(other), Some(wanted)) = (&log.complete, situation.customer)
        && other != wanted
    {
        let line = format!("the bootstrap is complete for {other}, not for {wanted}");
        return failed(words.of_fact(FIRST_HEARTBEAT, line));
    }
    if log.has_reported() {
        if situation.over {
            if let Some(sick) = of_sickness(&log, &words) {
                return failed(sick);
            }
            match situation.heard {
                Heard::Never => return failed(of_silence(&log, None, &words)),
                Heard::Stopped(at) => return failed(of_silence(&log, Some(at), &words)),
                Heard::Unknown => {}
            }
        }
        return Verdict::Reports(log);
    }
    if let Some(interrupted) = of_interruption(&log, &words) {
        return failed(interrupted);
    }
    let (diagnosis, is_final) = if log.has_begun() {
        of_run(situation, &log, &words)
    } else {
        of_boot(situation, &log, &words)
    };
    match diagnosis {
        Some(diagnosis) if situation.over || is_final => failed(diagnosis),
        trouble => Verdict::Booting {
            trouble: trouble
                .filter(|trouble| trouble.cause != UNKNOWN)
                .map(Box::new),
            log,
        },
    }
}

/// A failure that shows elsewhere than on the console: one fact, in the form of a line.
pub fn of_fact(step: &str, fact: String, situation: &Situation<'_>) -> Diagnosis {
    let log = BootstrapLog::parse(situation.console);
    Words::of(situation, &log).of_fact(step, fact)
}

/// A boot that ended for good, after all that the bootstrap has said in it.
fn of_halt(log: &BootstrapLog, words: &Words) -> Option<Diagnosis> {
    for (at, boot) in log.boots.iter().enumerate().rev() {
        let after = if at >= log.run_in {
            boot.afterwards()
        } else {
            &[]
        };
        if let Some(found) = recognise(HALT, after) {
            let has_begun = log.has_begun() && at == log.run_in;
            let step = match &log.step {
                Some(step) if has_begun && !log.has_reported() => step.name.clone(),
                _ if log.has_reported() => LATER.to_owned(),
                _ => BOOT.to_owned(),
            };
            let mut diagnosis = words.diagnosis(&step, Some(found), "", Vec::new());
            let says_failed = log.failure.iter().map(|failure| &failure.line_of_console);
            diagnosis.evidence.splice(0..0, says_failed.cloned());
            diagnosis.reports = log.has_reported().then_some(false);
            return Some(diagnosis);
        }
        if boot.is_up {
            return None;
        }
    }
    None
}

/// A bootstrap that ended without success.
fn of_failure(failure: &BootstrapFailure, log: &BootstrapLog, words: &Words) -> Diagnosis {
    let stage = match failure.name.as_str() {
        "packages" if log.first_heartbeat => LATER_PACKAGES,
        name => name,
    };
    let found = recognise_failure(stage, failure, &log.lines);
    let what = match (&failure.reason, failure.exit) {
        (Some(reason), _) => format!("nothing in this program recognises it: {reason}"),
        (None, Some(exit)) => format!("it ended with exit code {exit} and no word of why"),
        (None, None) => "it ended with no word of why".to_owned(),
    };
    let mut diagnosis = words.diagnosis(&failure.name, found, &what, tail(&log.lines));
    // What its reason decided is shown as the line that holds it.
    let reason = shortened(failure.reason.as_deref().unwrap_or_default());
    diagnosis
        .evidence
        .retain(|line| *line != reason && !failure.line_of_console.contains(line.trim()));
    diagnosis.evidence.push(failure.line_of_console.clone());
    diagnosis.reports = (log.first_heartbeat || log.reported_before).then_some(true);
    diagnosis
}

/// What has befallen a host since it was set up.
fn of_sickness(log: &BootstrapLog, words: &Words) -> Option<Diagnosis> {
    let boot = log.boots.last()?;
    let of_host = of_host(boot.afterwards());
    let found = recognise(SICK, &of_host)?;
    let mut diagnosis = words.diagnosis(LATER, Some(found), "", Vec::new());
    let others = of_host
        .iter()
        .filter(|line| recognise_text(SICK, &line.text).is_some());
    for line in others.map(|line| shortened(&line.text)) {
        if diagnosis.evidence.len() < 5 && !diagnosis.evidence.contains(&line) {
            diagnosis.evidence.push(line);
        }
    }
    diagnosis.reports = Some(false);
    Some(diagnosis)
}

/// A host that says it reports, of which the brain knows nothing.
fn of_silence(log: &BootstrapLog, last: Option<jiff::Timestamp>, words: &Words) -> Diagnosis {
    let says = match &log.complete {
        Some(customer) => format!("m8trx-bootstrap: complete for {customer}"),
        None => "m8trx-bootstrap: first heartbeat accepted".to_owned(),
    };
    let brain = match last {
        None => "the brain has no heartbeat of this host".to_owned(),
        Some(at) => format!("the brain's last heartbeat of this host is of {at}"),
    };
    let mut diagnosis = words.of_fact(FIRST_HEARTBEAT, brain);
    diagnosis.evidence.insert(0, says);
    diagnosis
}

/// A run that a shutdown cut off: user-data does not run again at the next boot.
fn of_interruption(log: &BootstrapLog, words: &Words) -> Option<Diagnosis> {
    let run = log.boots.get(log.run_in).filter(|_| log.has_begun())?;
    let at = place(log);
    let mut lines = run.afterwards().to_vec();
    if log.boots.len() > log.run_in + 1 {
        lines.push(Line::fact(format!(
            "the host booted again in the middle of {at}"
        )));
    }
    let found = recognise(DOWN, &lines)?;
    let step = log.step.as_ref().map_or(BOOT, |step| step.name.as_str());
    let mut diagnosis = words.diagnosis(step, Some(found), "", Vec::new());
    let sick =
        recognise(SICK, &of_host(run.afterwards())).or_else(|| recognise(HALT, run.afterwards()));
    let before = sick.map(|found| found.evidence).unwrap_or_default();
    diagnosis.evidence.splice(0..0, before);
    Some(diagnosis)
}

fn place(log: &BootstrapLog) -> String {
    match &log.step {
        Some(step) => step.to_string(),
        None => "its bootstrap".to_owned(),
    }
}

/// A run that has not said how it ended, and whether nothing more will come of it.
fn of_run(
    situation: &Situation<'_>,
    log: &BootstrapLog,
    words: &Words,
) -> (Option<Diagnosis>, bool) {
    let step = log.step.as_ref().map_or(BOOT, |step| step.name.as_str());
    let at = place(log);
    let has_ended = log.boots.get(log.run_in).is_some_and(|boot| {
        let mut after = boot.afterwards().iter();
        after.any(|line| line.speaker == Speaker::CloudInit && line.text.contains(" finished at "))
    });
    if (has_ended || situation.over)
        && let Some(found) = recognise(SICK, &of_host(&log.lines))
    {
        let diagnosis = words.diagnosis(step, Some(found), "", Vec::new());
        return (Some(diagnosis), has_ended);
    }
    if has_ended {
        let what = format!("its bootstrap ended at {at}, and its console does not say why");
        return (
            Some(words.diagnosis(step, None, &what, tail(&log.lines))),
            true,
        );
    }
    let found = recognise_trouble(step, &log.lines, situation.over);
    let diagnosis = match found {
        Some(found) => words.diagnosis(step, Some(found), "", Vec::new()),
        None if situation.over => {
            let fact = format!("the bootstrap has not ended: it is at {at}");
            let mut diagnosis = words.of_fact(step, fact);
            diagnosis.evidence.splice(0..0, tail(&log.lines));
            diagnosis
        }
        None => return (None, false),
    };
    (Some(diagnosis), false)
}

/// A console without a word of the bootstrap, and whether nothing more will come.
fn of_boot(
    situation: &Situation<'_>,
    log: &BootstrapLog,
    words: &Words,
) -> (Option<Diagnosis>, bool) {
    let Some(boot) = log.boots.last() else {
        let fact = "the console is empty".to_owned();
        return (situation.over.then(|| words.of_fact(CONSOLE, fact)), false);
    };
    let is_console = boot.lines.iter().any(Line::is_of_a_console);
    // What someone saved may also be what EC2 answered, or says of the instance.
    for step in [LAUNCH, INSTANCE] {
        if !is_console && let Some(found) = recognise(step, &boot.lines) {
            return (
                Some(words.diagnosis(step, Some(found), "", Vec::new())),
                false,
            );
        }
    }
    let shown = || last_lines(situation.console, LAST_LINES);
    if !is_console {
        let fact = "this is no console log".to_owned();
        let mut diagnosis = words.of_fact(CONSOLE, fact);
        diagnosis.evidence.extend(shown());
        return (situation.over.then_some(diagnosis), false);
    }
    let is_sourceless = boot.lines.iter().any(|line| {
        line.text.contains("DataSourceNone") || line.text.contains("Used fallback datasource")
    });
    let begins = boot.from_start || boot.stages.iter().any(|stage| stage == "modules:final");
    let (stage, fact) = match &boot.finished {
        Some(_) if is_sourceless => (
            BOOT_SOURCELESS,
            "cloud-init has finished without a source of data",
        ),
        Some(_) => (
            BOOT_DONE,
            "cloud-init has finished, and nothing of the bootstrap is on the console",
        ),
        None => (
            BOOT_STUCK,
            "the console ends before cloud-init has run user-data",
        ),
    };
    let mut lines = boot.lines.clone();
    lines.push(Line::fact(fact));
    let found = recognise(stage, &lines);
    let is_vague = found.as_ref().is_none_or(|found| found.cause.general);
    if is_vague
        && let Some(sick) =
            recognise(SICK, &of_host(&boot.lines)).filter(|sick| !sick.cause.general)
    {
        return (
            Some(words.diagnosis(BOOT, Some(sick), "", Vec::new())),
            false,
        );
    }
    if is_vague && !is_sourceless && (boot.finished.is_some() || boot.stages.is_empty()) && !begins
    {
        let fact = "the beginning of the console is cut off".to_owned();
        let mut diagnosis = words.of_fact(CONSOLE, fact);
        diagnosis.evidence.splice(0..0, shown());
        return (situation.over.then_some(diagnosis), false);
    }
    let is_final = boot.finished.is_some() && situation.first_boot;
    let Some(found) = found else {
        return (None, false);
    };
    let is_general = found.cause.general;
    let step = if is_general && stage == BOOT_STUCK {
        CONSOLE
    } else {
        BOOT
    };
    let mut diagnosis = words.diagnosis(step, Some(found), "", Vec::new());
    if is_general {
        let shown = shown();
        diagnosis.evidence.retain(|line| !shown.contains(line));
        diagnosis.evidence.splice(0..0, shown);
    }
    // A boot that is only under way has no trouble to speak of.
    let is_trouble = !is_general || is_final || situation.over;
    (is_trouble.then_some(diagnosis), is_final)
}

/// What the kernel and systemd say.
fn of_host(lines: &[Line]) -> Vec<Line> {
    let of_host = lines.iter().filter(|line| line.speaker == Speaker::System);
    of_host.cloned().collect()
}

fn tail(lines: &[Line]) -> Vec<String> {
    lines[lines.len().saturating_sub(LAST_LINES)..]
        .iter()
        .map(|line| shortened(&line.shown()))
        .collect()
}

impl Words {
    pub(super) fn of_fact(&self, step: &str, fact: String) -> Diagnosis {
        let found = recognise_text(step, &fact);
        self.diagnosis(step, found, &fact, vec![fact.clone()])
    }

    /// The diagnosis that was found, or an honest one without.
    pub(super) fn diagnosis(
        &self,
        step: &str,
        found: Option<Found>,
        unrecognised: &str,
        shown: Vec<String>,
    ) -> Diagnosis {
        let deciding = found.as_ref().map_or(unrecognised, |found| &found.deciding);
        let captured = found.as_ref().map(|found| found.captured.as_slice());
        let words = self.with(captured.unwrap_or_default(), deciding);
        let fill =
            |advice: &[causes::Advice]| advice.iter().map(|advice| words.fill(advice)).collect();
        let (cause, confidence, what, or, evidence, remedy) = match found {
            Some(found) => (
                found.cause.name,
                found.confidence,
                words.sentence(found.cause.what),
                found
                    .cause
                    .or
                    .iter()
                    .map(|other| words.sentence(other))
                    .collect(),
                found.evidence,
                fill(found.cause.remedy),
            ),
            None => (
                UNKNOWN,
                Confidence::Unknown,
                unrecognised.to_owned(),
                Vec::new(),
                shown,
                fill(causes::UNRECOGNISED),
            ),
        };
        Diagnosis {
            customer: words.known("customer"),
            instance_id: words.known("id"),
            region: words.known("region"),
            step: step.to_owned(),
            cause,
            confidence,
            reports: None,
            what,
            or,
            evidence,
            remedy,
        }
    }
}
