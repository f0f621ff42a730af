//! What of the file system a unit asks for: conditions on it, folders of its own, credentials.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::manager::Manager;
use super::unit::Unit;

/// Folders that systemd makes for a service, with where they go.
pub(super) const DIRECTORIES: [(&str, &str); 5] = [
    ("RuntimeDirectory", "/run"),
    ("StateDirectory", "/var/lib"),
    ("CacheDirectory", "/var/cache"),
    ("LogsDirectory", "/var/log"),
    ("ConfigurationDirectory", "/etc"),
];

impl Manager {
    /// `Some(is_assert)` where a condition of the unit does not hold.
    pub(super) fn unmet_condition(&self, name: &str) -> Option<bool> {
        let unit = &self.units.get(name)?.unit;
        unit.beginning_with("Unit", &["Condition", "Assert"])
            .into_iter()
            .find_map(|(key, value)| {
                let assert = key.starts_with("Assert");
                let (value, wanted) = value
                    .strip_prefix('!')
                    .map_or((value, true), |value| (value, false));
                let path = Path::new(value.trim_start_matches('|').trim());
                let holds = match key
                    .trim_start_matches("Condition")
                    .trim_start_matches("Assert")
                {
                    "PathExists" => path.exists(),
                    "PathIsDirectory" => path.is_dir(),
                    "PathIsSymbolicLink" => path.is_symlink(),
                    "DirectoryNotEmpty" => {
                        fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
                    }
                    "FileNotEmpty" => fs::metadata(path)
                        .is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0),
                    "FileIsExecutable" => fs::metadata(path).is_ok_and(|metadata| {
                        metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
                    }),
                    // The others ask about the machine; a host of the sandbox is as any other.
                    _ => wanted,
                };
                (holds != wanted).then_some(assert)
            })
    }
}

pub(super) fn directory_variable(key: &str) -> String {
    // RuntimeDirectory → RUNTIME_DIRECTORY
    format!(
        "{}_DIRECTORY",
        key.trim_end_matches("Directory").to_ascii_uppercase()
    )
}

pub(super) fn make_directories(unit: &Unit) -> io::Result<()> {
    for (key, base) in DIRECTORIES {
        let mode = unit
            .last("Service", &format!("{key}Mode"))
            .and_then(|mode| u32::from_str_radix(mode, 8).ok())
            .unwrap_or(0o755);
        for name in unit.names("Service", key) {
            let path = Path::new(base).join(name);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// `LoadCredential=name:path`, as root-only copies in the unit's own folder.
pub(super) fn load_credentials(unit: &Unit) -> io::Result<Option<String>> {
    let credentials = unit.all("Service", "LoadCredential");
    if credentials.is_empty() {
        return Ok(None);
    }
    let folder = format!("/run/credentials/{}", unit.name);
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    for credential in credentials {
        let (name, path) = credential
            .split_once(':')
            .unwrap_or((credential, credential));
        let content =
            fs::read(path).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        let target = Path::new(&folder).join(name);
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(&target, content)?;
        fs::set_permissions(&target, Permissions::from_mode(0o400))?;
    }
    Ok(Some(folder))
}
