//! INT, TERM and HUP, heard in one place from a command's first moment to its last.
//!
//! While nothing is being changed, the first of them ends the command. From [`Interrupt::begin`] on it asks the run to
//! stop: no new step, and calls that belong together are finished. A closing terminal sends HUP twice and a CI system may
//! send INT and TERM, so once the run was asked to stop, only another INT ends it at once.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Terminal;
use super::failure::{Failure, Kind};

/// A signal that asks a command to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Interrupt,
    Terminate,
    Hangup,
}

impl Stop {
    const ALL: [Self; 3] = [Self::Interrupt, Self::Terminate, Self::Hangup];

    fn kind(self) -> SignalKind {
        match self {
            Self::Interrupt => SignalKind::interrupt(),
            Self::Terminate => SignalKind::terminate(),
            Self::Hangup => SignalKind::hangup(),
        }
    }

    /// What a shell says of a process that such a signal ended.
    fn exit_code(self) -> u8 {
        u8::try_from(128 + self.kind().as_raw_value()).unwrap_or(130)
    }
}

/// What a signal meets.
enum State {
    /// Nothing is being changed: the command can be left where it stands.
    AtRest,
    /// The command looks for the signal itself: a question, or a view that goes on until Ctrl-C.
    Watched,
    /// Something is being changed.
    Changing {
        /// What is done about the first signal.
        stopping: String,
        /// What is said when a second INT ends the command at once.
        left: Box<dyn Fn() -> Vec<String> + Send>,
    },
}

/// The signals of a command. Clones are one.
#[derive(Clone)]
pub struct Interrupt(Arc<Shared>);

struct Shared {
    first: OnceLock<Stop>,
    asked: CancellationToken,
    at_rest: CancellationToken,
    state: Mutex<State>,
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interrupt").field(&self.0.first).finish()
    }
}

impl Default for Interrupt {
    fn default() -> Self {
        Self(Arc::new(Shared {
            first: OnceLock::new(),
            asked: CancellationToken::new(),
            at_rest: CancellationToken::new(),
            state: Mutex::new(State::AtRest),
        }))
    }
}

impl Interrupt {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen; needs the runtime.
    pub(super) fn listen(&self, terminal: Terminal) -> io::Result<()> {
        let ignored = ignored();
        let heard = |stop: Stop| (!ignored.contains(&stop)).then(|| signal(stop.kind()));
        let [interrupt, terminate, hangup] = Stop::ALL.map(heard);
        let mut signals = Signals {
            interrupt: interrupt.transpose()?,
            terminate: terminate.transpose()?,
            hangup: hangup.transpose()?,
        };
        let interrupt = self.clone();
        tokio::spawn(async move {
            loop {
                interrupt.heard(signals.next().await, &terminal);
            }
        });
        Ok(())
    }

    fn heard(&self, stop: Stop, terminal: &Terminal) {
        if self.0.first.set(stop).is_ok() {
            match &*self.state() {
                State::AtRest => self.0.at_rest.cancel(),
                State::Watched => {}
                State::Changing { stopping, .. } => {
                    let again = if stop == Stop::Interrupt {
                        " again"
                    } else {
                        ""
                    };
                    terminal.say(format!("{stopping} Ctrl-C{again} ends at once."));
                }
            }
            self.0.asked.cancel();
        } else if stop == Stop::Interrupt {
            if let State::Changing { left, .. } = &*self.state() {
                for line in left() {
                    terminal.say(line);
                }
            }
            terminal.restore();
            std::process::exit(i32::from(self.exit_code()));
        }
    }

    /// Resolves when a signal came while nothing was being changed and nothing looked for it.
    pub(super) async fn at_rest(&self) {
        self.0.at_rest.cancelled().await;
    }

    /// From here on something is changed. The token is cancelled by the first signal; `stopping` says what is done then,
    /// and `left` what is said where a second INT ends the command in the middle.
    pub fn begin(
        &self,
        stopping: impl Into<String>,
        left: impl Fn() -> Vec<String> + Send + 'static,
    ) -> CancellationToken {
        *self.state() = State::Changing {
            stopping: stopping.into(),
            left: Box::new(left),
        };
        self.0.asked.clone()
    }

    /// [`Self::begin`] for a run that keeps what it made.
    pub fn begin_run(&self) -> CancellationToken {
        self.begin("Stopping: what is under way is finished first.", Vec::new)
    }

    /// Until the guard is dropped, whoever holds it waits for the signal itself, with [`Watch::requested`].
    pub fn watch(&self) -> Watch {
        let mut state = self.state();
        let was_at_rest = matches!(*state, State::AtRest);
        if was_at_rest {
            *state = State::Watched;
        }
        drop(state);
        Watch {
            interrupt: self.clone(),
            was_at_rest,
        }
    }

    /// Fails once a signal came: for work that is no plan, between its changes.
    pub fn check(&self, what: &str) -> Result<(), Failure> {
        if self.0.asked.is_cancelled() {
            return Err(Failure::words(Kind::Interrupted, what));
        }
        Ok(())
    }

    /// How a command that was interrupted ends: 130, or 143 by TERM, 129 by HUP.
    pub fn exit_code(&self) -> u8 {
        self.0
            .first
            .get()
            .map_or(Kind::Interrupted.exit_code(), |stop| stop.exit_code())
    }
}

/// Somebody looks for the signal.
pub struct Watch {
    interrupt: Interrupt,
    was_at_rest: bool,
}

impl Watch {
    /// Resolves when the end is asked for.
    pub async fn requested(&self) {
        self.interrupt.0.asked.cancelled().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.interrupt.state();
        if self.was_at_rest && matches!(*state, State::Watched) {
            *state = State::AtRest;
        }
    }
}

/// Those that are listened to.
struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    async fn next(&mut self) -> Stop {
        async fn of(signal: &mut Option<Signal>) {
            match signal {
                Some(signal) => {
                    signal.recv().await;
                }
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            () = of(&mut self.interrupt) => Stop::Interrupt,
            () = of(&mut self.terminate) => Stop::Terminate,
            () = of(&mut self.hangup) => Stop::Hangup,
        }
    }
}

/// The signals that whoever started the command wants ignored: `nohup` does that with HUP.
fn ignored() -> Vec<Stop> {
    // Elsewhere than on Linux nothing says so without an unsafe call.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_by(&status)
}

fn ignored_by(status: &str) -> Vec<Stop> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    Stop::ALL
        .into_iter()
        .filter(|stop| mask >> (stop.kind().as_raw_value() - 1) & 1 == 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        assert_eq!(
            ignored_by("Name:\tm8trx\nSigIgn:\t0000000000001001\n"),
            [Stop::Hangup]
        );
        assert_eq!(ignored_by("SigIgn:\t0000000000000002\n"), [Stop::Interrupt]);
        assert_eq!(ignored_by("nothing of the kind"), []);
    }

    #[test]
    fn each_signal_has_the_exit_code_that_shells_give_it() {
        assert_eq!(Stop::ALL.map(Stop::exit_code), [130, 143, 129]);
    }
}
