//! Settings: flags over environment over file over defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::aws::{AwsSettings, StaticCredentials};
use crate::brain::BrainUrl;
use crate::secret::SecretString;

/// How long onboarding waits for the first heartbeat unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The instance type unless told otherwise: 2 vCPUs and 2 GiB, enough for Docker and an agent at rest.
pub const DEFAULT_INSTANCE_TYPE: &str = "t3.small";

/// Everything a command may need to know, resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How AWS is reached.
    pub aws: AwsSettings,
    /// The brain and how its keys are minted.
    pub brain: BrainSettings,
    /// Where a Tailscale auth key is read from instead of a prompt.
    pub tailscale_key_file: Option<PathBuf>,
    /// `t3.small`, for example.
    pub instance_type: String,
    /// A subnet instead of the default VPC.
    pub subnet: Option<String>,
    /// An image instead of Ubuntu 22.04.
    pub ami: Option<String>,
    /// How long to wait for the first heartbeat.
    pub timeout: Duration,
    /// Whether values that no flag gave are offered at a prompt instead of being taken as they are.
    pub suggest: bool,
}

/// The brain and how its keys are minted.
#[derive(Debug, Clone, Default)]
pub struct BrainSettings {
    /// The URL to store where none is stored yet.
    pub url: Option<BrainUrl>,
    /// Whether the URL came from a flag, so that another one already stored is a contradiction.
    pub url_is_flag: bool,
    /// The command that mints a key, as an argv; `{customer}` and `{label}` stand for these.
    pub mint_command: Option<Vec<String>>,
    /// A file with the brain's admin token, to mint by `POST /v1/keys`.
    pub admin_token_file: Option<PathBuf>,
    /// A file with a brain key minted elsewhere.
    pub key_file: Option<PathBuf>,
    /// The brain's PostgreSQL, where heartbeats are read from it instead of over HTTP.
    pub database_url: Option<SecretString>,
}

