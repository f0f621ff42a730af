//! What a person or a script sees: results on stdout, everything else on stderr. Nothing below calls it, except for
//! plain text helpers.

pub mod events_text;
pub mod failure;
pub mod interrupt;
pub mod plan_table;
pub mod progress;
pub mod prompt;
pub mod screen;
pub mod status_table;
pub mod text;

use std::io::{self, IsTerminal as _, Write as _};

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

/// The one owner of stdout and stderr.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// How results are written.
    pub output: OutputFormat,
    /// Whether a person is there to be asked.
    pub interactive: bool,
    /// Whether stderr takes colours and movement.
    pub style: Style,
    /// Whether stderr gets nothing.
    pub muted: bool,
    /// The signals that ask the command to end.
    pub interrupt: Interrupt,
}

/// Whether stderr takes colours and movement, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A terminal that can redraw lines.
    Live,
    /// Plain lines: no terminal, `NO_COLOR`, `TERM=dumb`, or more lines than a redrawn display bears (`-v`).
    Plain,
}

/// What decides the style; a pure function of what was found.
pub fn style(stderr_is_terminal: bool, no_color: bool, dumb: bool, verbose: bool) -> Style {
    if stderr_is_terminal && !no_color && !dumb && !verbose {
        Style::Live
    } else {
        Style::Plain
    }
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
            style: style(stderr_is_terminal, set("NO_COLOR"), dumb, verbose),
            muted: false,
            interrupt: Interrupt::default(),
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
        tokio::select! {
            biased;
            () = self.interrupt.at_rest() => Err(Failure::words(Kind::Interrupted, "interrupted; nothing was changed")),
            result = command => result,
        }
    }

    /// Gives the terminal back as it was, before the process ends.
    fn restore(&self) {
        let _ = console::Term::stderr().show_cursor();
    }

    /// The same for work in the background: it writes nothing to stderr, and asks nothing.
    pub fn muted(&self) -> Self {
        Self {
            interactive: false,
            muted: true,
            ..self.clone()
        }
    }

    /// One line for people, on stderr.
    pub fn say(&self, line: impl AsRef<str>) {
        if self.muted {
            return;
        }
        // A closed stderr is no reason to stop.
        let _ = writeln!(io::stderr().lock(), "{}", line.as_ref());
    }

    /// A line that should not be overlooked, on stderr.
    pub fn warn(&self, line: impl AsRef<str>) {
        let heading = self.paint("warning:", |style| style.yellow().bold());
        self.say(format!("{heading} {}", line.as_ref()));
    }

    /// The result, on stdout: its text for people, or itself as one JSON document.
    pub fn result(&self, result: &(impl Serialize + std::fmt::Display)) -> io::Result<()> {
        match self.output {
            OutputFormat::Human => self.write(&format!("{result}\n")),
            OutputFormat::Json => self.write(&format!("{}\n", serde_json::to_string(result)?)),
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

    /// Text for stderr in a style, where stderr takes one.
    pub fn paint(&self, text: &str, style: impl Fn(console::Style) -> console::Style) -> String {
        match self.style {
            Style::Live => style(console::Style::new().for_stderr().force_styling(true))
                .apply_to(text)
                .to_string(),
            Style::Plain => text.to_owned(),
        }
    }
}
