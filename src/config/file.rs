//! The configuration file: its form, and reading it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, Environment, Flags};
use crate::secret::{SecretString, SecretText};
use crate::secret_file;

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
    pub(super) policy: PolicyClientFile,
}

/// The OAuth client for the policy file, where it has one of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PolicyClientFile {
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LaunchFile {
    pub(super) instance_type: Option<String>,
    pub(super) subnet: Option<String>,
    pub(super) ami: Option<String>,
    pub(super) timeout: Option<String>,
}

/// The file that is named, which must be there, or the default one, which need not.
pub(super) fn located(flags: &Flags, environment: Environment<'_>) -> Option<(PathBuf, bool)> {
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
    match named {
        Some(path) => Some((path, true)),
        None => default().map(|path| (path, false)),
    }
}

/// The text of the file, where there is one, and its path.
pub(super) fn text(
    flags: &Flags,
    environment: Environment<'_>,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let Some((path, must_exist)) = located(flags, environment) else {
        return Ok(None);
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(e) => Err(ConfigError::Unreadable {
            path,
            reason: e.to_string(),
        }),
    }
}

/// Reads the file that is named, or the default one if there is one; gives its path with it.
pub(super) fn read(
    flags: &Flags,
    environment: Environment<'_>,
) -> Result<(PathBuf, File), ConfigError> {
    let Some((path, text)) = text(flags, environment)? else {
        let path = located(flags, environment).map(|(path, _)| path);
        return Ok((path.unwrap_or_default(), File::default()));
    };
    let file: File = toml::from_str(&text).map_err(|e| ConfigError::Invalid {
        line: e.span().map_or(1, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        }),
        reason: e.message().to_owned(),
        path: path.clone(),
    })?;
    if file.brain.database_url.is_some() && secret_file::check(&path).is_err() {
        return Err(ConfigError::Permissions(path));
    }
    Ok((path, file))
}

/// Reads a secret that a setting keeps in a file of its own.
pub(super) fn secret_file(origin: &str, path: &Path) -> Result<SecretString, ConfigError> {
    if let Err(problem @ secret_file::Problem::Open(_)) = secret_file::check(path) {
        return Err(ConfigError::SecretFile {
            origin: origin.to_owned(),
            path: path.to_owned(),
            problem,
        });
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned().into()),
        Err(e) => Err(ConfigError::Value {
            origin: origin.to_owned(),
            reason: format!("{} cannot be read: {e}", path.display()),
        }),
    }
}
