//! Unit files: read with drop-ins, and checked as systemd 249 (Ubuntu 22.04) checks them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::known;

/// Where unit files are looked for, the strongest first. The machine's own `/usr/lib/systemd` is left out: its units belong to the
/// operator's machine.
pub(in crate::host) const UNIT_FOLDERS: [&str; 3] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
];

/// Units that are always there, as on any host. They do nothing.
const BUILT_IN: [&str; 21] = [
    "basic.target",
    "cloud-config.target",
    "cloud-final.service",
    "cloud-init.target",
    "default.target",
    "graphical.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network-pre.target",
    "network.target",
    "nss-lookup.target",
    "paths.target",
    "remote-fs.target",
    "shutdown.target",
    "sockets.target",
    "sysinit.target",
    "systemd-resolved.service",
    "systemd-networkd.service",
    "time-sync.target",
    "timers.target",
];

/// One assignment of a unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assignment {
    section: String,
    key: String,
    value: String,
}

/// A loaded unit.
#[derive(Debug, Clone, Default)]
pub(in crate::host) struct Unit {
    /// The full name, such as `m8trx-brain-heartbeat.timer`.
    pub name: String,
    /// The unit file; none for a built-in unit.
    pub path: Option<PathBuf>,
    /// Drop-ins that were applied.
    pub drop_ins: Vec<PathBuf>,
    /// What systemd logs about the files while it loads them.
    pub warnings: Vec<String>,
    assignments: Vec<Assignment>,
}

/// Why a unit cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) enum LoadError {
    NotFound,
    Masked,
}

impl Unit {
    /// Reads a unit with its drop-ins.
    pub fn load(name: &str) -> Result<Unit, LoadError> {
        Self::load_from(name, &UNIT_FOLDERS.map(PathBuf::from))
    }

