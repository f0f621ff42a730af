//! The only place that builds SDK configuration.

use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
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
use crate::secret::{ExposeSecret, SecretString};

/// How AWS is reached. What is `None` is left to the SDK's own chain of environment and profile.
#[derive(Debug, Clone, Default)]
pub struct AwsSettings {
    /// Region, overriding the environment's and the profile's.
    pub region: Option<String>,
    /// Name of a profile in the shared configuration files.
    pub profile: Option<String>,
    /// One endpoint for every service.
    pub endpoint_url: Option<Url>,
    /// Credentials to use instead of the SDK's chain.
    pub credentials: Option<StaticCredentials>,
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
    /// Credentials are missing or refused, or AWS is not reachable.
    #[error("the AWS credentials could not be checked")]
    Identity(#[source] AwsError),
}

impl Aws {
    /// Loads configuration and credentials and asks STS who they are.
    pub async fn connect(settings: &AwsSettings) -> Result<Self, ConnectError> {
        let config = load(settings).await;
        let region = config
            .region()
            .map(|region| region.as_ref().to_owned())
            .filter(|region| !region.trim().is_empty())
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
            account: identity
                .account()
                .ok_or_else(|| missing("account"))?
                .to_owned(),
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

async fn load(settings: &AwsSettings) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client(settings.endpoint_url.as_ref()))
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
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(url) = &settings.endpoint_url {
        loader = loader.endpoint_url(url.as_str());
    }
    if let Some(credentials) = &settings.credentials {
        loader = loader.credentials_provider(Credentials::new(
            &credentials.access_key_id,
            credentials.secret_access_key.expose_secret(),
            None,
            None,
            "m8trx",
        ));
    }
    loader.load().await
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
