//! Decides which entry of the table a failure shows.
//!
//! The bootstrap's own reason comes first, and alone where it says what went wrong. Where it only names the command that
//! failed, what the same try of that command printed counts, the first error before those that follow from it. Tries that
//! are over, other units and earlier boots do not count.

use std::ops::Range;
use std::sync::LazyLock;

use super::causes::{self, Cause, SICK};
use super::pattern::Pattern;
use super::{Confidence, TAILNET};
use crate::bootstrap_log::BootstrapFailure;
use crate::console_text::{Line, Speaker};

/// How many lines are shown beside the one that decides.
const SHOWN: usize = 3;
/// A longer line is cut for showing.
const LONGEST_SHOWN: usize = 400;
/// So many lines of a try are looked at from its beginning, and as many from its end.
const LOOKED_AT: usize = 1000;
/// Stages that are no step of the bootstrap.
const NO_STEPS: [&str; 12] = [
    super::LAUNCH,
    super::INSTANCE,
    super::BOOT,
    super::CONSOLE,
    super::FIRST_HEARTBEAT,
    TAILNET,
    SICK,
    causes::BOOT_STUCK,
    causes::BOOT_DONE,
    causes::BOOT_SOURCELESS,
    causes::HALT,
    causes::DOWN,
];

/// An entry with its patterns ready.
pub(super) struct Ready {
    pub(super) cause: &'static Cause,
    pub(super) shows: Vec<Pattern>,
    pub(super) beside: Vec<Pattern>,
}

/// The table, in its order.
pub(super) static READY: LazyLock<Vec<Ready>> = LazyLock::new(|| {
    causes::all()
        .map(|cause| Ready {
            cause,
            shows: patterns(cause.shows),
            beside: patterns(cause.beside),
        })
        .collect()
});

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text)).collect()
}

/// What the named groups of the first pattern catch that matches.
fn captured(patterns: &[Pattern], line: &str) -> Option<Vec<(String, String)>> {
    patterns.iter().find_map(|pattern| pattern.captured(line))
}

/// An entry of the table that lines show.
pub(super) struct Found {
    pub(super) cause: &'static Cause,
    pub(super) confidence: Confidence,
    /// What the pattern's named groups caught.
    pub(super) captured: Vec<(String, String)>,
    /// The line that decided.
    pub(super) deciding: String,
    /// The lines that show it, oldest first.
    pub(super) evidence: Vec<String>,
}

impl Ready {
    fn is_at(&self, stage: &str) -> bool {
        match self.cause.at {
            // Any step of the bootstrap.
            [] => !NO_STEPS.contains(&stage),
            at => at.contains(&stage),
        }
    }

    fn captured(&self, line: &str) -> Option<Vec<(String, String)>> {
        captured(&self.shows, line)
    }

    /// What it says, decided by this line; `lines` may hold more that show the same or stand beside.
    fn found<'l>(
        &self,
        line: &str,
        lines: impl Iterator<Item = &'l Line>,
        confidence: Confidence,
    ) -> Option<Found> {
        let deciding = shortened(line);
        let mut words = Vec::new();
        let (mut before, mut after, mut is_before) = (Vec::new(), Vec::new(), true);
        for other in lines.filter(|other| !is_over(other)) {
            if other.text == line {
                is_before = false;
            }
            let shown = shortened(&other.shown());
            let beside = captured(&self.beside, &other.text);
            let known = [&before, &after].iter().any(|lines| lines.contains(&shown));
            if known || shown == deciding || line.contains(&other.text) {
                continue;
            }
            if beside.is_some() || self.captured(&other.text).is_some() {
                let side = if is_before { &mut before } else { &mut after };
                side.push(shown);
                words.extend(beside.unwrap_or_default());
            }
        }
        // The nearest ones, in their order.
        before.drain(..before.len().saturating_sub(SHOWN));
        after.truncate(SHOWN - before.len());
        words.extend(self.captured(line)?);
        Some(Found {
            cause: self.cause,
            confidence,
            captured: words,
            deciding: line.to_owned(),
            evidence: [before, vec![deciding], after].concat(),
        })
    }
}