/// What the command line gave.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--profile`
    pub profile: Option<String>,
    /// `--region`
    pub region: Option<String>,
    /// `--endpoint-url`
    pub endpoint_url: Option<String>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--brain-url`
    pub brain_url: Option<String>,
    /// `--mint-command`
    pub mint_command: Option<String>,
    /// `--brain-key-file`
    pub brain_key_file: Option<PathBuf>,
    /// `--tailscale-key-file`
    pub tailscale_key_file: Option<PathBuf>,
    /// `--instance-type`
    pub instance_type: Option<String>,
    /// `--subnet`
    pub subnet: Option<String>,
    /// `--ami`
    pub ami: Option<String>,
    /// `--timeout`
    pub timeout: Option<Duration>,
}

/// A setting that cannot be used. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named by `--config` or `M8TRX_CONFIG`, or the default one, cannot be read.
    #[error("the configuration file {path} cannot be read: {reason}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Not TOML, an unknown key, a value of the wrong type.
    #[error("the configuration file {path}, line {line}: {reason}")]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, without the text of the line: it may hold a password.
        reason: String,
    },
    /// The file holds a password and others may read it.
    #[error("the configuration file {0} holds `brain.database_url` and can be read by others")]
    Permissions(PathBuf),
    /// A value of a flag, a variable or the file.
    #[error("{origin}: {reason}")]
    Value {
        /// Where it came from: `--brain-url`, `AWS_ENDPOINT_URL`, `brain.url in …`.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ConfigError {
    /// What the operator can do about it, where the message does not say it already.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Permissions(path) => Some(format!("chmod 600 {}", path.display())),
            _ => None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    aws: AwsFile,
    brain: BrainFile,
    tailscale: TailscaleFile,
    launch: LaunchFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AwsFile {
    profile: Option<String>,
    region: Option<String>,
    endpoint_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BrainFile {
    url: Option<String>,
    mint_command: Option<Vec<String>>,
    admin_token_file: Option<PathBuf>,
    database_url: Option<SecretText>,
    database_url_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TailscaleFile {
    auth_key_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LaunchFile {
    instance_type: Option<String>,
    subnet: Option<String>,
    ami: Option<String>,
    timeout: Option<String>,
}

#[derive(Debug, Clone)]
struct SecretText(SecretString);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// Where variables of the environment come from: the process, or a sandbox instead of it.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Resolves the settings of the real world: the process's environment and the configuration file.
    pub fn resolve(flags: &Flags, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let file = read_file(flags, environment)?;
        Self::layered(flags, environment, file)
    }

    /// Resolves the settings of a sandbox: its environment stands for the process's, and no file is read, so that
    /// nothing real can be reached by a forgotten setting.
    pub fn of_sandbox(flags: &Flags, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let mut settings = Self::layered(flags, environment, (PathBuf::new(), File::default()))?;
        settings.suggest = true;
        if let (Some(access_key_id), Some(secret)) = (
            environment("AWS_ACCESS_KEY_ID"),
            environment("AWS_SECRET_ACCESS_KEY"),
        ) {
            settings.aws.credentials = Some(StaticCredentials {
                access_key_id,
                secret_access_key: secret.into(),
            });
        }
        settings.aws.region = settings.aws.region.or_else(|| environment("AWS_REGION"));
        Ok(settings)
    }

    fn layered(
        flags: &Flags,
        environment: Environment<'_>,
        (path, file): (PathBuf, File),
    ) -> Result<Self, ConfigError> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let in_file = |key: &str| format!("{key} in {}", path.display());
        // A relative path in the file means relative to the file.
        let beside = |given: PathBuf| path.parent().map_or(given.clone(), |dir| dir.join(&given));
        // The SDK only logs an invalid URL in these and then talks to the real AWS: refuse it here.
        for name in [
            "AWS_ENDPOINT_URL_SSM",
            "AWS_ENDPOINT_URL_IAM",
            "AWS_ENDPOINT_URL_EC2",
            "AWS_ENDPOINT_URL_STS",
        ] {
            if let Some(url) = environment(name) {
                endpoint(name, &url)?;
            }
        }
        let endpoint_url = if let Some(url) = &flags.endpoint_url {
            Some(endpoint("--endpoint-url", url)?)
        } else if let Some(url) = environment("AWS_ENDPOINT_URL") {
            Some(endpoint("AWS_ENDPOINT_URL", &url)?)
        } else if let Some(url) = &file.aws.endpoint_url {
            Some(endpoint(&in_file("aws.endpoint_url"), url)?)
        } else {
            None
        };
        let profile = flags.profile.clone().or_else(|| {
            file.aws
                .profile
                .filter(|_| variable("AWS_PROFILE").is_none())
        });
        let region = flags.region.clone().or_else(|| {
            file.aws.region.filter(|_| {
                variable("AWS_REGION").is_none() && variable("AWS_DEFAULT_REGION").is_none()
            })
        });
        if let Some(region) = &region {
            check_region(region)?;
        }

        let (url, url_is_flag) = if let Some(url) = &flags.brain_url {
            (Some(brain_url("--brain-url", url)?), true)
        } else if let Some(url) = variable("M8TRX_BRAIN_URL") {
            (Some(brain_url("M8TRX_BRAIN_URL", &url)?), false)
        } else if let Some(url) = &file.brain.url {
            (Some(brain_url(&in_file("brain.url"), url)?), false)
        } else {
            (None, false)
        };
        let mint_command = if let Some(command) = &flags.mint_command {
            Some(words("--mint-command", command)?)
        } else if let Some(command) = variable("M8TRX_MINT_COMMAND") {
            Some(words("M8TRX_MINT_COMMAND", &command)?)
        } else {
            match file.brain.mint_command {
                Some(words) if words.is_empty() => {
                    return Err(ConfigError::Value {
                        origin: in_file("brain.mint_command"),
                        reason: "the command has no words".to_owned(),
                    });
                }
                other => other,
            }
        };
        let database_url = if let Some(given) = variable("M8TRX_BRAIN_DATABASE_URL_FILE") {
            Some(secret_file(
                "M8TRX_BRAIN_DATABASE_URL_FILE",
                Path::new(&given),
            )?)
        } else if let Some(given) = file.brain.database_url_file {
            let origin = in_file("brain.database_url_file");
            Some(secret_file(&origin, &beside(given))?)
        } else {
            file.brain.database_url.map(|text| text.0)
        };
        let timeout = match (flags.timeout, &file.launch.timeout) {
            (Some(timeout), _) => timeout,
            (None, Some(text)) => parse_duration(text).map_err(|reason| ConfigError::Value {
                origin: in_file("launch.timeout"),
                reason,
            })?,
            (None, None) => DEFAULT_TIMEOUT,
        };
        Ok(Self {
            aws: AwsSettings {
                region,
                profile,
                endpoint_url,
                credentials: None,
            },
            brain: BrainSettings {
                url,
                url_is_flag,
                mint_command,
                admin_token_file: variable("M8TRX_BRAIN_ADMIN_TOKEN_FILE")
                    .map(PathBuf::from)
                    .or_else(|| file.brain.admin_token_file.map(beside)),
                key_file: flags.brain_key_file.clone(),
                database_url,
            },
            tailscale_key_file: flags
                .tailscale_key_file
                .clone()
                .or_else(|| variable("M8TRX_TAILSCALE_KEY_FILE").map(PathBuf::from))
                .or_else(|| file.tailscale.auth_key_file.map(beside)),
            instance_type: flags
                .instance_type
                .clone()
                .or(file.launch.instance_type)
                .unwrap_or_else(|| DEFAULT_INSTANCE_TYPE.to_owned()),
            subnet: flags.subnet.clone().or(file.launch.subnet),
            ami: flags.ami.clone().or(file.launch.ami),
            timeout,
            suggest: false,
        })
    }
}

fn read_file(flags: &Flags, environment: Environment<'_>) -> Result<(PathBuf, File), ConfigError> {
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

fn secret_file(origin: &str, path: &Path) -> Result<SecretString, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned().into()),
        Err(e) => Err(ConfigError::Value {
            origin: origin.to_owned(),
            reason: format!("{} cannot be read: {e}", path.display()),
        }),
    }
}

fn endpoint(origin: &str, text: &str) -> Result<Url, ConfigError> {
    let refuse = |reason: &str| ConfigError::Value {
        origin: origin.to_owned(),
        reason: format!("`{}` is not an endpoint URL: {reason}", text.escape_debug()),
    };
    let url = Url::parse(text.trim()).map_err(|e| refuse(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("it must begin with http:// or https://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("it names no host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it must end before any `?` or `#`"));
    }
    Ok(url)
}

