//! The embedded sandbox: cloud, metadata service, brain, tailnet and hosts, in one process on loopback.
//!
//! ```text
//!  operator ──AWS_ENDPOINT_URL──▶ cloud ──commands──▶ machines ──▶ host (namespaces of its own)
//!     │                             ▲ ▲                              │ 169.254.169.254  metadata ─▶ cloud
//!     │                             │ └──────────────────────────────┤ ssm.….amazonaws.com, TLS
//!     ├──────M8TRX_BRAIN_URL──▶ brain ◀──────────────────────────────┤ once it joined
//!     └──M8TRX_TAILSCALE_API_URL──▶ tailnet ◀────────────────────────┘ tailscale.com, TLS
//! ```

// Hosts are made of Linux namespaces; elsewhere there is nothing here.
#![cfg(target_os = "linux")]

mod brain;
mod cloud;
mod customer;
mod fault;
mod fleet;
pub mod host;
mod http;
mod machines;
mod metadata;
mod random;
mod stage;
mod tailnet;
mod tls;

use std::io;
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use brain::Brain;
use cloud::Cloud;
pub use cloud::{ACCOUNT, DEFAULT_REGION, RecordedCall};
pub use fault::{Fault, UnknownFault};
pub use fleet::{NotSettled, SettledCustomer};
use host::HostError;
use http::Server;
use machines::{Machines, Surroundings, listen};
use stage::Stage;
use tailnet::Tailnet;
pub use tailnet::{AuthKeySpec, Device};
use tls::Authority;

/// How long requests that are being answered may take when the sandbox stops.
const GRACE: Duration = Duration::from_millis(500);

/// How a sandbox behaves.
#[derive(Debug, Clone, Default)]
pub struct SandboxOptions {
    /// Conditions that make onboarding fail.
    pub faults: Vec<Fault>,
    /// Added to every call of the cloud.
    pub latency: Option<Duration>,
    /// How long EC2 does not know a new instance profile; without it 300 ms, or 20 s under [`Fault::SlowIam`].
    pub iam_delay: Option<Duration>,
    /// How often hosts beat, instead of every five minutes; they look for a new key at every beat then. systemd starts a
    /// service at most five times in ten seconds.
    pub heartbeat_every: Option<Duration>,
    /// The pauses of user-data pass at once: a bootstrap that tries again for two minutes is done with it in seconds.
    pub pauses_pass: bool,
}