/// The entry that one text shows: one that says what happened before one that speaks in general.
fn shown(stage: &str, text: &str) -> Option<&'static Ready> {
    let at = || READY.iter().filter(|ready| ready.is_at(stage));
    let find = |general| {
        at().find(|ready| ready.cause.general == general && ready.captured(text).is_some())
    };
    find(false).or_else(|| find(true))
}

/// The entry that lines show, the oldest line first: any that says what happened before those that speak in general.
pub(super) fn recognise(stage: &str, lines: &[Line]) -> Option<Found> {
    let find = |general: bool| {
        let entries: Vec<&Ready> = READY
            .iter()
            .filter(|ready| ready.is_at(stage) && ready.cause.general == general)
            .collect();
        lines.iter().find_map(|line| {
            let ready = entries
                .iter()
                .find(|ready| ready.captured(&line.text).is_some())?;
            ready.found(&line.text, lines.iter(), Confidence::Likely)
        })
    };
    if lines.is_empty() {
        return None;
    }
    find(false).or_else(|| find(true))
}

/// The entry that one text decides alone.
pub(super) fn recognise_text(stage: &str, text: &str) -> Option<Found> {
    shown(stage, text)?.found(text, [].iter(), Confidence::Certain)
}

/// The entry that a failure of the bootstrap shows, `lines` being those of its last step.
pub(super) fn recognise_failure(
    stage: &str,
    failure: &BootstrapFailure,
    lines: &[Line],
) -> Option<Found> {
    let reason = failure.reason.as_deref().unwrap_or_default();
    let ended = format!("ended by signal {}", failure.exit.unwrap_or(0) - 128);
    let by_signal = is_silent(reason) && matches!(failure.exit, Some(129 | 130 | 137 | 143));
    let own = shown(stage, reason).or_else(|| by_signal.then(|| shown(stage, &ended))?);
    let said = if by_signal { ended.as_str() } else { reason };
    let tries = tries(reason, lines);
    let last = &lines[tries[0].clone()];
    let speaks = by_signal || !is_silent(reason);
    if let Some(ready) = own.filter(|ready| speaks && !ready.cause.general) {
        return ready.found(said, last.iter(), Confidence::Certain);
    }
    if own.is_none() && speaks {
        return None;
    }
    // A try that printed nothing: the one before it must do.
    let looked_at = if speaks { 1 } else { tries.len() };
    for range in &tries[..looked_at] {
        let tried = &lines[range.clone()];
        // One of the same name only says more of the same.
        let another = |ready: &Ready| own.is_none_or(|own| own.cause.name != ready.cause.name);
        let error =
            first_error(stage, tried, another).or_else(|| first_error(stage, tried, |_| true));
        if let Some((ready, line)) = error {
            return ready.found(&line.text, tried.iter(), Confidence::Likely);
        }
    }
    if let Some(ready) = own {
        return ready.found(said, last.iter(), Confidence::Likely);
    }
    let general = |ready: &Ready| ready.cause.general;
    let (ready, line) = first_shown(stage, &spoken(last, Speaker::Command), general)
        .or_else(|| first_shown(SICK, &spoken(lines, Speaker::System), general))?;
    ready.found(&line.text, last.iter(), Confidence::Likely)
}

/// The first error of a try that says what happened: one of its commands', or what befell the host itself meanwhile.
fn first_error<'l>(
    stage: &str,
    tried: &'l [Line],
    counts: impl Fn(&Ready) -> bool,
) -> Option<(&'static Ready, &'l Line)> {
    let specific = |ready: &Ready| !ready.cause.general && counts(ready);
    let of_commands = first_shown(stage, &spoken(tried, Speaker::Command), specific);
    let of_host = first_shown(SICK, &spoken(tried, Speaker::System), specific);
    let (Some(of_commands), Some(of_host)) = (of_commands, of_host) else {
        return of_commands.or(of_host);
    };
    let first = tried
        .iter()
        .find(|line| std::ptr::eq(*line, of_commands.1) || std::ptr::eq(*line, of_host.1))?;
    Some(if std::ptr::eq(first, of_host.1) {
        of_host
    } else {
        of_commands
    })
}

