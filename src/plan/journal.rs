//! The record of a run: JSON lines, versioned, without secrets. Written while it goes on, and read back.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::Event;

/// The version of the journal's form.
pub const SCHEMA: &str = "m8trx.journal/1";

/// A journal being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

/// How many journals are kept, and how many copies of the policy file beside them.
pub const KEPT: usize = 200;

/// A line of a journal, read back.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Recorded {
    /// When it happened.
    pub ts: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event<String>,
}

#[derive(Serialize)]
struct Line<'e> {
    schema: &'static str,
    ts: Timestamp,
    #[serde(flatten)]
    event: &'e Event,
}

impl Journal {
    /// Begins the journal of a run in `directory`, which is made when missing (0700). The file is 0600.
    pub fn create(directory: &Path, command: &str, customer: &str) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
        let path = directory.join(format!(
            "{now}-{}-{command}-{customer}.jsonl",
            std::process::id()
        ));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        prune(directory);
        Ok(Self { file, path })
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one event, as one line in one write.
    pub fn record(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_string(&Line {
            schema: SCHEMA,
            ts: Timestamp::now(),
            event,
        })?;
        line.push('\n');
        self.file.write_all(line.as_bytes())
    }
}

/// The journals of a directory, the newest first: their names begin with the time.
pub fn journals(directory: &Path) -> io::Result<Vec<PathBuf>> {
    newest_first(directory, ".jsonl")
}

fn newest_first(directory: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    Ok(found)
}

/// Removes the oldest, so that no more than [`KEPT`] stay. One that another run removes first is no failure.
fn prune(directory: &Path) {
    for ending in [".jsonl", "-policy.hujson"] {
        let Ok(found) = newest_first(directory, ending) else {
            continue;
        };
        for old in found.iter().skip(KEPT) {
            let _ = std::fs::remove_file(old);
        }
    }
}

/// Reads a journal. A line that was cut off, or is of a later version, is left out.
pub fn read(path: &Path) -> io::Result<Vec<Recorded>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// `$XDG_STATE_HOME/m8trx/runs`, by default `~/.local/state/m8trx/runs`; `None` without a home.
pub fn default_directory(environment: crate::config::Environment<'_>) -> Option<PathBuf> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".local/state")))
        .map(|state| state.join("m8trx/runs"))
}
