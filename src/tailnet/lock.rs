//! Tailnet Lock: the API cannot sign, so the `tailscale` command of this machine does, where it is a signing node.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::devices::Device;
use super::error::clean;
use crate::child::{self, ChildError};
use crate::secret::TailscaleAuthKey;

/// How long the command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// What stands between a key and the signature that wraps it.
const WRAPPED: &str = "--TL";

/// The `tailscale` command of this machine did not do what it was asked for. Never holds a key.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is not installed.
    #[error("there is no `tailscale` command on this machine")]
    NoCommand,
    /// It failed.
    #[error("`{command}` {reason}")]
    Failed {
        /// Its words, without any key.
        command: String,
        /// What happened, masked.
        reason: String,
    },
    /// The key could not be handed over in a file.
    #[error("the key cannot be handed to `tailscale` in a private file: {0}")]
    File(#[source] io::Error),
    /// A text that is no node key.
    #[error("`{}` is no node key, which looks like `nodekey:` and 64 hexadecimal digits", .0.escape_debug())]
    NoNodeKey(String),
}

impl LockError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoCommand => "run this on a signing node of the tailnet: a machine that `tailscale lock status` lists among the trusted keys".to_owned(),
            Self::Failed { .. } => "check `tailscale lock status`: this machine must be a signing node, and you its operator (sudo tailscale set --operator=$USER)".to_owned(),
            Self::File(_) => "check that XDG_RUNTIME_DIR, or else the temporary directory, can be written to".to_owned(),
            Self::NoNodeKey(_) => "run the same command again; if it stays so, sign the node in the admin console".to_owned(),
        }
    }
}

/// How Tailnet Lock stands, as far as this machine and the API can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockState {
    /// This machine, which is of the tailnet, says it is off.
    Off,
    /// This machine, which is of the tailnet, says it is on.
    On,
    /// A device is shut out, so it is on; this machine is not of the tailnet, or has no `tailscale`.
    OnElsewhere,
    /// Nothing says that it is on, and this machine cannot tell.
    Unknown,
}

#[derive(Deserialize)]
struct Status {
    #[serde(rename = "Self")]
    own: Option<OwnNode>,
}

#[derive(Deserialize)]
struct OwnNode {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
struct LockStatus {
    #[serde(rename = "Enabled")]
    enabled: bool,
}

/// Finds out whether keys must be signed. This machine's word counts only where it is one of the tailnet's devices.
pub async fn state(devices: &[Device]) -> LockState {
    let here = match run(&["status", "--json"]).await {
        Ok(text) => serde_json::from_str::<Status>(&text)
            .ok()
            .and_then(|status| status.own)
            .is_some_and(|own| devices.iter().any(|device| device.node_id == own.id)),
        Err(_) => false,
    };
    if here
        && let Ok(text) = run(&["lock", "status", "--json"]).await
        && let Ok(status) = serde_json::from_str::<LockStatus>(&text)
    {
        return if status.enabled {
            LockState::On
        } else {
            LockState::Off
        };
    }
    if devices.iter().any(Device::is_locked_out) {
        LockState::OnElsewhere
    } else {
        LockState::Unknown
    }
}

/// Whether a key carries a signature already.
pub fn is_wrapped(key: &TailscaleAuthKey) -> bool {
    key.expose().contains(WRAPPED)
}

/// Signs a node, so that the others take its traffic.
pub async fn sign_node(node_key: &str) -> Result<(), LockError> {
    let is_node_key = node_key
        .strip_prefix("nodekey:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if !is_node_key {
        return Err(LockError::NoNodeKey(node_key.to_owned()));
    }
    run(&["lock", "sign", node_key]).await.map(drop)
}

/// Signs an auth key, so that nodes that join with it need no signature of their own.
pub async fn wrap(key: &TailscaleAuthKey) -> Result<TailscaleAuthKey, LockError> {
    let file = KeyFile::write(key).map_err(LockError::File)?;
    let argument = format!("file:{}", file.0.display());
    let printed = run(&["lock", "sign", &argument]).await?;
    drop(file);
    let failed = |reason: &str| LockError::Failed {
        command: "tailscale lock sign file:…".to_owned(),
        reason: reason.to_owned(),
    };
    let line = printed
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .ok_or_else(|| failed("printed no key"))?;
    let wrapped = TailscaleAuthKey::parse(line)
        .map_err(|e| failed(&format!("printed something else than a key: {e}")))?;
    let suffix = wrapped.expose().strip_prefix(key.expose());
    if !suffix.is_some_and(|suffix| suffix.starts_with(WRAPPED)) {
        return Err(failed(
            "printed another key than the one it was given, wrapped",
        ));
    }
    Ok(wrapped)
}

/// A key in a file that nobody else can read; removed when this is dropped.
struct KeyFile(PathBuf);

impl KeyFile {
    fn write(key: &TailscaleAuthKey) -> io::Result<Self> {
        let directory = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let path = directory.join(format!("m8trx-key-{}", super::keys::random_mark()));
        // A file that is there already, or a link, is refused: somebody else made it.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let held = Self(path);
        file.write_all(key.expose().as_bytes())?;
        Ok(held)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs `tailscale` and gives what it printed.
async fn run(arguments: &[&str]) -> Result<String, LockError> {
    let command = format!("tailscale {}", arguments.join(" "));
    let failed = |reason: String| LockError::Failed {
        command: command.clone(),
        reason,
    };
    let output = child::run("tailscale", arguments, COMMAND_TIMEOUT)
        .await
        .map_err(|e| match e {
            ChildError::NotStarted(e) if e.kind() == io::ErrorKind::NotFound => {
                LockError::NoCommand
            }
            e => failed(e.to_string()),
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
    let said = last.map_or(String::new(), |line| format!(": {}", clean(line.trim())));
    Err(failed(match output.status.code() {
        Some(code) => format!("ended with exit code {code}{said}"),
        None => format!("was ended by a signal{said}"),
    }))
}