/// A sandbox could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Its private directory could not be made.
    #[error("the sandbox's private directory could not be made")]
    Stage(#[source] io::Error),
    /// No port of loopback could be listened on.
    #[error("the sandbox could not listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// This machine does not allow what a host needs.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its certificate authority could not be made.
    #[error("the sandbox's certificate authority could not be made")]
    Authority(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A text is not an IAM policy document.
#[derive(Debug, thiserror::Error)]
#[error("the policy document is malformed: {0}")]
pub struct InvalidPolicy(String);

/// A running sandbox. [`Sandbox::stop`] ends it in order; dropping it ends it at once.
pub struct Sandbox {
    // Dropped from the top: what is asked, then what works, then where it lies.
    cloud_server: Server,
    brain_server: Server,
    tailscale_server: Server,
    machines: Machines,
    cloud: Cloud,
    brain: Brain,
    tailnet: Tailnet,
    environment: Vec<(&'static str, String)>,
    _stage: Stage,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("cloud", &self.cloud_server.address())
            .field("brain", &self.brain_server.address())
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Starts a sandbox in which nothing exists yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`SandboxError::Host`] where the machine does not allow hosts, with the remedy, and the others of [`SandboxError`].
    pub async fn start(options: SandboxOptions) -> Result<Self, SandboxError> {
        Self::start_from(options, Path::new("/proc/self/exe")).await
    }

    /// As [`Sandbox::start`], with hosts made of another program file than the running one; it must call
    /// [`host::run_if_reexecuted`] first thing in its `main`. Tests need it, because they run in a program of their own.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub async fn start_from(
        options: SandboxOptions,
        host_binary: &Path,
    ) -> Result<Self, SandboxError> {
        let binary = host_binary.to_owned();
        let supported = tokio::task::spawn_blocking(move || host::check_support_from(&binary));
        let stage = Stage::new().map_err(SandboxError::Stage)?;
        let authority =
            Authority::new().map_err(|error| SandboxError::Authority(Box::new(error)))?;
        let faults = options.faults;
        let (cloud, commands) = Cloud::new(faults.clone(), options.latency, options.iam_delay);
        let brain = Brain::new(faults.clone());
        let tailnet = Tailnet::new(faults.clone());

        let serve = async |handler| {
            let listener = listen().await?;
            Server::start(listener, http::Options::default(), handler)
        };
        let cloud_server = serve(cloud.handler()).await.map_err(SandboxError::Listen)?;
        let brain_server = serve(brain.handler()).await.map_err(SandboxError::Listen)?;
        let tailscale_server = serve(tailnet.api_handler())
            .await
            .map_err(SandboxError::Listen)?;
        let url = |server: &Server| format!("http://{}", server.address());
        let environment = environment(
            &stage,
            (&cloud, &url(&cloud_server)),
            (&brain, &url(&brain_server)),
            (&tailnet, &url(&tailscale_server)),
        )
        .map_err(SandboxError::Stage)?;
        supported
            .await
            .map_err(|error| SandboxError::Stage(io::Error::other(error)))??;
        let surroundings = Surroundings {
            cloud: cloud.clone(),
            brain: brain.clone(),
            tailnet: tailnet.clone(),
            authority,
            stage: stage.path().to_owned(),
            host_binary: host_binary.to_owned(),
            brain_port: brain_server.address().port(),
            faults,
            heartbeat_every: options.heartbeat_every,
            pauses_pass: options.pauses_pass,
        };
        Ok(Self {
            machines: Machines::start(surroundings, commands),
            cloud_server,
            brain_server,
            tailscale_server,
            cloud,
            brain,
            tailnet,
            environment,
            _stage: stage,
        })
    }

    /// The environment under which the AWS SDKs, the `aws` CLI and `m8trx` use this sandbox. It holds the secret key of the
    /// sandbox's operator; the other secrets are in files that it names.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        self.environment.clone()
    }

    /// Every call that the cloud answered so far, of the operator and of hosts.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.cloud.calls()
    }

    /// What each instance has written to its console so far, by its id.
    pub fn consoles(&self) -> Vec<(String, Vec<u8>)> {
        self.cloud.consoles()
    }

    /// Replaces the operator's permissions, at first everything, by an IAM policy document.
    pub fn restrict_operator(&self, policy: &str) -> Result<(), InvalidPolicy> {
        self.cloud
            .set_operator_policy(policy)
            .map_err(|error| InvalidPolicy(error.to_string()))
    }

    /// Turns the brain's `GET /v1/events` off (405), as in a brain that only stores.
    pub fn turn_events_route_off(&self) {
        self.brain.turn_events_route_off();
    }

    /// Mints a Tailscale auth key.
    pub fn mint_auth_key(&self, spec: AuthKeySpec) -> SecretString {
        self.tailnet.mint_key(spec)
    }

    /// Deletes a Tailscale auth key by its id; says whether it was there.
    pub fn delete_auth_key(&self, id: &str) -> bool {
        self.tailnet.delete_key(id)
    }

    /// The devices of the tailnet.
    pub fn devices(&self) -> Vec<Device> {
        self.tailnet.devices()
    }

    /// Ends every host, then the services, and removes the private directory.
    pub async fn stop(self) {
        self.machines.stop().await;
        self.cloud_server.shutdown(GRACE).await;
        self.brain_server.shutdown(GRACE).await;
        self.tailscale_server.shutdown(GRACE).await;
    }
}

fn environment(
    stage: &Stage,
    (cloud, cloud_url): (&Cloud, &str),
    (brain, brain_url): (&Brain, &str),
    (tailnet, tailscale_url): (&Tailnet, &str),
) -> io::Result<Vec<(&'static str, String)>> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let admin_token =
        stage.write_secret("brain-admin-token", brain.admin_token().expose_secret())?;
    let client = tailnet.client();
    let client_secret =
        stage.write_secret("tailscale-client-secret", client.secret.expose_secret())?;
    Ok(vec![
        ("AWS_ENDPOINT_URL", cloud_url.to_owned()),
        ("AWS_ACCESS_KEY_ID", cloud::OPERATOR_ACCESS_KEY.to_owned()),
        (
            "AWS_SECRET_ACCESS_KEY",
            cloud.operator_secret().expose_secret().to_owned(),
        ),
        ("AWS_REGION", cloud::DEFAULT_REGION.to_owned()),
        ("AWS_DEFAULT_REGION", cloud::DEFAULT_REGION.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("M8TRX_BRAIN_URL", brain_url.to_owned()),
        ("M8TRX_BRAIN_ADMIN_TOKEN_FILE", text(&admin_token)),
        ("M8TRX_TAILSCALE_API_URL", tailscale_url.to_owned()),
        ("M8TRX_TAILSCALE_CLIENT_ID", client.id.clone()),
        ("M8TRX_TAILSCALE_CLIENT_SECRET_FILE", text(&client_secret)),
    ])
}
