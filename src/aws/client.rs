//! The only place that builds SDK configuration.

use std::time::{Duration, Instant};

use aws_config::profile::{Profile, ProfileFileCredentialsProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeSerializationInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use url::Url;

use super::AwsError;
use super::credentials::{self, AskedOnce, CredentialsFailure, ProfileChoice, ProfileOrigin};
use crate::secret::{ExposeSecret, SecretString};

/// How AWS is reached. What is `None` is left to the SDK's own chain of environment and profile.
#[derive(Debug, Clone, Default)]
pub struct AwsSettings {
    /// The region of a flag or of the environment.
    pub region: Option<String>,
    /// The region of the configuration file.
    pub region_of_file: Option<String>,
    /// A profile of the shared configuration files.
    pub profile: Option<ProfileChoice>,
    /// One endpoint for every service.
    pub endpoint_url: Option<Url>,
    /// Credentials to use instead of the SDK's chain.
    pub credentials: Option<StaticCredentials>,
    /// Whether the environment holds an access key: it is used before a profile, unless a flag names the profile.
    pub keys_in_environment: bool,
    /// The only account that may be worked in.
    pub account: Option<Expected<String>>,
    /// The only regions that may be worked in, where there are any.
    pub regions: Expected<Vec<String>>,
}

impl AwsSettings {
    /// Whether credentials come from a profile, and not from the environment before it.
    pub(super) fn profile_gives_credentials(&self) -> bool {
        let by_flag = self
            .profile
            .as_ref()
            .is_some_and(|profile| matches!(profile.origin, ProfileOrigin::Flag));
        self.credentials.is_none() && (by_flag || !self.keys_in_environment)
    }

    /// What is said where a profile is named and keys of the environment are used instead.
    pub fn note(&self) -> Option<String> {
        let profile = self.profile.as_ref()?;
        (self.credentials.is_none() && !self.profile_gives_credentials()).then(|| {
            format!(
                "The keys in the environment are used, not those of the profile {} ({}): --profile {} takes the profile's",
                profile.name, profile.origin, profile.name
            )
        })
    }
}

/// What must be found, and who says so.
#[derive(Debug, Clone, Default)]
pub struct Expected<T> {
    /// What is expected.
    pub value: T,
    /// `--expect-account`, or the setting and its file.
    pub origin: String,
}

/// An access key given directly.
#[derive(Debug, Clone)]
pub struct StaticCredentials {
    /// The access key id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: SecretString,
}

/// The clients, and who and where they are.
#[derive(Debug, Clone)]
pub struct Aws {
    /// AWS Systems Manager, for parameters.
    pub ssm: aws_sdk_ssm::Client,
    /// Identity and Access Management.
    pub iam: aws_sdk_iam::Client,
    /// Elastic Compute Cloud.
    pub ec2: aws_sdk_ec2::Client,
    /// The region every call goes to.
    pub region: String,
    /// The account of the credentials.
    pub account: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// The ARN of the identity in use.
    pub identity: String,
}

/// Why no connection to AWS could be made. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither flag, environment, file nor profile names a region.
    #[error("no AWS region is set")]
    NoRegion,
    /// There are no credentials, or none that can be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsFailure),
    /// Credentials are refused, or AWS is not reachable.
    #[error("the AWS credentials could not be checked")]
    Identity(#[source] AwsError),
    /// The credentials are of another account than the one that is expected.
    #[error("these are credentials of AWS account {account} ({identity}), and {} says {}; nothing was changed", expected.origin, expected.value)]
    OtherAccount {
        /// The account of the credentials.
        account: String,
        /// The ARN of the identity in use.
        identity: String,
        /// The account that is expected.
        expected: Expected<String>,
    },
    /// The region is none of those that are expected.
    #[error("the region {region} is not among those of {}: {}; nothing was changed", expected.origin, expected.value.join(", "))]
    OtherRegion {
        /// The region in use.
        region: String,
        /// The regions that are expected.
        expected: Expected<Vec<String>>,
    },
}

impl ConnectError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoRegion => {
                Some("pass --region, or set AWS_REGION, or a region in the AWS profile; `m8trx init` asks for everything and writes it down; to try it without an account: m8trx onboard cust_acme --sandbox".to_owned())
            }
            Self::Credentials(failure) => Some(failure.hint()),
            Self::Identity(cause) => cause.hint(),
            Self::OtherAccount { expected, .. } => Some(format!(
                "sign in to {}, for example with --profile NAME; another account is another configuration file (--config)",
                expected.value
            )),
            Self::OtherRegion { expected, .. } => Some(format!(
                "pass --region {}, or add the region there",
                expected.value.join(" or --region ")
            )),
        }
    }
}

impl Aws {
    /// Loads configuration and credentials and asks STS who they are.
    pub async fn connect(settings: &AwsSettings) -> Result<Self, ConnectError> {
        let config = load(settings).await?;
        let region = config
            .region()
            .map(|region| region.as_ref().to_owned())
            .ok_or(ConnectError::NoRegion)?;
        let sts = aws_sdk_sts::Client::from_conf(
            aws_sdk_sts::config::Builder::from(&config)
                .interceptor(TellCalls)
                .build(),
        );
        let identity = sts
            .get_caller_identity()
            .send()
            .await
            .map_err(|e| AwsError::from_sdk("sts", "GetCallerIdentity", &region, e))
            .map_err(ConnectError::Identity)?;
        let missing = |what| {
            ConnectError::Identity(AwsError::incomplete(
                "sts",
                "GetCallerIdentity",
                &region,
                what,
            ))
        };
        let arn = identity.arn().ok_or_else(|| missing("ARN"))?.to_owned();
        let account = identity
            .account()
            .ok_or_else(|| missing("account"))?
            .to_owned();
        if let Some(expected) = &settings.account
            && expected.value != account
        {
            return Err(ConnectError::OtherAccount {
                account,
                identity: arn,
                expected: expected.clone(),
            });
        }
        Ok(Self {
            ssm: aws_sdk_ssm::Client::from_conf(
                aws_sdk_ssm::config::Builder::from(&config)
                    .interceptor(TellCalls)
                    .build(),
            ),
            iam: aws_sdk_iam::Client::from_conf(
                aws_sdk_iam::config::Builder::from(&config)
                    .interceptor(TellCalls)
                    .build(),
            ),
            ec2: aws_sdk_ec2::Client::from_conf(
                aws_sdk_ec2::config::Builder::from(&config)
                    .interceptor(TellCalls)
                    .build(),
            ),
            account,
            partition: arn.split(':').nth(1).unwrap_or("aws").to_owned(),
            identity: arn,
            region,
        })
    }
}

