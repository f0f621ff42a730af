//! The cloud through the official SDK and a real socket.

mod ec2;
mod ec2_resources;
pub(super) mod iam;
mod requests;
mod security;
mod ssm;

use std::time::Duration;

use aws_config::{BehaviorVersion, Region as SdkRegion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use secrecy::ExposeSecret;

use super::*;
use crate::http::{Options, Server};

/// A cloud that is served, with an operator's SDK configuration.
pub(super) struct Running {
    pub cloud: Cloud,
    pub commands: UnboundedReceiver<MachineCommand>,
    pub config: SdkConfig,
    pub url: String,
    _server: Server,
}

pub(super) async fn running(faults: &[Fault]) -> Running {
    let (cloud, commands) = Cloud::new(faults.to_vec(), None, Some(Duration::ZERO));
    running_as(cloud, commands).await
}

pub(super) async fn running_as(
    cloud: Cloud,
    commands: UnboundedReceiver<MachineCommand>,
) -> Running {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(listener, Options::default(), cloud.handler()).unwrap();
    let url = format!("http://{}", server.address());
    let secret = cloud.operator_secret();
    let credentials = Credentials::from_keys(OPERATOR_ACCESS_KEY, secret.expose_secret(), None);
    let config = config(&url, credentials);
    Running {
        cloud,
        commands,
        config,
        url,
        _server: server,
    }
}

pub(super) fn config(url: &str, credentials: Credentials) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(SdkRegion::new(DEFAULT_REGION))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .build()
}

/// Code and message of a refused call.
pub(super) fn refusal<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(
    result: Result<T, E>,
) -> (String, String) {
    let error = result.expect_err("the call must be refused");
    (
        error.code().unwrap_or_default().to_owned(),
        error.message().unwrap_or_default().to_owned(),
    )
}
