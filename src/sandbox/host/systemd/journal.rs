//! The journal: one JSON object a line, written by process 1 and read by `journalctl`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where the host keeps it.
pub(in crate::host) const PATH: &str = "/var/log/journal/system.jsonl";

/// Syslog's priority of ordinary messages.
pub(in crate::host) const INFO: u8 = 6;
pub(in crate::host) const WARNING: u8 = 4;
pub(in crate::host) const NOTICE: u8 = 5;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::host) struct Entry {
    pub time: Timestamp,
    /// The unit it belongs to, if any.
    pub unit: Option<String>,
    /// What stands before the process id.
    pub identifier: String,
    pub pid: i32,
    /// Syslog's priority, 0 (emergency) to 7 (debug).
    pub priority: u8,
    pub message: String,
}

/// The journal while it is written.
#[derive(Debug)]
pub(in crate::host) struct Journal(File);

impl Journal {
    pub fn open(path: &Path) -> io::Result<Journal> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Journal(
            File::options().create(true).append(true).open(path)?,
        ))
    }

    /// Adds an entry. A full disk loses it, as it does with journald.
    pub fn add(
        &mut self,
        unit: Option<&str>,
        identifier: &str,
        pid: i32,
        priority: u8,
        message: &str,
    ) {
        let entry = Entry {
            time: Timestamp::now(),
            unit: unit.map(str::to_owned),
            identifier: identifier.to_owned(),
            pid,
            priority,
            message: message.to_owned(),
        };
        if let Ok(mut line) = serde_json::to_vec(&entry) {
            line.push(b'\n');
            let _ = self.0.write_all(&line);
        }
    }

    /// What the manager says about a unit.
    pub fn manager(&mut self, unit: Option<&str>, priority: u8, message: &str) {
        self.add(unit, "systemd", 1, priority, message);
    }
}

/// All entries, the oldest first. A line that is still being written is left out.
pub(in crate::host) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

/// Splits syslog's `<3>` from the front of a line.
pub(in crate::host) fn split_priority(line: &str, default: u8) -> (u8, &str) {
    let split = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match split.and_then(|(number, rest)| Some((number.parse::<u8>().ok()?, rest))) {
        // Facility and priority in one number, as syslog writes them.
        Some((number, rest)) if number < 192 => (number & 7, rest),
        _ => (default, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_half_lines_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal/x.jsonl");
        assert!(read(&path).unwrap().is_empty());
        let mut journal = Journal::open(&path).unwrap();
        journal.add(Some("a.service"), "a", 7, 3, "no \"route\"\tout");
        journal.manager(None, INFO, "hello");
        journal.0.write_all(b"{\"time\":").unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].message, "no \"route\"\tout");
        assert_eq!(entries[1].identifier, "systemd");
    }

    #[test]
    fn priorities_are_split_off() {
        assert_eq!(split_priority("<3>failed", 6), (3, "failed"));
        assert_eq!(split_priority("<14>user.info", 6), (6, "user.info"));
        assert_eq!(split_priority("<html>", 6), (6, "<html>"));
        assert_eq!(split_priority("plain", 6), (6, "plain"));
    }
}
