//! Settings: flags over environment over file over defaults.

mod file;
pub mod shown;
mod tailscale;
mod value;

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::aws::{AwsSettings, Expected, ProfileChoice, ProfileOrigin, StaticCredentials};
use crate::brain::BrainUrl;
use crate::secret::SecretString;
use crate::tailnet::TailnetSettings;

use file::{AwsFile, File, secret_file};
use value::{brain_url, check_account, check_region, endpoint, words};
pub use value::{is_loopback, parse_ago, parse_duration, parse_region};

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
    /// Tailscale's API, where an OAuth client is configured.
    pub tailnet: Option<TailnetSettings>,
    /// `t3.small`, for example.
    pub instance_type: String,
    /// A subnet instead of the default VPC.
    pub subnet: Option<String>,
    /// An image instead of Ubuntu 22.04.
    pub ami: Option<String>,
    /// How long to wait for the first heartbeat.
    pub timeout: Duration,
    /// How closely a host is watched.
    pub pace: Pace,
    /// Whether values that no flag gave are offered at a prompt instead of being taken as they are.
    pub suggest: bool,
}

/// How closely a host is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The longest pause between two looks at EC2 and the console.
    pub host: Duration,
    /// How long the brain may take to show a heartbeat which, as the host says, it has accepted.
    pub accepted: Duration,
}

impl Default for Pace {
    /// EC2 limits how often an account may ask, and the brain may answer from a replica of its database.
    fn default() -> Self {
        Self {
            host: Duration::from_secs(5),
            accepted: Duration::from_secs(60),
        }
    }
}

impl Pace {
    /// Nothing limits and nothing lags on this machine.
    pub const OF_SANDBOX: Self = Self {
        host: Duration::from_millis(700),
        accepted: Duration::from_secs(1),
    };
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
    /// `--expect-account`
    pub expect_account: Option<String>,
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
    /// A file with a secret that others may read.
    #[error("{origin}: {} {problem}", .path.display())]
    SecretFile {
        /// What names it.
        origin: String,
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        problem: crate::secret_file::Problem,
    },
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
            Self::Permissions(path) | Self::SecretFile { path, .. } => {
                Some(crate::secret_file::remedy(path))
            }
            _ => None,
        }
    }
}

/// Where variables of the environment come from: the process, or a sandbox instead of it.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Resolves the settings of the real world: the process's environment and the configuration file.
    pub fn resolve(flags: &Flags, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let file = file::read(flags, environment)?;
        Self::layered(flags, environment, file)
    }

    /// Resolves the settings of a sandbox: its environment stands for the process's, and no file is read, so that
    /// nothing real can be reached by a forgotten setting.
    pub fn of_sandbox(flags: &Flags, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let mut settings = Self::layered(flags, environment, (PathBuf::new(), File::default()))?;
        settings.suggest = true;
        settings.pace = Pace::OF_SANDBOX;
        if let (Some(access_key_id), Some(secret)) = (
            environment("AWS_ACCESS_KEY_ID"),
            environment("AWS_SECRET_ACCESS_KEY"),
        ) {
            settings.aws.credentials = Some(StaticCredentials {
                access_key_id,
                secret_access_key: secret.into(),
            });
        }
        Ok(settings)
    }

    /// The settings of Tailscale's API with this client, and what the environment says besides.
    pub fn tailnet_client(
        id: &str,
        secret_file: &Path,
        environment: Environment<'_>,
    ) -> Result<TailnetSettings, ConfigError> {
        let with_client = |name: &str| match name {
            "M8TRX_TAILSCALE_CLIENT_ID" => Some(id.to_owned()),
            "M8TRX_TAILSCALE_CLIENT_SECRET_FILE" => Some(secret_file.display().to_string()),
            other => environment(other),
        };
        let found = tailscale::api(&file::TailscaleFile::default(), &with_client, Path::new(""))?;
        found.ok_or_else(|| ConfigError::Value {
            origin: "the OAuth client".to_owned(),
            reason: "it has no id".to_owned(),
        })
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
        let aws = aws_settings(flags, &variable, &in_file, file.aws, endpoint_url.clone())?;

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
        let mut pace = Pace::default();
        if endpoint_url.as_ref().is_some_and(is_loopback) {
            pace.host = Pace::OF_SANDBOX.host;
        }
        let tailnet = tailscale::api(&file.tailscale, environment, &path)?;
        let timeout = match (flags.timeout, &file.launch.timeout) {
            (Some(timeout), _) => timeout,
            (None, Some(text)) => parse_duration(text).map_err(|reason| ConfigError::Value {
                origin: in_file("launch.timeout"),
                reason,
            })?,
            (None, None) => DEFAULT_TIMEOUT,
        };
        Ok(Self {
            aws,
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
            tailnet,
            instance_type: flags
                .instance_type
                .clone()
                .or(file.launch.instance_type)
                .unwrap_or_else(|| DEFAULT_INSTANCE_TYPE.to_owned()),
            subnet: flags.subnet.clone().or(file.launch.subnet),
            ami: flags.ami.clone().or(file.launch.ami),
            timeout,
            pace,
            suggest: false,
        })
    }
}

/// Which account and region, and whose credentials. Of the places where a region can stand, the more particular wins: a
/// flag, the environment, the profile that a flag or the environment names, the file.
fn aws_settings(
    flags: &Flags,
    variable: &dyn Fn(&str) -> Option<String>,
    in_file: &dyn Fn(&str) -> String,
    file: AwsFile,
    endpoint_url: Option<Url>,
) -> Result<AwsSettings, ConfigError> {
    let profile = if let Some(name) = &flags.profile {
        Some((name.clone(), ProfileOrigin::Flag))
    } else if let Some(name) = variable("AWS_PROFILE") {
        Some((name, ProfileOrigin::Environment))
    } else {
        let origin = ProfileOrigin::File(in_file("aws.profile"));
        file.profile.map(|name| (name, origin))
    };
    let region = if let Some(region) = &flags.region {
        Some(("--region", region.clone()))
    } else {
        ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .find_map(|name| Some((name, variable(name)?)))
    };
    if let Some((origin, region)) = &region {
        check_region(origin, region)?;
    }
    if let Some(region) = &file.region {
        check_region(&in_file("aws.region"), region)?;
    }
    let regions = file.regions.unwrap_or_default();
    for region in &regions {
        check_region(&in_file("aws.regions"), region)?;
    }
    let account = if let Some(account) = &flags.expect_account {
        Some(("--expect-account".to_owned(), account.clone()))
    } else {
        file.account
            .map(|account| (in_file("aws.account"), account))
    };
    if let Some((origin, account)) = &account {
        check_account(origin, account)?;
    }
    Ok(AwsSettings {
        region: region.map(|(_, region)| region),
        region_of_file: file.region,
        profile: profile.map(|(name, origin)| ProfileChoice { name, origin }),
        endpoint_url,
        credentials: None,
        keys_in_environment: variable("AWS_ACCESS_KEY_ID").is_some()
            && variable("AWS_SECRET_ACCESS_KEY").is_some(),
        account: account.map(|(origin, value)| Expected { value, origin }),
        regions: Expected {
            value: regions,
            origin: in_file("aws.regions"),
        },
    })
}

#[cfg(test)]
mod tests;
