//! Each setting with where it comes from, for `m8trx config show` and `m8trx doctor`; nothing is checked here, and no secret
//! is read.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::file;
use super::{ConfigError, Environment, Flags};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An option of the command line.
    Flag(&'static str),
    /// A variable of the environment.
    Variable(&'static str),
    /// The configuration file.
    File(PathBuf),
    /// Nothing says otherwise.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `brain.url`: its place in the configuration file.
    pub key: String,
    /// Its value; `None` where it is not set. Secrets are masked.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it names a file with a secret.
    pub is_secret_file: bool,
}

/// A setting, and where it may come from.
pub struct Setting {
    /// Its place in the configuration file.
    pub key: &'static str,
    /// Its variable of the environment.
    pub variable: Option<&'static str>,
    /// What holds where nothing sets it.
    pub default: Option<&'static str>,
    /// What it is for.
    pub meaning: &'static str,
}

const fn setting(
    key: &'static str,
    variable: Option<&'static str>,
    default: Option<&'static str>,
    meaning: &'static str,
) -> Setting {
    Setting {
        key,
        variable,
        default,
        meaning,
    }
}

/// Every setting, in the order of the configuration file.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("aws.profile", Some("AWS_PROFILE"), None, "AWS profile to take credentials and region from"),
    setting("aws.region", Some("AWS_REGION"), None, "AWS region"),
    setting("aws.account", None, None, "the only account that may be worked in"),
    setting("aws.regions", None, None, "the only regions that may be worked in, as a list"),
    setting("aws.endpoint_url", Some("AWS_ENDPOINT_URL"), None, "one endpoint for every AWS service"),
    setting("brain.url", Some("M8TRX_BRAIN_URL"), None, "the brain's URL, until one is stored in /m8trx/brain-url"),
    setting("brain.mint_command", Some("M8TRX_MINT_COMMAND"), None, "command that mints a brain key and prints it"),
    setting("brain.admin_token_file", Some("M8TRX_BRAIN_ADMIN_TOKEN_FILE"), None, "file with the brain's admin token, to mint keys by its API"),
    setting("brain.database_url_file", Some("M8TRX_BRAIN_DATABASE_URL_FILE"), None, "file with the URL of the brain's PostgreSQL, to read events from it"),
    setting("brain.database_url", None, None, "the same in the configuration file itself, which must be yours alone then"),
    setting("tailscale.client_id", Some("M8TRX_TAILSCALE_CLIENT_ID"), None, "id of the OAuth client"),
    setting("tailscale.client_secret_file", Some("M8TRX_TAILSCALE_CLIENT_SECRET_FILE"), None, "file with its secret"),
    setting("tailscale.policy.client_id", Some("M8TRX_TAILSCALE_POLICY_CLIENT_ID"), None, "id of another OAuth client, for the policy file alone"),
    setting("tailscale.policy.client_secret_file", Some("M8TRX_TAILSCALE_POLICY_CLIENT_SECRET_FILE"), None, "file with its secret"),
    setting("tailscale.tailnet", Some("M8TRX_TAILSCALE_TAILNET"), Some("-"), "the tailnet; - is the client's own"),
    setting("tailscale.api_url", Some("M8TRX_TAILSCALE_API_URL"), Some("https://api.tailscale.com"), "Tailscale's API"),
    setting("tailscale.auth_key_file", Some("M8TRX_TAILSCALE_KEY_FILE"), None, "file with a Tailscale auth key, where no OAuth client mints them"),
    setting("launch.instance_type", None, Some("t3.small"), "instance type of new hosts"),
    setting("launch.subnet", None, None, "subnet of new hosts, instead of the default VPC"),
    setting("launch.ami", None, None, "image of new hosts, instead of Ubuntu 22.04"),
    setting("launch.timeout", None, Some("15m"), "how long to wait for the first heartbeat"),
];

/// The configuration file that is read, whether it is there or not.
pub fn file(flags: &Flags, environment: Environment<'_>) -> Option<PathBuf> {
    file::located(flags, environment).map(|(path, _)| path)
}