fn check_region(region: &str) -> Result<(), ConfigError> {
    let well_formed = !region.is_empty()
        && region
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && region.contains('-');
    if well_formed {
        Ok(())
    } else {
        Err(ConfigError::Value {
            origin: "region".to_owned(),
            reason: format!(
                "`{}` is not a region; it looks like `eu-central-1`",
                region.escape_debug()
            ),
        })
    }
}

fn brain_url(origin: &str, text: &str) -> Result<BrainUrl, ConfigError> {
    text.parse().map_err(|e| ConfigError::Value {
        origin: origin.to_owned(),
        reason: format!("{e}"),
    })
}

fn words(origin: &str, command: &str) -> Result<Vec<String>, ConfigError> {
    match shell_words::split(command) {
        Ok(words) if !words.is_empty() => Ok(words),
        Ok(_) => Err(ConfigError::Value {
            origin: origin.to_owned(),
            reason: "the command has no words".to_owned(),
        }),
        Err(e) => Err(ConfigError::Value {
            origin: origin.to_owned(),
            reason: format!("the command cannot be split into words: {e}"),
        }),
    }
}

/// A duration such as `90s`, `10m` or `1h30m`; longer than zero and at most a day.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = |why: &str| {
        format!(
            "`{}` {why}; write it like `90s` or `10m`",
            text.escape_debug()
        )
    };
    let span: jiff::SignedDuration = text
        .trim()
        .parse()
        .map_err(|_| refuse("is not a duration"))?;
    let duration = Duration::try_from(span).map_err(|_| refuse("is negative"))?;
    if duration.is_zero() {
        return Err(refuse("is no time at all"));
    }
    if duration > Duration::from_secs(24 * 60 * 60) {
        return Err(refuse("is longer than a day"));
    }
    Ok(duration)
}

