//! The whole sandbox: a launch through the official SDK boots a host that runs the real user-data and reports to the brain.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::types::{
    HttpTokensState, IamInstanceProfileSpecification, InstanceMetadataOptionsRequest,
    InstanceMetadataTagsState, InstanceType, ResourceType, Tag, TagSpecification,
};
use aws_sdk_ssm::types::ParameterType;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use m8trx::artifacts::{BOOTSTRAP_SH, IAM_POLICY_JSON};
use m8trx::secret::ExposeSecret as _;
use m8trx_sandbox::{AuthKeySpec, Fault, Sandbox, SandboxOptions};

const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
const NAME: &str = "m8trx-cust_acme";

/// Long enough for a loaded machine; a boot takes about a second.
const LIMIT: Duration = Duration::from_secs(60);

struct Trial {
    sandbox: Sandbox,
    environment: Vec<(&'static str, String)>,
    config: SdkConfig,
    http: reqwest::Client,
}

impl Trial {
    async fn start(faults: &[Fault]) -> Self {
        let options = SandboxOptions {
            faults: faults.to_vec(),
            latency: None,
            iam_delay: Some(Duration::ZERO),
            heartbeat_every: None,
            pauses_pass: false,
        };
        let binary = Path::new(env!("CARGO_BIN_EXE_m8trx"));
        let sandbox = Sandbox::start_from(options, binary).await.unwrap();
        let environment = sandbox.environment();
        let value = |name: &str| value(&environment, name);
        let credentials = Credentials::from_keys(
            value("AWS_ACCESS_KEY_ID"),
            value("AWS_SECRET_ACCESS_KEY"),
            None,
        );
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(value("AWS_REGION")))
            .endpoint_url(value("AWS_ENDPOINT_URL"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .build()
            .unwrap();
        let tailnet = value("M8TRX_TAILSCALE_API_URL");
        // The hosts here ask for a tag that no policy file defines.
        let conduct = http.put(format!("{tailnet}/_sandbox/conduct"));
        let conduct = conduct.body(r#"{"takes_undefined_customer_tags": true}"#);
        let conducted = conduct.send().await.unwrap();
        assert!(conducted.status().is_success(), "{conducted:?}");
        Self {
            sandbox,
            environment,
            config,
            http,
        }
    }

    fn brain_url(&self) -> String {
        value(&self.environment, "M8TRX_BRAIN_URL")
    }

    fn file(&self, name: &str) -> String {
        let path = value(&self.environment, name);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// A key of the customer and the brain's id of it.
    async fn mint(&self) -> (String, String) {
        let answer = self
            .http
            .post(format!("{}/v1/keys", self.brain_url()))
            .bearer_auth(self.file("M8TRX_BRAIN_ADMIN_TOKEN_FILE"))
            .body(r#"{"customer_id":"cust_acme","label":"test"}"#)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        let answer: serde_json::Value = answer.json().await.unwrap();
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (text("key"), text("id"))
    }

    /// A key of a user, without tags of its own.
    fn auth_key(&self) -> String {
        let key = self.sandbox.mint_auth_key(AuthKeySpec::default());
        key.expose_secret().to_owned()
    }

    async fn revoke(&self, key_id: &str) {
        let answer = self
            .http
            .delete(format!("{}/v1/keys/{key_id}", self.brain_url()))
            .bearer_auth(self.file("M8TRX_BRAIN_ADMIN_TOKEN_FILE"))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    async fn overwrite(&self, name: &str, value: &str) {
        let ssm = aws_sdk_ssm::Client::new(&self.config);
        let put = ssm.put_parameter().name(name).value(value).overwrite(true);
        put.r#type(ParameterType::SecureString)
            .send()
            .await
            .unwrap();
    }

    /// Everything up to the launch, and the launch; gives the brain key and the instance.
    async fn onboard(&self) -> (String, String) {
        let (brain_key, _) = self.mint().await;
        let id = self.launch(&brain_key, BOOTSTRAP_SH).await;
        (brain_key, id)
    }

    /// Everything but the brain key, up to a launch with this user-data; gives the instance.
    async fn launch(&self, brain_key: &str, user_data: &str) -> String {
        let ssm = aws_sdk_ssm::Client::new(&self.config);
        for (name, text) in [
            ("/m8trx/brain-url", self.brain_url()),
            ("/m8trx/cust_acme/brain-key", brain_key.to_owned()),
            ("/m8trx/cust_acme/tailscale-auth-key", self.auth_key()),
        ] {
            let put = ssm.put_parameter().name(name).value(text);
            put.r#type(ParameterType::SecureString)
                .send()
                .await
                .unwrap();
        }
        let iam = aws_sdk_iam::Client::new(&self.config);
        let role = iam.create_role().role_name(NAME);
        role.assume_role_policy_document(TRUST)
            .send()
            .await
            .unwrap();
        let policy = iam.put_role_policy().role_name(NAME).policy_name("m8trx");
        policy
            .policy_document(IAM_POLICY_JSON)
            .send()
            .await
            .unwrap();
        let profile = iam.create_instance_profile().instance_profile_name(NAME);
        profile.send().await.unwrap();
        let add = iam
            .add_role_to_instance_profile()
            .instance_profile_name(NAME);
        add.role_name(NAME).send().await.unwrap();

        let ec2 = aws_sdk_ec2::Client::new(&self.config);
        let image =
            "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id";
        let image = ssm.get_parameter().name(image).send().await.unwrap();
        let launched = ec2
            .run_instances()
            .image_id(image.parameter().unwrap().value().unwrap())
            .instance_type(InstanceType::T3Small)
            .min_count(1)
            .max_count(1)
            .user_data(BASE64_STANDARD.encode(user_data))
            .iam_instance_profile(
                IamInstanceProfileSpecification::builder()
                    .name(NAME)
                    .build(),
            )
            .tag_specifications(
                TagSpecification::builder()
                    .resource_type(ResourceType::Instance)
                    .tags(Tag::builder().key("Customer").value("cust_acme").build())
                    .build(),
            )
            .metadata_options(
                InstanceMetadataOptionsRequest::builder()
                    .http_tokens(HttpTokensState::Required)
                    .instance_metadata_tags(InstanceMetadataTagsState::Enabled)
                    .build(),
            )
            .send()
            .await
            .unwrap();
        launched.instances()[0].instance_id().unwrap().to_owned()
    }

    async fn heartbeats(&self, brain_key: &str) -> Vec<serde_json::Value> {
        let answer = self
            .http
            .get(format!(
                "{}/v1/events?event_type=heartbeat&limit=1",
                self.brain_url()
            ))
            .bearer_auth(brain_key)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let answer: serde_json::Value = answer.json().await.unwrap();
        answer["events"].as_array().unwrap().clone()
    }

    async fn console(&self, id: &str) -> String {
        let ec2 = aws_sdk_ec2::Client::new(&self.config);
        let output = ec2.get_console_output().instance_id(id).latest(true);
        let output = match output.send().await {
            Ok(output) => output.output().unwrap_or_default().to_owned(),
            // Just launched.
            Err(_) => String::new(),
        };
        String::from_utf8_lossy(&BASE64_STANDARD.decode(output).unwrap()).into_owned()
    }

    async fn console_until(&self, id: &str, wanted: &str) -> String {
        let start = Instant::now();
        loop {
            let console = self.console(id).await;
            if console.contains(wanted) {
                return console;
            }
            assert!(
                start.elapsed() < LIMIT,
                "`{wanted}` is not on the console:\n{console}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn state(&self, id: &str) -> (String, String) {
        let ec2 = aws_sdk_ec2::Client::new(&self.config);
        let described = ec2
            .describe_instances()
            .instance_ids(id)
            .send()
            .await
            .unwrap();
        let instance = &described.reservations()[0].instances()[0];
        let reason = instance.state_reason().and_then(|reason| reason.code());
        (
            instance
                .state()
                .unwrap()
                .name()
                .unwrap()
                .as_str()
                .to_owned(),
            reason.unwrap_or_default().to_owned(),
        )
    }
}

fn value(environment: &[(&'static str, String)], name: &str) -> String {
    let found = environment.iter().find(|(held, _)| *held == name);
    found.unwrap().1.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn user_data_runs_and_its_heartbeat_arrives() {
    let trial = Trial::start(&[]).await;
    let (brain_key, id) = trial.onboard().await;
    let console = trial
        .console_until(&id, "m8trx-bootstrap: complete for cust_acme")
        .await;
    let heartbeat = &trial.heartbeats(&brain_key).await[0];
    assert_eq!(heartbeat["customer_id"], "cust_acme");
    let hostname = heartbeat["payload"]["hostname"].as_str().unwrap();
    assert!(hostname.starts_with("ip-172-31-0-10"), "{hostname}");
    assert_eq!(trial.state(&id).await.0, "running");
    let devices = trial.sandbox.devices();
    assert_eq!(devices[0].tags, ["tag:m8trx-cust-acme"]);
    assert!(
        !console.contains(&brain_key),
        "the console shows the brain key"
    );
    assert!(
        !console.contains("tskey-auth-"),
        "the console shows the auth key"
    );

    // The host asked for its three parameters and for nothing that changes anything.
    let calls = trial.sandbox.calls();
    let of_host: Vec<_> = calls
        .iter()
        .filter(|call| {
            let identity = call.identity.as_deref().unwrap_or_default();
            identity.ends_with(&format!("assumed-role/{NAME}/{id}"))
        })
        .collect();
    assert!(of_host.len() >= 3, "{of_host:?}");
    assert!(of_host.iter().all(|call| call.allowed && !call.mutating));

    let ec2 = aws_sdk_ec2::Client::new(&trial.config);
    ec2.terminate_instances()
        .instance_ids(&id)
        .send()
        .await
        .unwrap();
    let start = Instant::now();
    while trial.state(&id).await.0 != "terminated" {
        assert!(start.elapsed() < LIMIT, "the instance does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(trial.sandbox.devices().is_empty());
    let key_file = value(&trial.environment, "M8TRX_BRAIN_ADMIN_TOKEN_FILE");
    trial.sandbox.stop().await;
    let stage = Path::new(&key_file).parent().unwrap();
    assert!(!stage.exists(), "the stage is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_follows_a_rotated_key_and_a_moved_brain() {
    let trial = Trial::start(&[]).await;
    let (old_key, old_id) = trial.mint().await;
    // The timer beats every five minutes; here the same service is started every two seconds, slower than systemd's limit,
    // and what it says is shown.
    let beating = format!(
        "{BOOTSTRAP_SH}
while sleep 2.1; do
  systemctl start m8trx-brain-heartbeat.service
  journalctl -u m8trx-brain-heartbeat.service -n 5 --no-pager -o cat | sed -nE 's/^(accepted|SSM|no heartbeat)/beat: \\1/p'
done
"
    );
    let id = trial.launch(&old_key, &beating).await;
    let old_url = trial.brain_url();
    trial
        .console_until(&id, &format!("beat: accepted by {old_url}"))
        .await;

    let (new_key, _) = trial.mint().await;
    let new_url = old_url.replace("127.0.0.1", "localhost");
    trial
        .overwrite("/m8trx/cust_acme/brain-key", &new_key)
        .await;
    trial.overwrite("/m8trx/brain-url", &new_url).await;
    trial.revoke(&old_id).await;
    let console = trial
        .console_until(&id, &format!("beat: accepted by {new_url}"))
        .await;
    assert!(
        console.contains("beat: SSM holds a newer URL or key: brain.env rewritten"),
        "{console}"
    );
    assert!(!console.contains(&new_key) && !console.contains(&old_key));
    let heartbeat = &trial.heartbeats(&new_key).await[0];
    assert_eq!(heartbeat["customer_id"], "cust_acme");
    trial.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_host_shows_on_its_console() {
    // The bootstrap tries some of these again for minutes: what it prints at the first attempt is enough here.
    let cases = [
        (Fault::CustomerTagMissing, "FAILED step=1"),
        (Fault::MetadataTagsDisabled, "FAILED step=1"),
        (
            Fault::AptFailed,
            "E: Failed to fetch http://archive.ubuntu.com",
        ),
        (
            Fault::TailscaleInstallUnreachable,
            "curl: (7) Failed to connect to tailscale.com",
        ),
        (
            Fault::TailscaleKeyRejected,
            "backend error: invalid key: API key k",
        ),
        (
            Fault::TailscaleTagRefused,
            "backend error: requested tags [tag:m8trx-cust-acme] are invalid or not permitted",
        ),
        (
            Fault::IamDenied,
            "(AccessDeniedException) when calling the GetParameter",
        ),
        (
            Fault::Throttling,
            "(ThrottlingException) when calling the GetParameter",
        ),
        (
            Fault::ParameterMissing,
            "(ParameterNotFound) when calling the GetParameter",
        ),
        (Fault::SystemdFailed, "FAILED step=7"),
        (
            Fault::BrainUnreachable,
            "curl: (7) Failed to connect to 127.0.0.1 port",
        ),
        (Fault::BrainKeyRefused, "refused the key: status=401"),
    ];
    let mut trials = tokio::task::JoinSet::new();
    for (fault, shown) in cases {
        trials.spawn(async move {
            let trial = Trial::start(&[fault]).await;
            let (_, id) = trial.onboard().await;
            trial.console_until(&id, shown).await;
            trial.sandbox.stop().await;
        });
    }
    while let Some(ended) = trials.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_heartbeat_and_a_revoked_instance() {
    let trial = Trial::start(&[Fault::NoHeartbeat]).await;
    let (brain_key, id) = trial.onboard().await;
    trial
        .console_until(&id, "m8trx-bootstrap: complete for cust_acme")
        .await;
    assert!(trial.heartbeats(&brain_key).await.is_empty());
    trial.sandbox.stop().await;

    let trial = Trial::start(&[Fault::InstanceTerminated]).await;
    let (_, id) = trial.onboard().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended = ("terminated".to_owned(), "Client.InternalError".to_owned());
    assert_eq!(trial.state(&id).await, ended);
    trial.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_sandbox_leaves_nothing() {
    let trial = Trial::start(&[]).await;
    let (_, id) = trial.onboard().await;
    trial.console_until(&id, "m8trx-bootstrap: step 2/7").await;
    let key_file = value(&trial.environment, "M8TRX_BRAIN_ADMIN_TOKEN_FILE");
    let brain = trial.brain_url();
    drop(trial.sandbox);
    assert!(!Path::new(&key_file).parent().unwrap().exists());
    let start = Instant::now();
    while trial
        .http
        .get(format!("{brain}/healthz"))
        .send()
        .await
        .is_ok()
    {
        assert!(start.elapsed() < LIMIT, "the brain still answers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
