//! A run as it goes on: redrawn lines on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Style, Terminal, text};
use crate::plan::{Event, Outcome};

/// Shows the events of a run.
pub struct Progress {
    terminal: Terminal,
    live: Option<Live>,
}

struct Live {
    bars: HashMap<&'static str, ProgressBar>,
    // Holds the bars' place on the screen.
    _screen: MultiProgress,
}

/// The longest step name, so that what follows stands in a column.
const NAME_WIDTH: usize = 18;

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
            if self.terminal.style == Style::Live {
                self.live = Some(Live::new(steps.iter().map(|step| step.name)));
            }
            return;
        }
        match &self.live {
            Some(live) => live.event(event, &self.terminal),
            None => self.plain(event),
        }
        if matches!(event, Event::RunFinished { .. }) {
            self.live = None;
        }
    }

    fn plain(&self, event: &Event) {
        if let Some(line) = line(event) {
            self.terminal.say(line);
        }
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
            text::duration(Duration::from_millis(*elapsed_ms))
        ),
        Event::StepFailed { step, error, .. } => format!("{step}: failed: {error}"),
        Event::RunStarted { .. } | Event::StepStarted { .. } | Event::RunFinished { .. } => {
            return None;
        }
    })
}

impl Live {
    fn new(steps: impl Iterator<Item = &'static str>) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let waiting = style("  {prefix:.dim} {wide_msg:.dim}");
        let bars = steps
            .map(|name| {
                let bar = screen.add(ProgressBar::new_spinner().with_style(waiting.clone()));
                bar.set_prefix(format!("· {name:NAME_WIDTH$}"));
                bar.tick();
                (name, bar)
            })
            .collect();
        Self {
            bars,
            _screen: screen,
        }
    }

    fn event(&self, event: &Event, terminal: &Terminal) {
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
                    bar.set_message(message.clone());
                }
            }
            Event::StepUnchanged { step, detail } => {
                self.end(step, &terminal.paint("=", |s| s.dim()), "unchanged", detail);
            }
            Event::StepFinished { step, outcome, .. } => {
                let sign = match outcome {
                    Outcome::Unchanged(_) | Outcome::Adopted(_) => terminal.paint("=", |s| s.dim()),
                    _ => terminal.paint("✓", |s| s.green()),
                };
                self.end(step, &sign, outcome.word(), outcome.detail());
            }
            Event::StepFailed { step, error, .. } => {
                self.end(step, &terminal.paint("✗", |s| s.red()), "failed", error);
            }
            Event::RunFinished { .. } => {
                for bar in self.bars.values().filter(|bar| !bar.is_finished()) {
                    bar.abandon();
                }
            }
            Event::RunStarted { .. } => {}
        }
    }

    fn end(&self, step: &'static str, sign: &str, word: &str, detail: &str) {
        if let Some(bar) = self.bars.get(step) {
            bar.set_style(style("  {prefix} {wide_msg}"));
            bar.set_prefix(format!("{sign} {step:NAME_WIDTH$}"));
            // A second line would break the redrawn block.
            let detail = detail.lines().next().unwrap_or_default();
            bar.finish_with_message(format!("{word}: {detail}"));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constant and valid")
}
