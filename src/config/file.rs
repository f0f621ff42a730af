//! The configuration file: its form, and reading it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, Environment, Flags};
use crate::secret::{SecretString, SecretText};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) aws: AwsFile,
    pub(super) brain: BrainFile,
    pub(super) tailscale: TailscaleFile,
    pub(super) launch: LaunchFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AwsFile {
    pub(super) profile: Option<String>,
    pub(super) region: Option<String>,
    pub(super) account: Option<String>,
    pub(super) regions: Option<Vec<String>>,
    pub(super) endpoint_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BrainFile {
    pub(super) url: Option<String>,
    pub(super) mint_command: Option<Vec<String>>,
    pub(super) admin_token_file: Option<PathBuf>,
    pub(super) database_url: Option<SecretText>,
    pub(super) database_url_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TailscaleFile {
    pub(super) auth_key_file: Option<PathBuf>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<PathBuf>,
    pub(super) api_url: Option<String>,
    pub(super) tailnet: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LaunchFile {
    pub(super) instance_type: Option<String>,
    pub(super) subnet: Option<String>,
    pub(super) ami: Option<String>,
    pub(super) timeout: Option<String>,
}

/// Reads the file that is named, or the default one if there is one; gives its path with it.
pub(super) fn read(
    flags: &Flags,
    environment: Environment<'_>,
) -> Result<(PathBuf, File), ConfigError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let named = flags
        .config
        .clone()
        .or_else(|| variable("M8TRX_CONFIG").map(PathBuf::from));
    let default = || {
        variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")))
            .map(|dir| dir.join("m8trx/config.toml"))
    };
    let (path, must_exist) = match (named, default()) {
        (Some(path), _) => (path, true),
        (None, Some(path)) => (path, false),
        (None, None) => return Ok((PathBuf::new(), File::default())),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok((path, File::default()));
        }
        Err(e) => {
            return Err(ConfigError::Unreadable {
                path,
                reason: e.to_string(),
            });
        }
    };
    let file: File = toml::from_str(&text).map_err(|e| ConfigError::Invalid {
        line: e.span().map_or(1, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        }),
        reason: e.message().to_owned(),
        path: path.clone(),
    })?;
    if file.brain.database_url.is_some() && readable_by_others(&path) {
        return Err(ConfigError::Permissions(path));
    }
    Ok((path, file))
}

fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Reads a secret that a setting keeps in a file of its own.
pub(super) fn secret_file(origin: &str, path: &Path) -> Result<SecretString, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned().into()),
        Err(e) => Err(ConfigError::Value {
            origin: origin.to_owned(),
            reason: format!("{} cannot be read: {e}", path.display()),
        }),
    }
}
