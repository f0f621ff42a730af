//! A run as it goes on: redrawn lines on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Terminal;
use super::text::{duration, one_line, wrap_below};
use crate::plan::{Event, Outcome};

/// Shows the events of a run.
pub struct Progress {
    terminal: Terminal,
    live: Option<Live>,
}

/// The steps in the plan's order, each on a line of the display; their whole lines take its place in the end.
struct Live {
    steps: Vec<&'static str>,
    bars: HashMap<&'static str, ProgressBar>,
    ended: HashMap<&'static str, Ended>,
    // Holds the bars' place on the screen.
    _screen: MultiProgress,
}

/// How a step ended.
struct Ended {
    sign: Sign,
    text: String,
}

#[derive(Clone, Copy)]
enum Sign {
    Same,
    Done,
    Failed,
}

/// The longest step name, so that what follows stands in a column.
const NAME_WIDTH: usize = 18;
/// What stands before the message: the margin, the sign, the name.
const MESSAGE_COLUMN: usize = 2 + 2 + NAME_WIDTH + 1;
/// What stands behind it while a step is under way.
const ELAPSED_WIDTH: usize = 5;

impl Progress {
    /// Begins with nothing shown.
    pub fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            live: None,
        }
    }

    /// Shows one event.
    pub fn event(&mut self, event: &Event) {
        if let Event::RunStarted { steps, .. } = event {
            let screen = self.terminal.begin_live();
            self.live = screen.map(|screen| Live::new(screen, steps.iter().map(|step| step.name)));
            return;
        }
        match &mut self.live {
            Some(live) => live.event(event, &self.terminal),
            None => self.plain(event),
        }
        if matches!(event, Event::RunFinished { .. }) {
            self.end();
        }
    }

    /// The display gives way to whole lines, which stay.
    fn end(&mut self) {
        if let Some(live) = self.live.take() {
            self.terminal.end_live();
            live.say_all(&self.terminal);
        }
    }

    fn plain(&self, event: &Event) {
        if let Some(line) = line(event) {
            self.terminal.say_whole(one_line(&line));
        }
    }
}

/// A run whose end nobody told, because its task was stopped.
impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// An event as a plain line; `None` for what is shown in no line.
pub fn line<S: std::fmt::Display>(event: &Event<S>) -> Option<String> {
    Some(match event {
        Event::StepUnchanged { step, detail } => format!("{step}: unchanged: {detail}"),
        Event::StepProgress { step, message } => format!("{step}: {message}"),
        Event::StepFinished {
            step,
            outcome,
            elapsed_ms,
        } => format!(
            "{step}: {}: {} ({})",
            outcome.word(),
            outcome.detail(),
            duration(Duration::from_millis(*elapsed_ms))
        ),
        Event::StepFailed { step, error, .. } => format!("{step}: failed: {error}"),
        Event::RunStarted { .. } | Event::StepStarted { .. } | Event::RunFinished { .. } => {
            return None;
        }
    })
}

impl Live {
    fn new(screen: MultiProgress, steps: impl Iterator<Item = &'static str>) -> Self {
        let waiting = style("  {prefix:.dim} {wide_msg:.dim}");
        let steps: Vec<&'static str> = steps.collect();
        let bars = steps
            .iter()
            .map(|name| {
                let bar = screen.add(ProgressBar::new_spinner().with_style(waiting.clone()));
                bar.set_prefix(format!("· {name:NAME_WIDTH$}"));
                bar.tick();
                (*name, bar)
            })
            .collect();
        Self {
            steps,
            bars,
            ended: HashMap::new(),
            _screen: screen,
        }
    }

    fn event(&mut self, event: &Event, terminal: &Terminal) {
        match event {
            Event::StepStarted { step } => {
                if let Some(bar) = self.bars.get(step) {
                    bar.set_style(style(
                        "  {spinner:.cyan} {prefix} {wide_msg} {elapsed:>4.dim}",
                    ));
                    bar.set_prefix(format!("{step:NAME_WIDTH$}"));
                    bar.reset_elapsed();
                    bar.enable_steady_tick(Duration::from_millis(100));
                }
            }
            Event::StepProgress { step, message } => {
                if let Some(bar) = self.bars.get(step) {
                    bar.set_message(cut(message, ELAPSED_WIDTH, terminal));
                }
            }
            Event::StepUnchanged { step, detail } => {
                self.ended(step, Sign::Same, "unchanged", detail, terminal);
            }
            Event::StepFinished { step, outcome, .. } => {
                let sign = match outcome {
                    Outcome::Unchanged(_) | Outcome::Adopted(_) => Sign::Same,
                    _ => Sign::Done,
                };
                self.ended(step, sign, outcome.word(), outcome.detail(), terminal);
            }
            Event::StepFailed { step, error, .. } => {
                self.ended(step, Sign::Failed, "failed", error, terminal);
            }
            Event::RunFinished { .. } | Event::RunStarted { .. } => {}
        }
    }

    fn ended(
        &mut self,
        step: &'static str,
        sign: Sign,
        word: &str,
        detail: &str,
        terminal: &Terminal,
    ) {
        let ended = Ended {
            sign,
            text: one_line(&format!("{word}: {detail}")),
        };
        if let Some(bar) = self.bars.get(step) {
            bar.set_style(style("  {prefix} {wide_msg}"));
            bar.set_prefix(format!("{} {step:NAME_WIDTH$}", sign.painted(terminal)));
            bar.finish_with_message(cut(&ended.text, 0, terminal));
        }
        self.ended.insert(step, ended);
    }

    fn say_all(&self, terminal: &Terminal) {
        for step in &self.steps {
            let Some(ended) = self.ended.get(step) else {
                terminal.say_painted(format!("  · {step}"), |style| style.dim());
                continue;
            };
            // The sign's colour has no width, so it is put in when the line is laid out.
            let line = format!("  {} {step:NAME_WIDTH$} {}", ended.sign.plain(), ended.text);
            let line = match terminal.columns() {
                Some(columns) => wrap_below(&line, usize::from(columns), MESSAGE_COLUMN),
                None => line,
            };
            let line = line.replacen(ended.sign.plain(), &ended.sign.painted(terminal), 1);
            terminal.put(&line);
        }
    }
}

impl Sign {
    fn plain(self) -> &'static str {
        match self {
            Self::Same => "=",
            Self::Done => "✓",
            Self::Failed => "✗",
        }
    }

    fn painted(self, terminal: &Terminal) -> String {
        terminal.paint(self.plain(), |style| match self {
            Self::Same => style.dim(),
            Self::Done => style.green(),
            Self::Failed => style.red(),
        })
    }
}

/// While the display lives, a message has one line.
fn cut(message: &str, behind: usize, terminal: &Terminal) -> String {
    let columns = terminal.columns().map_or(80, usize::from);
    let room = columns.saturating_sub(MESSAGE_COLUMN + behind).max(10);
    console::truncate_str(&one_line(message), room, "…").into_owned()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constant and valid")
}
