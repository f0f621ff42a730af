//! Whose credentials are used, and getting them once, before the first call.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::profile::{Profile, ProfileSet};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{
    ProvideCredentials, Result as Provided, SharedCredentialsProvider, future,
};
use aws_smithy_types::error::metadata::ErrorMetadata;
use aws_types::os_shim_internal::{Env, Fs};
use tokio::sync::Mutex;

use super::client::AwsSettings;
use super::error::chain;

/// A profile of the shared configuration files, and who named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileChoice {
    /// Its name.
    pub name: String,
    /// Who named it.
    pub origin: ProfileOrigin,
}

/// Who named a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileOrigin {
    /// `--profile`
    Flag,
    /// `AWS_PROFILE`
    Environment,
    /// The setting and its file.
    File(String),
}

impl fmt::Display for ProfileOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "--profile",
            Self::Environment => "AWS_PROFILE",
            Self::File(origin) => origin,
        })
    }
}

/// Why there are no credentials. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsFailure {
    /// The shared configuration files cannot be read.
    #[error("the AWS configuration files cannot be read: {0}")]
    Files(String),
    /// No profile has that name.
    #[error("{origin}: there is no AWS profile `{}`", name.escape_debug())]
    NoProfile {
        /// The name.
        name: String,
        /// Who named it.
        origin: ProfileOrigin,
        /// The profiles there are.
        known: Vec<String>,
    },
    /// A profile of a kind which the `aws` command can use and this program cannot.
    #[error("the AWS profile `{}` {what}, which m8trx cannot do itself", name.escape_debug())]
    ByAwsCommand {
        /// The profile.
        name: String,
        /// What it asks for.
        what: &'static str,
        /// Its region, which has to be given beside the keys.
        region: Option<String>,
        /// Whether the profile was named by a flag.
        by_flag: bool,
    },
    /// Nothing gave credentials, or what should have did not.
    #[error("no usable credentials: {why}")]
    None {
        /// What was answered.
        why: String,
        /// The profile that was to give them.
        profile: Option<String>,
        /// Whether it is one of IAM Identity Center.
        sso: bool,
        /// Whether AWS answered, so that signing in again does not help.
        refused: bool,
    },
}

impl CredentialsFailure {
    /// From what the SDK says. A service's answer is shown by its code and message.
    pub(super) fn of(
        error: &CredentialsError,
        settings: &AwsSettings,
        profile: Option<&Profile>,
    ) -> Self {
        let answer = answer(error);
        let profile = profile.filter(|_| settings.profile_gives_credentials());
        let has = |key| profile.is_some_and(|profile| profile.get(key).is_some());
        Self::None {
            why: match &answer {
                Some((code, message)) => format!("AWS answered {code}: {message}"),
                None => chain(error),
            },
            sso: has("sso_session") || has("sso_start_url"),
            profile: profile.map(|profile| profile.name().to_owned()),
            refused: answer.is_some_and(|(code, _)| code.starts_with("AccessDenied")),
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Files(_) => {
                "see ~/.aws/config and ~/.aws/credentials, or AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE"
                    .to_owned()
            }
            Self::NoProfile { known, .. } if known.is_empty() => {
                "there is no profile at all: `aws configure` or `aws configure sso` makes one"
                    .to_owned()
            }
            Self::NoProfile { known, .. } => format!("profiles there are: {}", known.join(", ")),
            Self::ByAwsCommand {
                name,
                region,
                by_flag,
                ..
            } => {
                let region = region.as_ref().map_or(String::new(), |region| {
                    format!(" && export AWS_REGION={}", shell_words::quote(region))
                });
                let then = if *by_flag {
                    "then run the same command without --profile"
                } else {
                    "then run the same command again"
                };
                format!(
                    "let the aws command sign in, {then}: eval \"$(aws configure export-credentials --profile {} --format env)\"{region}",
                    shell_words::quote(name)
                )
            }
            Self::None {
                profile: Some(name),
                sso: true,
                refused: false,
                ..
            } => format!(
                "sign in, then run the same command again: aws sso login --profile {}",
                shell_words::quote(name)
            ),
            Self::None {
                profile: Some(name),
                refused: true,
                ..
            } => format!(
                "whoever administers the account decides who may assume the role of the profile {name}; `aws sts get-caller-identity --profile {}` says whether the aws command may",
                shell_words::quote(name)
            ),
            Self::None { .. } => {
                "sign in (`aws sso login --profile NAME`) and pass --profile NAME, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    .to_owned()
            }
        }
    }
}