/// Every setting that is known, and what else the file has.
pub fn settings(flags: &Flags, environment: Environment<'_>) -> Result<Vec<Shown>, ConfigError> {
    let (path, table) = match file::text(flags, environment)? {
        Some((path, text)) => {
            let table: Table = toml::from_str(&text).unwrap_or_default();
            (path, table)
        }
        None => (PathBuf::new(), Table::new()),
    };
    let mut in_file: Vec<(String, &Value)> = Vec::new();
    leaves("", &table, &mut in_file);
    let mut shown: Vec<Shown> = SETTINGS
        .iter()
        .map(|setting| {
            let of_file = in_file.iter().find(|(key, _)| key == setting.key);
            let (value, origin) = of(
                setting,
                of_file.map(|(_, value)| *value),
                flags,
                environment,
                &path,
            );
            Shown {
                key: setting.key.to_owned(),
                value,
                origin,
                is_secret_file: is_secret_file(setting.key),
            }
        })
        .collect();
    for (key, value) in in_file {
        if !SETTINGS.iter().any(|setting| setting.key == key) {
            shown.push(Shown {
                value: Some(plain(&key, value, &path)),
                origin: Origin::File(path.clone()),
                is_secret_file: is_secret_file(&key),
                key,
            });
        }
    }
    Ok(shown)
}

/// Every value of a table, by its place.
fn leaves<'t>(place: &str, table: &'t Table, found: &mut Vec<(String, &'t Value)>) {
    for (key, value) in table {
        let key = if place.is_empty() {
            key.clone()
        } else {
            format!("{place}.{key}")
        };
        match value {
            Value::Table(below) => leaves(&key, below, found),
            value => found.push((key, value)),
        }
    }
}

fn of(
    setting: &Setting,
    in_file: Option<&Value>,
    flags: &Flags,
    environment: Environment<'_>,
    path: &Path,
) -> (Option<String>, Origin) {
    let by_flag = match setting.key {
        "aws.profile" => flags.profile.clone().map(|value| (value, "--profile")),
        "aws.region" => flags.region.clone().map(|value| (value, "--region")),
        "aws.account" => flags
            .expect_account
            .clone()
            .map(|value| (value, "--expect-account")),
        "aws.endpoint_url" => flags
            .endpoint_url
            .clone()
            .map(|value| (value, "--endpoint-url")),
        _ => None,
    };
    if let Some((value, flag)) = by_flag {
        return (Some(value), Origin::Flag(flag));
    }
    // The SDK knows two names of this one.
    let second = (setting.key == "aws.region").then_some("AWS_DEFAULT_REGION");
    for name in setting.variable.into_iter().chain(second) {
        if let Some(value) = environment(name).filter(|value| !value.is_empty()) {
            return (Some(value), Origin::Variable(name));
        }
    }
    match in_file {
        Some(value) => (
            Some(plain(setting.key, value, path)),
            Origin::File(path.to_owned()),
        ),
        None => (setting.default.map(str::to_owned), Origin::Default),
    }
}

fn is_secret_file(key: &str) -> bool {
    matches!(
        key,
        "brain.admin_token_file"
            | "brain.database_url_file"
            | "tailscale.client_secret_file"
            | "tailscale.auth_key_file"
    ) || key.ends_with("client_secret_file")
}

/// What is neither text nor a list, as JSON has it, which is how TOML writes numbers and truth values.
fn json(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A value of the file in one line; a password is masked, and a relative path is shown as it is meant.
fn plain(key: &str, value: &Value, path: &Path) -> String {
    match value {
        _ if key == "brain.database_url" => "****".to_owned(),
        Value::String(text) if key.ends_with("_file") => {
            let beside = path.parent().map(|directory| directory.join(text));
            beside.map_or(text.clone(), |path| path.display().to_string())
        }
        Value::String(text) => text.clone(),
        Value::Array(words) => {
            let words = words.iter().map(|word| match word {
                Value::String(text) => text.clone(),
                other => json(other),
            });
            shell_words::join(words)
        }
        other => json(other),
    }
}

/// The files with secrets that settings name, each with what names it.
pub fn secret_files(flags: &Flags, environment: Environment<'_>) -> Vec<(String, PathBuf)> {
    let shown = settings(flags, environment).unwrap_or_default();
    shown
        .into_iter()
        .filter(|setting| setting.is_secret_file)
        .filter_map(|setting| {
            let origin = match &setting.origin {
                Origin::Variable(name) => (*name).to_owned(),
                _ => setting.key.clone(),
            };
            Some((origin, PathBuf::from(setting.value?)))
        })
        .collect()
}
