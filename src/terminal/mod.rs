//! What a person or a script sees: results on stdout, everything else on stderr. Nothing below calls it.

pub mod events_text;
pub mod failure;
pub mod interrupt;
pub mod plan_table;
pub mod progress;
pub mod prompt;
pub mod screen;
pub mod status_table;

// For whoever already has the terminal.
pub use crate::text;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressDrawTarget};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use serde::Serialize;

use failure::{Failure, Kind};
use interrupt::Interrupt;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON document on stdout, exact and stable.
    Json,
}

/// The one owner of stdout and stderr. Clones are one.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// How results are written.
    pub output: OutputFormat,
    /// Whether a person is there to be asked.
    pub interactive: bool,
    /// Whether stderr gets nothing.
    pub muted: bool,
    /// The signals that ask the command to end.
    pub interrupt: Interrupt,
    style: Style,
    colour: bool,
    screen: Arc<Screen>,
}

/// What is on the screen and must be drawn around, and what must be put back in the end.
#[derive(Default)]
struct Screen {
    /// The display of a run, while there is one.
    live: Mutex<Option<MultiProgress>>,
    /// How the terminal was before it was kept from echoing.
    before: Mutex<Option<Termios>>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

/// Whether stderr takes movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A terminal that can redraw lines.
    Live,
    /// Plain lines: no terminal, `TERM=dumb`, or more lines than a redrawn display bears (`-v`).
    Plain,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Terminal {
    /// Looks at what stdin and stderr are.
    pub fn detect(output: OutputFormat, yes: bool, verbose: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stderr_is_terminal = io::stderr().is_terminal();
        Self {
            output,
            interactive: !yes && stderr_is_terminal && io::stdin().is_terminal(),
            muted: false,
            interrupt: Interrupt::default(),
            style: if stderr_is_terminal && !dumb && !verbose {
                Style::Live
            } else {
                Style::Plain
            },
            colour: stderr_is_terminal && !dumb && !set("NO_COLOR"),
            screen: Arc::default(),
        }
    }

    /// Runs a command; a signal that comes while it changes nothing ends it where it stands.
    pub async fn interruptible(
        &self,
        command: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        self.interrupt.listen(self.clone()).map_err(|e| {
            Failure::words(Kind::Other, format!("signals cannot be listened to: {e}"))
        })?;
        let result = tokio::select! {
            biased;
            () = self.interrupt.at_rest() => Err(Failure::words(Kind::Interrupted, "interrupted; nothing was changed")),
            result = command => result,
        };
        self.restore();
        result
    }

    /// The same for work in the background: it writes nothing to stderr, and asks nothing.
    pub fn muted(&self) -> Self {
        Self {
            interactive: false,
            muted: true,
            ..self.clone()
        }
    }

    /// Keeps what is typed off the screen until [`Self::restore`]: the echo would stand in the middle of what is drawn.
    fn hush(&self) {
        let mut before = locked(&self.screen.before);
        if before.is_some() || self.muted || self.style == Style::Plain {
            return;
        }
        let stdin = io::stdin();
        // A job in the background would be stopped by the attempt.
        if tcgetpgrp(&stdin).ok() != Some(getpgrp()) {
            return;
        }
        let Ok(was) = tcgetattr(&stdin) else { return };
        let mut quiet = was.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        if tcsetattr(&stdin, SetArg::TCSANOW, &quiet).is_ok() {
            *before = Some(was);
        }
    }

    /// Gives the terminal back as it was; what was typed meanwhile is nobody's answer.
    fn restore(&self) {
        self.end_live();
        if let Some(before) = locked(&self.screen.before).take() {
            let stdin = io::stdin();
            let _ = tcflush(&stdin, FlushArg::TCIFLUSH);
            let _ = tcsetattr(&stdin, SetArg::TCSANOW, &before);
            let _ = console::Term::stderr().show_cursor();
        }
    }

    /// The display of a run, where stderr takes one; lines that are said meanwhile stand above it.
    fn begin_live(&self) -> Option<MultiProgress> {
        if self.muted || self.style == Style::Plain {
            return None;
        }
        self.hush();
        let live = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        *locked(&self.screen.live) = Some(live.clone());
        Some(live)
    }

    /// Takes the display away, and what it showed with it.
    fn end_live(&self) {
        if let Some(live) = locked(&self.screen.live).take() {
            let _ = live.clear();
            // Steps that are not ended would be drawn once more when their bars are dropped.
            live.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    /// Lines for people, on stderr, broken between words where they are longer than the terminal is wide.
    pub fn say(&self, text: impl AsRef<str>) {
        self.put(&self.fitted(&text::visible(text.as_ref())));
    }

    /// A line that is there to be copied: never broken.
    pub fn say_whole(&self, line: impl AsRef<str>) {
        self.put(&text::visible(line.as_ref()));
    }

    /// A line with a heading in a style; the style is ours alone, what follows may come from anywhere.
    pub fn say_under(
        &self,
        heading: &str,
        style: impl Fn(console::Style) -> console::Style,
        line: impl AsRef<str>,
    ) {
        let line = format!("{heading} {}", text::visible(line.as_ref()));
        let fitted = self.fitted(&line);
        let rest = fitted.strip_prefix(heading).unwrap_or(&fitted);
        self.put(&format!(
            "{}{}",
            self.paint(heading, style),
            rest.trim_end_matches(' ')
        ));
    }

    /// A whole line in a style.
    pub fn say_painted(
        &self,
        line: impl AsRef<str>,
        style: impl Fn(console::Style) -> console::Style,
    ) {
        self.put(&self.paint(&text::visible(line.as_ref()), style));
    }

    fn fitted(&self, text: &str) -> String {
        match self.columns() {
            Some(columns) => text::wrap(text, usize::from(columns)),
            None => text.to_owned(),
        }
    }

    /// The one place that writes to stderr, beside the display, which it steps around.
    fn put(&self, text: &str) {
        if self.muted {
            return;
        }
        // A closed stderr is no reason to stop, and a closed terminal neither.
        let _ = match &*locked(&self.screen.live) {
            Some(live) => live.println(text),
            None => writeln!(io::stderr().lock(), "{text}"),
        };
    }

    /// A line that should not be overlooked, on stderr.
    pub fn warn(&self, line: impl AsRef<str>) {
        self.say_under("warning:", |style| style.yellow().bold(), line);
    }

    /// The result, on stdout: its text for people, or itself as one JSON document.
    pub fn result(&self, result: &(impl Serialize + std::fmt::Display)) -> io::Result<()> {
        match self.output {
            OutputFormat::Human => {
                let text = result.to_string();
                let text = text::visible(&text);
                self.write(&match stdout_columns() {
                    Some(columns) => format!("{}\n", text::wrap(&text, usize::from(columns))),
                    None => format!("{text}\n"),
                })
            }
            OutputFormat::Json => {
                let document = serde_json::to_string(result)?;
                self.write(&format!("{}\n", text::visible_json(&document)))
            }
        }
    }

    /// Text on stdout as it is. A reader that has gone (`| head`) is no error.
    pub fn write(&self, text: &str) -> io::Result<()> {
        self.write_on(text).map(drop)
    }

    /// Text on stdout as it is; says whether there is still a reader, for commands that would go on for ever without one.
    pub fn write_on(&self, text: &str) -> io::Result<bool> {
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether stdout is a pipe that nobody reads any more: only writing would tell otherwise.
    pub fn reader_has_gone(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd as _;
        let stdout = io::stdout();
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        poll(&mut fds, PollTimeout::ZERO).is_ok()
            && fds[0].revents().is_some_and(|found| found.intersects(gone))
    }

    /// How many columns people see; `None` where there is no terminal.
    pub fn columns(&self) -> Option<u16> {
        console::Term::stderr()
            .size_checked()
            .map(|(_, columns)| columns)
    }

    fn paint(&self, text: &str, style: impl Fn(console::Style) -> console::Style) -> String {
        if !self.colour {
            return text.to_owned();
        }
        style(console::Style::new().for_stderr().force_styling(true))
            .apply_to(text)
            .to_string()
    }
}

/// A line of another writer's, such as the log of calls, is said like any other.
impl io::Write for Terminal {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.say_whole(String::from_utf8_lossy(buffer).trim_end());
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stdout_columns() -> Option<u16> {
    console::Term::stdout()
        .size_checked()
        .map(|(_, columns)| columns)
}