    fn load_from(name: &str, folders: &[PathBuf]) -> Result<Unit, LoadError> {
        let mut unit = Unit {
            name: name.to_owned(),
            ..Unit::default()
        };
        let found = folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.symlink_metadata().is_ok());
        match found {
            Some(path)
                if fs::canonicalize(&path).is_ok_and(|real| real == Path::new("/dev/null")) =>
            {
                return Err(LoadError::Masked);
            }
            Some(path) => {
                let text = fs::read(&path).map_err(|_| LoadError::NotFound)?;
                unit.read(&path, &String::from_utf8_lossy(&text));
                unit.path = Some(path);
            }
            None if BUILT_IN.contains(&name) => {}
            None => return Err(LoadError::NotFound),
        }
        for path in drop_ins(name, folders) {
            if let Ok(text) = fs::read(&path) {
                unit.read(&path, &String::from_utf8_lossy(&text));
                unit.drop_ins.push(path);
            }
        }
        Ok(unit)
    }

    fn read(&mut self, path: &Path, text: &str) {
        let mut section = String::new();
        let mut known_section = false;
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let place = format!("{}:{}", path.display(), index + 1);
            let mut line = line.trim().to_owned();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            while line.ends_with('\\') {
                line.pop();
                line.push(' ');
                match lines.next() {
                    // Comments inside a continued line are left out, as systemd does.
                    Some((_, next)) if next.trim_start().starts_with(['#', ';']) => line.push('\\'),
                    Some((_, next)) => line.push_str(next.trim()),
                    None => break,
                }
            }
            if let Some(name) = line.strip_prefix('[') {
                let Some(name) = name.strip_suffix(']') else {
                    self.warnings
                        .push(format!("{place}: Invalid section header '{line}'"));
                    continue;
                };
                section = name.to_owned();
                known_section = known::section(&self.name, name);
                if !known_section && !name.starts_with("X-") {
                    self.warnings
                        .push(format!("{place}: Unknown section '{name}'. Ignoring."));
                }
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                self.warnings
                    .push(format!("{place}: Missing '=', ignoring line."));
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            if section.is_empty() {
                self.warnings
                    .push(format!("{place}: Assignment outside of section. Ignoring."));
                continue;
            }
            if !known_section {
                continue;
            }
            if !known::key(&section, key) {
                if !key.starts_with("X-") {
                    self.warnings.push(format!(
                        "{place}: Unknown key name '{key}' in section '{section}', ignoring."
                    ));
                }
                continue;
            }
            if let Some(problem) = known::problem(key, value) {
                self.warnings.push(format!("{place}: {problem}"));
                continue;
            }
            self.assignments.push(Assignment {
                section: section.clone(),
                key: key.to_owned(),
                value: self.specifiers(value),
            });
        }
    }

    /// Replaces the specifiers that need no more than the name (`man systemd.unit`, "Specifiers").
    fn specifiers(&self, value: &str) -> String {
        let (prefix, instance) = match self
            .name
            .rsplit_once('.')
            .map_or(self.name.as_str(), |(stem, _)| stem)
            .split_once('@')
        {
            Some((prefix, instance)) => (prefix, instance),
            None => (self.stem(), ""),
        };
        let mut expanded = String::new();
        let mut characters = value.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                expanded.push(character);
                continue;
            }
            match characters.next() {
                Some('n') => expanded.push_str(&self.name),
                Some('N') => expanded.push_str(self.stem()),
                Some('p') => expanded.push_str(prefix),
                Some('i' | 'I') => expanded.push_str(instance),
                Some('t') => expanded.push_str("/run"),
                Some('S') => expanded.push_str("/var/lib"),
                Some('C') => expanded.push_str("/var/cache"),
                Some('L') => expanded.push_str("/var/log"),
                Some('E') => expanded.push_str("/etc"),
                Some('T') => expanded.push_str("/tmp"),
                Some('V') => expanded.push_str("/var/tmp"),
                Some('h') => expanded.push_str("/root"),
                Some('u') => expanded.push_str("root"),
                Some('H') => expanded.push_str(
                    &nix::unistd::gethostname()
                        .unwrap_or_default()
                        .to_string_lossy(),
                ),
                Some('%') | None => expanded.push('%'),
                Some(other) => expanded.extend(['%', other]),
            }
        }
        expanded
    }

    /// The name without its type.
    pub fn stem(&self) -> &str {
        self.name
            .rsplit_once('.')
            .map_or(&self.name, |(stem, _)| stem)
    }

    /// The values of a key that may be given several times; an empty one forgets those before it.
    pub fn all(&self, section: &str, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for assignment in &self.assignments {
            if assignment.section == section && assignment.key == key {
                if assignment.value.is_empty() {
                    values.clear();
                } else {
                    values.push(assignment.value.as_str());
                }
            }
        }
        values
    }

    /// The last value of a key.
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.all(section, key).pop()
    }

    /// The names in all values of a key.
    pub fn names(&self, section: &str, key: &str) -> Vec<String> {
        let values = self.all(section, key);
        values
            .iter()
            .flat_map(|value| value.split_whitespace())
            .map(str::to_owned)
            .collect()
    }

    /// All assignments of keys that begin with one of `prefixes`, in order.
    pub fn beginning_with(&self, section: &str, prefixes: &[&str]) -> Vec<(&str, &str)> {
        let ours = |assignment: &&Assignment| {
            assignment.section == section
                && prefixes
                    .iter()
                    .any(|prefix| assignment.key.starts_with(prefix))
        };
        let pairs = self.assignments.iter().filter(ours);
        pairs
            .map(|assignment| (assignment.key.as_str(), assignment.value.as_str()))
            .collect()
    }

    /// A yes-or-no setting.
    pub fn flag(&self, section: &str, key: &str) -> bool {
        self.last(section, key)
            .is_some_and(|value| matches!(value, "1" | "yes" | "true" | "on" | "y" | "t"))
    }

    pub fn description(&self) -> &str {
        self.last("Unit", "Description").unwrap_or(&self.name)
    }

    /// Units that this one pulls in: required ones, then wanted ones, with those that the `.wants` folders name.
    pub fn pulls(&self) -> (Vec<String>, Vec<String>) {
        let mut required = self.names("Unit", "Requires");
        required.extend(self.names("Unit", "BindsTo"));
        let mut wanted = self.names("Unit", "Wants");
        wanted.extend(linked(&self.name, "wants"));
        required.extend(linked(&self.name, "requires"));
        (required, wanted)
    }
}