/// Whether a URL stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &Flags, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::resolve(flags, &|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn file(text: &str) -> (tempfile::TempDir, Flags) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let flags = Flags {
            config: Some(path),
            ..Flags::default()
        };
        (directory, flags)
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let (_directory, mut flags) =
            file("[brain]\nurl = 'http://file'\n[launch]\ntimeout = '90s'\n");
        let settings = resolve(&flags, &[]).unwrap();
        assert_eq!(settings.brain.url.unwrap().as_str(), "http://file");
        assert_eq!(settings.timeout, Duration::from_secs(90));
        assert_eq!(settings.instance_type, DEFAULT_INSTANCE_TYPE);
        let variables = [("M8TRX_BRAIN_URL", "http://environment")];
        let settings = resolve(&flags, &variables).unwrap();
        assert_eq!(settings.brain.url.unwrap().as_str(), "http://environment");
        flags.brain_url = Some("http://flag".to_owned());
        let settings = resolve(&flags, &variables).unwrap();
        assert_eq!(settings.brain.url.unwrap().as_str(), "http://flag");
        assert!(settings.brain.url_is_flag);
    }

    #[test]
    fn an_invalid_endpoint_never_falls_through_to_the_real_aws() {
        for name in [
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_SSM",
            "AWS_ENDPOINT_URL_EC2",
        ] {
            for url in ["127.0.0.1:4566", "ftp://x", "http://", "", "http://x/?a"] {
                let error = resolve(&Flags::default(), &[(name, url)])
                    .unwrap_err()
                    .to_string();
                assert!(error.starts_with(&format!("{name}: ")), "{error}");
            }
        }
    }

    #[test]
    fn mistakes_in_the_file_are_named_by_line_without_its_text() {
        let (_directory, flags) = file("[brain]\n\ndatabase_url = 5 # postgresql://u:hunter2@h\n");
        let error = resolve(&flags, &[]).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        let (_directory, flags) = file("[brian]\nurl = 'x'\n");
        let error = resolve(&flags, &[]).unwrap_err().to_string();
        assert!(
            error.contains("line 1") && error.contains("brian"),
            "{error}"
        );
        let flags = Flags {
            config: Some("/nonexistent/config.toml".into()),
            ..Flags::default()
        };
        assert!(matches!(
            resolve(&flags, &[]),
            Err(ConfigError::Unreadable { .. })
        ));
    }

    #[test]
    fn a_password_in_a_readable_file_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_directory, flags) = file("[brain]\ndatabase_url = 'postgresql://u:p@h/b'\n");
        let path = flags.config.clone().unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            resolve(&flags, &[]),
            Err(ConfigError::Permissions(_))
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(resolve(&flags, &[]).unwrap().brain.database_url.is_some());
    }

    #[test]
    fn commands_are_split_as_a_shell_would() {
        let flags = Flags {
            mint_command: Some("ssh brain 'node bin/mint-key.js'".to_owned()),
            ..Flags::default()
        };
        assert_eq!(
            resolve(&flags, &[]).unwrap().brain.mint_command.unwrap(),
            ["ssh", "brain", "node bin/mint-key.js"]
        );
        for wrong in ["", "  ", "node 'bin"] {
            let flags = Flags {
                mint_command: Some(wrong.to_owned()),
                ..Flags::default()
            };
            assert!(resolve(&flags, &[]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_read_with_units() {
        assert_eq!(parse_duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        for wrong in ["", "10", "ten minutes", "-5s", "0s", "25h", "5 parsecs"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
