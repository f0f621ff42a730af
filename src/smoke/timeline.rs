//! When each step of a run began and ended: on this machine from its events, on the host from the console's stamps.

use jiff::{SignedDuration, Timestamp};

use crate::console_text::console_lines;
use crate::plan::Event;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Done,
    /// There was nothing to do.
    Unchanged,
    /// It failed.
    Failed,
    /// It had not ended when the record did.
    Open,
}

/// One step in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The step.
    pub name: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended; the end of the record for one that had not.
    pub ended: Timestamp,
    /// How.
    pub end: End,
    /// What became of it.
    pub detail: String,
}

/// The steps of a run as its events tell them.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    spans: Vec<Span>,
}

impl Timeline {
    /// Adds what an event tells.
    pub fn event(&mut self, at: Timestamp, event: &Event) {
        match event {
            Event::StepStarted { step } => self.spans.push(Span {
                name: (*step).to_owned(),
                began: at,
                ended: at,
                end: End::Open,
                detail: String::new(),
            }),
            Event::StepUnchanged { step, detail } => self.spans.push(Span {
                name: (*step).to_owned(),
                began: at,
                ended: at,
                end: End::Unchanged,
                detail: detail.clone(),
            }),
            Event::StepFinished { step, outcome, .. } => {
                self.close(
                    step,
                    at,
                    End::Done,
                    format!("{}: {}", outcome.word(), outcome.detail()),
                );
            }
            Event::StepFailed { step, error, .. } => {
                self.close(step, at, End::Failed, error.clone());
            }
            Event::RunFinished { .. } => {
                for span in self.spans.iter_mut().filter(|span| span.end == End::Open) {
                    span.ended = at;
                }
            }
            Event::RunStarted { .. } | Event::StepProgress { .. } => {}
        }
    }

    fn close(&mut self, step: &str, at: Timestamp, end: End, detail: String) {
        let open = |span: &&mut Span| span.name == step && span.end == End::Open;
        if let Some(span) = self.spans.iter_mut().rev().find(open) {
            span.ended = at;
            span.end = end;
            span.detail = detail;
        }
    }

    /// The steps, in the order in which they began.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// When a step ended, if it did.
    pub fn end_of(&self, step: &str) -> Option<Timestamp> {
        self.spans
            .iter()
            .find(|span| span.name == step && span.end != End::Open)
            .map(|span| span.ended)
    }
}

/// One line the bootstrap wrote, by the host's own clock.
struct Stamped<'l> {
    since_boot: SignedDuration,
    text: &'l str,
}

/// Reads `[   12.345678] cloud-init[612]: m8trx-bootstrap: …`; the console of a host carries the kernel's stamps.
fn stamped(line: &str) -> Option<Stamped<'_>> {
    let (stamp, rest) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    let seconds: f64 = stamp.trim().parse().ok()?;
    let (_, text) = rest.split_once("m8trx-bootstrap: ")?;
    Some(Stamped {
        since_boot: SignedDuration::try_from_secs_f64(seconds).ok()?,
        text: text.trim_end(),
    })
}

/// How the host's clock was laid over this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// By the first heartbeat, which carries the host's own time.
    ByHeartbeat,
    /// The failure stands where it was noticed, which is some seconds late.
    ByFailure,
    /// As if the host booted at its launch, which is some seconds early.
    ByLaunch,
}

/// What is known of a host's boot by this machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// When EC2 took the launch.
    pub launched: Timestamp,
    /// When the host sent its first heartbeat, by its own clock.
    pub heartbeat: Option<Timestamp>,
    /// When its failure was noticed.
    pub failed: Option<Timestamp>,
}

/// The steps of the bootstrap in time. Empty where the console carries no stamps.
///
/// The console counts from the boot, so one of its moments must be known by the clock as well.
pub fn of_console(console: &[u8], known: Known) -> (Vec<Span>, Placed) {
    let lines: Vec<String> = console_lines(console).collect();
    let lines: Vec<Stamped<'_>> = lines.iter().filter_map(|line| stamped(line)).collect();
    // A second boot starts over.
    let first = lines
        .iter()
        .rposition(|line| line.text.starts_with("step 1/"))
        .unwrap_or(0);
    let lines = &lines[first..];
    let line = |begins: &str| lines.iter().find(|line| line.text.starts_with(begins));
    let (boot, placed) = match (
        line("first heartbeat accepted").zip(known.heartbeat),
        line("FAILED ").zip(known.failed),
    ) {
        (Some((line, at)), _) => (at.checked_sub(line.since_boot), Placed::ByHeartbeat),
        (None, Some((line, at))) => (at.checked_sub(line.since_boot), Placed::ByFailure),
        (None, None) => (Ok(known.launched), Placed::ByLaunch),
    };
    let boot = boot.unwrap_or(known.launched);
    let at = |line: &Stamped<'_>| boot.checked_add(line.since_boot).unwrap_or(boot);
    let mut spans: Vec<Span> = Vec::new();
    for line in lines {
        let now = at(line);
        if let Some(open) = spans.last_mut().filter(|span| span.end == End::Open) {
            open.ended = now;
        }
        if let Some(step) = line.text.strip_prefix("step ") {
            close_last(&mut spans, End::Done, String::new());
            let name = step.split_whitespace().nth(1).unwrap_or(step);
            spans.push(Span {
                name: name.to_owned(),
                began: now,
                ended: now,
                end: End::Open,
                detail: String::new(),
            });
        } else if let Some(failure) = line.text.strip_prefix("FAILED ") {
            close_last(&mut spans, End::Failed, failure.to_owned());
        } else if line.text.starts_with("complete for ") {
            close_last(&mut spans, End::Done, line.text.to_owned());
        }
    }
    (spans, placed)
}