/// A single attempt may take this long.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// A call with its retries may take this long.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

async fn load(settings: &AwsSettings) -> Result<SdkConfig, ConnectError> {
    let profile = credentials::profile(settings).await?;
    let name = settings.profile.as_ref().map(|profile| &profile.name);
    let http_client = http_client(settings.endpoint_url.as_ref());
    let region = match region(settings, profile.as_ref()) {
        Some(region) => Some(Region::new(region)),
        // The default profile, and the metadata service of the machine this runs on.
        None => aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http_client.clone())
            .load()
            .await
            .region()
            .cloned()
            .filter(|region| !region.as_ref().trim().is_empty()),
    }
    .ok_or(ConnectError::NoRegion)?;
    let expected = &settings.regions;
    if !expected.value.is_empty() && !expected.value.iter().any(|one| one == region.as_ref()) {
        return Err(ConnectError::OtherRegion {
            region: region.to_string(),
            expected: expected.clone(),
        });
    }
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client.clone())
        .region(region.clone())
        // Not the adaptive mode: after one throttled call it holds the client back to one call in ten to twenty seconds
        // (measured), which a command of some forty calls does not bear.
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build(),
        );
    if let Some(name) = name {
        loader = loader.profile_name(name);
    }
    if let Some(url) = &settings.endpoint_url {
        loader = loader.endpoint_url(url.as_str());
    }
    if let Some(credentials) = &settings.credentials {
        let credentials = Credentials::new(
            &credentials.access_key_id,
            credentials.secret_access_key.expose_secret(),
            None,
            None,
            "m8trx",
        );
        return Ok(loader.credentials_provider(credentials).load().await);
    }
    if let Some(name) = name.filter(|_| settings.profile_gives_credentials()) {
        // As the `aws` command does; the SDK's own chain takes the environment's keys before a profile that is named.
        let provider = ProfileFileCredentialsProvider::builder()
            .configure(
                &ProviderConfig::without_region()
                    .with_http_client(http_client)
                    .with_region(Some(region)),
            )
            .profile_name(name)
            .build();
        loader = loader.credentials_provider(provider);
    }
    let config = loader.load().await;
    let Some(provider) = config.credentials_provider() else {
        return Ok(config);
    };
    let provider = AskedOnce::new(provider);
    // Before the first call, whose attempts are timed: a browser or a security key may take minutes.
    provider
        .credentials()
        .await
        .map_err(|error| CredentialsFailure::of(&error, settings, profile.as_ref()))?;
    Ok(config
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .build())
}

/// The region, where anything but the default profile gives it.
fn region(settings: &AwsSettings, profile: Option<&Profile>) -> Option<String> {
    let of_profile = || profile?.get("region").map(str::to_owned);
    let of_file = || settings.region_of_file.clone();
    let chosen_for_this_run = settings
        .profile
        .as_ref()
        .is_some_and(|profile| !matches!(profile.origin, ProfileOrigin::File(_)));
    settings
        .region
        .clone()
        .or_else(|| match chosen_for_this_run {
            true => of_profile().or_else(of_file),
            false => of_file().or_else(of_profile),
        })
        .filter(|region| !region.trim().is_empty())
        .or_else(|| match settings.regions.value.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        })
}

/// TLS by rustls on ring, and the proxies of the environment (`HTTPS_PROXY`, `NO_PROXY`) except to loopback.
fn http_client(endpoint: Option<&Url>) -> SharedHttpClient {
    let proxies = if endpoint.is_some_and(crate::config::is_loopback) {
        ProxyConfig::disabled()
    } else {
        ProxyConfig::from_env()
    };
    Builder::new().build_with_connector_fn(move |settings, _components| {
        let mut builder = Connector::builder().proxy_config(proxies.clone());
        builder.set_connector_settings(settings.cloned());
        builder
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build()
    })
}

/// Tells each call for `--verbose`: its name, whether it succeeded, and how long it took. Never what was sent or answered.
#[derive(Debug)]
struct TellCalls;

/// When a call began, kept with the call.
#[derive(Debug)]
struct Began(Instant);

impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for TellCalls {
    fn name(&self) -> &'static str {
        "TellCalls"
    }

    fn read_before_execution(
        &self,
        _context: &BeforeSerializationInterceptorContextRef<'_>,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(Began(Instant::now()));
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let elapsed = config
            .load::<Began>()
            .map(|began| began.0.elapsed().as_millis())
            .unwrap_or_default();
        let (service, operation) = config
            .load::<Metadata>()
            .map_or(("?", "?"), |m| (m.service(), m.name()));
        let outcome = match context.output_or_error() {
            Some(Ok(_)) => "ok",
            Some(Err(_)) => "error",
            None => "no answer",
        };
        tracing::debug!("{service} {operation}: {outcome}, {elapsed} ms");
        Ok(())
    }
}
