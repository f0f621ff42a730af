//! What `systemctl` asks process 1, one JSON line each way over a Unix socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The socket, where systemd has its own.
pub(in crate::host) const SOCKET: &str = "/run/systemd/private";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::host) enum Verb {
    Start,
    Stop,
    Restart,
    /// Restart only what runs.
    TryRestart,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::host) enum Request {
    /// `daemon-reload`.
    Reload,
    /// Start or stop units; the reply comes when the jobs are done, or at once with `no_block`.
    Job {
        verb: Verb,
        units: Vec<String>,
        no_block: bool,
    },
    /// Forget failures: of these units, or of all.
    ResetFailed(Vec<String>),
    /// What is known about these units, or with none about all that are loaded.
    Units(Vec<String>),
    /// `running`, `starting` or `degraded`.
    SystemState,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::host) enum Reply {
    Done,
    Jobs(Vec<JobResult>),
    Units(Vec<UnitView>),
    SystemState(String),
    Refused(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::host) struct JobResult {
    pub unit: String,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::host) enum Outcome {
    Done,
    /// The job was not even made: the text after `Failed to start x: `.
    Refused(String),
    /// A unit it needs did not start.
    Dependency,
    /// The job failed with this result of the unit.
    Failed(String),
}

/// What is known about one unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::host) struct UnitView {
    pub id: String,
    pub description: String,
    /// `loaded`, `not-found`, `masked` or `bad-setting`.
    pub load: String,
    pub active: String,
    pub sub: String,
    pub result: String,
    pub fragment: Option<String>,
    pub drop_ins: Vec<String>,
    pub main_pid: i32,
    /// Exit status of the last main process.
    pub status: i32,
    pub since: Option<Timestamp>,
    pub next_elapse: Option<Timestamp>,
    pub last_trigger: Option<Timestamp>,
    pub triggers: Option<String>,
    /// The files have changed since they were loaded.
    pub need_reload: bool,
}

/// Asks process 1 and waits for the answer.
pub(in crate::host) fn ask(request: &Request) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(SOCKET)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