fn close_last(spans: &mut [Span], end: End, detail: String) {
    if let Some(open) = spans.last_mut().filter(|span| span.end == End::Open) {
        open.end = end;
        open.detail = detail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Outcome;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn events_become_spans() {
        let mut timeline = Timeline::default();
        timeline.event(at(0), &Event::StepStarted { step: "iam-role" });
        timeline.event(at(1), &Event::StepStarted { step: "host" });
        timeline.event(
            at(3),
            &Event::StepFinished {
                step: "iam-role",
                outcome: Outcome::Created("m8trx-cust_a".to_owned()),
                elapsed_ms: 3000,
            },
        );
        timeline.event(
            at(5),
            &Event::RunFinished {
                end: crate::plan::RunEnd::Failed,
                elapsed_ms: 5000,
            },
        );
        let spans = timeline.spans();
        assert_eq!((spans[0].began, spans[0].ended), (at(0), at(3)));
        assert_eq!(spans[0].detail, "created: m8trx-cust_a");
        assert_eq!((spans[1].end, spans[1].ended), (End::Open, at(5)));
        assert_eq!(timeline.end_of("iam-role"), Some(at(3)));
        assert_eq!(timeline.end_of("host"), None);
    }

    const CONSOLE: &str = "\
[    0.000000] Linux version 6.8.0\r
[   10.000000] cloud-init[612]: m8trx-bootstrap: step 1/7 identity\r
[   12.500000] cloud-init[612]: m8trx-bootstrap: step 2/7 packages\r
[   13.000000] cloud-init[612]: Get:1 http://mirror\r
";

    fn known(heartbeat: Option<i64>, failed: Option<i64>) -> Known {
        Known {
            launched: at(0),
            heartbeat: heartbeat.map(at),
            failed: failed.map(at),
        }
    }

    #[test]
    fn a_console_is_placed_by_its_first_heartbeat() {
        let console = format!(
            "{CONSOLE}[ 20.0] cloud-init[612]: m8trx-bootstrap: first heartbeat accepted\n[ 21.0] cloud-init[612]: m8trx-bootstrap: complete for cust_a\n"
        );
        let (spans, placed) = of_console(console.as_bytes(), known(Some(120), None));
        assert_eq!(placed, Placed::ByHeartbeat);
        let shown: Vec<_> = spans
            .iter()
            .map(|s| (s.name.as_str(), s.began, s.end))
            .collect();
        let half = SignedDuration::from_millis(500);
        assert_eq!(
            shown,
            [
                ("identity", at(110), End::Done),
                ("packages", at(112) + half, End::Done)
            ]
        );
        assert_eq!(spans[1].ended, at(121));
    }

    #[test]
    fn a_failed_boot_is_placed_by_when_it_was_noticed() {
        let console = format!(
            "{CONSOLE}[ 14.0] cloud-init[612]: m8trx-bootstrap: FAILED step=2 name=packages line=9 exit=100\n"
        );
        let (spans, placed) = of_console(console.as_bytes(), known(None, Some(30)));
        assert_eq!(placed, Placed::ByFailure);
        assert_eq!(spans[1].end, End::Failed);
        assert_eq!((spans[0].began, spans[1].ended), (at(26), at(30)));
        // A boot that hangs has no such moment.
        let (spans, placed) = of_console(CONSOLE.as_bytes(), known(None, Some(30)));
        assert_eq!((placed, spans[0].began), (Placed::ByLaunch, at(10)));
        assert_eq!(spans[1].end, End::Open);
    }

    #[test]
    fn a_console_without_stamps_tells_no_times() {
        let times = |console: &[u8]| of_console(console, known(None, None)).0;
        assert_eq!(times(b"m8trx-bootstrap: step 1/7 identity\n"), []);
        assert_eq!(times(&[0xff, b'[', 0, b'\n']), []);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048)) {
            of_console(&bytes, known(None, Some(1)));
        }

        #[test]
        fn any_stamp_is_read(stamp in "[0-9eE.+-]{1,30}") {
            let console = format!("[{stamp}] m8trx-bootstrap: step 1/7 identity\n[{stamp}] m8trx-bootstrap: first heartbeat accepted\n");
            of_console(console.as_bytes(), known(Some(0), None));
        }
    }
}