/// Code and message of the answer of a service among the causes of an error.
fn answer(error: &CredentialsError) -> Option<(String, String)> {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(metadata) = cause.downcast_ref::<ErrorMetadata>()
            && let Some(code) = metadata.code()
        {
            let message = metadata.message().unwrap_or("no message").trim();
            return Some((code.to_owned(), message.to_owned()));
        }
        next = cause.source();
    }
    None
}

/// The profile in use: the one that is named, which must exist, or the default one.
pub(super) async fn profile(settings: &AwsSettings) -> Result<Option<Profile>, CredentialsFailure> {
    if settings.credentials.is_some() && settings.profile.is_none() {
        return Ok(None);
    }
    let files = aws_config::profile::load(&Fs::real(), &Env::real(), &Default::default(), None)
        .await
        .map_err(|error| CredentialsFailure::Files(chain_or_words(&error)))?;
    let Some(choice) = &settings.profile else {
        let profile = files.get_profile("default").cloned();
        if let Some(profile) = &profile
            && settings.profile_gives_credentials()
        {
            check(&files, profile, false)?;
        }
        return Ok(profile);
    };
    let Some(profile) = files.get_profile(&choice.name) else {
        let mut known: Vec<String> = files.profiles().map(str::to_owned).collect();
        known.sort();
        return Err(CredentialsFailure::NoProfile {
            name: choice.name.clone(),
            origin: choice.origin.clone(),
            known,
        });
    };
    if settings.profile_gives_credentials() {
        check(&files, profile, choice.origin == ProfileOrigin::Flag)?;
    }
    Ok(Some(profile.clone()))
}

fn chain_or_words(error: &(dyn StdError + 'static)) -> String {
    match error.source() {
        Some(_) => format!("{error}: {}", chain(error)),
        None => error.to_string(),
    }
}

/// The SDK sends AssumeRole without the code of an MFA device, and knows no session of `aws login` in this build.
fn check(files: &ProfileSet, profile: &Profile, by_flag: bool) -> Result<(), CredentialsFailure> {
    let by_aws_command = |what| CredentialsFailure::ByAwsCommand {
        name: profile.name().to_owned(),
        what,
        region: profile.get("region").map(str::to_owned),
        by_flag,
    };
    let mut seen: Vec<&str> = Vec::new();
    let mut next = Some(profile);
    while let Some(one) = next {
        if one.get("role_arn").is_some() && one.get("mfa_serial").is_some() {
            return Err(by_aws_command("needs the code of an MFA device"));
        }
        if one.get("login_session").is_some() {
            return Err(by_aws_command("signs in with `aws login`"));
        }
        seen.push(one.name());
        next = one
            .get("source_profile")
            .filter(|source| !seen.contains(source))
            .and_then(|source| files.get_profile(source));
    }
    Ok(())
}

/// How long before their end credentials are asked for again.
const MARGIN: Duration = Duration::from_secs(60);

/// Asks a provider once and keeps what it gives: whoever has to touch a key or to answer a browser does so once, also where a
/// call that waits for it gives up and is tried again.
#[derive(Debug, Clone)]
pub(super) struct AskedOnce {
    provider: SharedCredentialsProvider,
    kept: Arc<Mutex<Option<Credentials>>>,
}

impl AskedOnce {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            kept: Arc::default(),
        }
    }

    /// The kept credentials, or new ones.
    pub(super) async fn credentials(&self) -> Provided {
        let Self { provider, kept } = self.clone();
        // In a task of its own, which is not ended with the call that waits for it.
        let asked = tokio::spawn(async move {
            let mut kept = kept.lock().await;
            if let Some(credentials) = kept.as_ref().filter(|kept| is_good(kept)) {
                return Ok(credentials.clone());
            }
            let credentials = provider.provide_credentials().await?;
            *kept = Some(credentials.clone());
            Ok(credentials)
        });
        asked.await.map_err(CredentialsError::unhandled)?
    }
}

fn is_good(credentials: &Credentials) -> bool {
    credentials
        .expiry()
        .is_none_or(|end| end > SystemTime::now() + MARGIN)
}

impl ProvideCredentials for AskedOnce {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}