fn spoken(lines: &[Line], speaker: Speaker) -> Vec<&Line> {
    let mut spoken: Vec<&Line> = lines
        .iter()
        .filter(|line| line.speaker == speaker)
        .collect();
    if spoken.len() > 2 * LOOKED_AT {
        spoken.drain(LOOKED_AT..spoken.len() - LOOKED_AT);
    }
    spoken
}

/// What a host is trying to overcome: what the bootstrap has said twice of the same thing, or at last where nothing more
/// is waited for. A thing that works at the second try is nothing to speak of.
pub(super) fn recognise_trouble(stage: &str, lines: &[Line], over: bool) -> Option<Found> {
    let last = lines.iter().rposition(is_over)?;
    let subject = |line: &Line| line.text.split(", again in ").next().map(str::to_owned);
    let tries = lines
        .iter()
        .filter(|line| is_over(line) && subject(line) == subject(&lines[last]));
    let is_overcome = lines[last + 1..]
        .iter()
        .any(|line| line.speaker == Speaker::Command);
    if is_overcome || (tries.count() < 2 && !over) {
        return None;
    }
    let line = &lines[last];
    shown(stage, &line.text)?.found(&line.shown(), [].iter(), Confidence::Likely)
}

/// The first line that shows an entry, and the entry.
fn first_shown<'l>(
    stage: &str,
    lines: &[&'l Line],
    counts: impl Fn(&Ready) -> bool,
) -> Option<(&'static Ready, &'l Line)> {
    lines.iter().find_map(|line| {
        let ready = READY.iter().find(|ready| {
            ready.is_at(stage) && counts(ready) && ready.captured(&line.text).is_some()
        })?;
        Some((ready, *line))
    })
}

/// Whether a reason says no more than which command failed.
fn is_silent(reason: &str) -> bool {
    let reason = reason.trim();
    matches!(reason, "" | "stopped" | "Tailscale install script failed")
        || reason.starts_with("command failed: ")
        || reason.ends_with(" failed:")
        || reason.ends_with(": Killed")
}

/// A try that failed and was followed by another.
fn is_over(line: &Line) -> bool {
    let again = |text: &str| {
        text.split_once(", again in ")
            .is_some_and(|(_, after)| after.starts_with(|c: char| c.is_ascii_digit()))
    };
    line.speaker == Speaker::Bootstrap && again(&line.text)
}

/// The tries of the command that failed, the last one first.
fn tries(reason: &str, lines: &[Line]) -> Vec<Range<usize>> {
    const COMMANDS: [&str; 4] = [
        "apt-get",
        "Tailscale install script",
        "tailscale up",
        "no heartbeat",
    ];
    let command = COMMANDS
        .into_iter()
        .find(|command| reason.starts_with(command));
    // Of these, older bootstraps did not say where a try ended.
    let begins = |line: &Line| {
        line.speaker == Speaker::Command
            && match command {
                Some("Tailscale install script") => {
                    line.text.starts_with("Installing Tailscale for ")
                        || line.text.starts_with("The installer cannot reach")
                        || line.text.contains(" isn't supported by this script yet")
                }
                Some("tailscale up") => {
                    line.text.starts_with("Installation complete!")
                        || line.text.starts_with("Setting up tailscale")
                        || line.text.contains("/tailscaled.service")
                }
                _ => false,
            }
    };
    let ends = |line: &Line| {
        is_over(line) && command.is_some_and(|command| line.text.starts_with(command))
    };
    let mut tries = Vec::new();
    let mut end = lines.len();
    for (at, line) in lines.iter().enumerate().rev() {
        if ends(line) {
            tries.push(at + 1..end);
            end = at;
        } else if begins(line) {
            tries.push(at..end);
            end = at;
        }
    }
    tries.push(0..end);
    tries
}

/// A long line without its middle: what failed stands at its beginning, and why at its end.
pub(super) fn shortened(line: &str) -> String {
    let characters: Vec<char> = line.chars().collect();
    if characters.len() <= LONGEST_SHOWN {
        return line.to_owned();
    }
    let half = LONGEST_SHOWN / 2;
    let head: String = characters[..half].iter().collect();
    let tail: String = characters[characters.len() - half..].iter().collect();
    format!("{head} … {tail}")
}