/// Units enabled for `target`, by the links in its `.wants` or `.requires` folder.
fn linked(target: &str, relation: &str) -> BTreeSet<String> {
    let folders = UNIT_FOLDERS
        .iter()
        .map(|folder| format!("{folder}/{target}.{relation}"));
    let entries = folders
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Drop-ins by file name: the same name in a stronger folder replaces the weaker one.
fn drop_ins(name: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = std::collections::BTreeMap::new();
    for folder in folders.iter().rev() {
        let entries = fs::read_dir(folder.join(format!("{name}.d")))
            .into_iter()
            .flatten()
            .flatten();
        for path in entries.map(|entry| entry.path()) {
            if path
                .extension()
                .is_some_and(|extension| extension == "conf")
            {
                found.insert(path.file_name().map(ToOwned::to_owned), path);
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn load(folder: &tempfile::TempDir, name: &str) -> Unit {
        Unit::load_from(name, &[folder.path().to_owned()]).unwrap()
    }

    #[test]
    fn reads_lists_resets_continuations_and_drop_ins() {
        let folder = folder_with(&[
            (
                "a.service",
                "# comment\n[Unit]\nDescription = An  a\nAfter=x.target \\\n  y.target\n[Service]\nExecStart=/bin/true\nEnvironment=A=1\n",
            ),
            (
                "a.service.d/10-more.conf",
                "[Service]\nEnvironment=\nEnvironment=B=%n\n",
            ),
            ("a.service.d/ignored.txt", "[Service]\nEnvironment=C=3\n"),
        ]);
        let unit = load(&folder, "a.service");
        assert_eq!(unit.description(), "An  a");
        assert_eq!(unit.names("Unit", "After"), ["x.target", "y.target"]);
        assert_eq!(unit.all("Service", "Environment"), ["B=a.service"]);
        assert_eq!(unit.drop_ins.len(), 1);
        assert!(unit.warnings.is_empty(), "{:?}", unit.warnings);
    }

    #[test]
    fn says_what_systemd_says_about_mistakes() {
        let folder = folder_with(&[(
            "a.timer",
            "[Unit]\nDescripton=x\n[Timer]\nOnUnitActiveSec=5 parsecs\nOnBootSec=1min\n[Servce]\nfoo=1\n[Timer]\nnonsense\n",
        )]);
        let unit = load(&folder, "a.timer");
        let path = folder.path().join("a.timer");
        let expected = [
            "2: Unknown key name 'Descripton' in section 'Unit', ignoring.",
            "4: Failed to parse timer value, ignoring: 5 parsecs",
            "6: Unknown section 'Servce'. Ignoring.",
            "9: Missing '=', ignoring line.",
        ]
        .map(|text| format!("{}:{text}", path.display()));
        assert_eq!(unit.warnings, expected);
        assert_eq!(unit.last("Timer", "OnBootSec"), Some("1min"));
        assert_eq!(unit.last("Timer", "OnUnitActiveSec"), None);
    }

    #[test]
    fn missing_and_masked_units() {
        let folder = folder_with(&[]);
        let folders = [folder.path().to_owned()];
        assert_eq!(
            Unit::load_from("no.service", &folders).unwrap_err(),
            LoadError::NotFound
        );
        std::os::unix::fs::symlink("/dev/null", folder.path().join("m.service")).unwrap();
        assert_eq!(
            Unit::load_from("m.service", &folders).unwrap_err(),
            LoadError::Masked
        );
        assert!(Unit::load_from("timers.target", &folders).is_ok());
    }
}
