//! The end of commands that go on until somebody ends them: Ctrl-C, or being told to terminate.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::terminal::failure::{Failure, Kind};

/// Listens from when it is made, so that no signal is lost between two waits.
pub(super) struct Ending {
    interrupt: Signal,
    terminate: Signal,
}

impl Ending {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|e| {
                Failure::words(Kind::Other, format!("signals cannot be listened to: {e}"))
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits until the end is asked for.
    pub(super) async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
