//! The cloud as somebody else changes it: the official SDK against a sandbox.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::types::{HttpTokensState, InstanceMetadataTagsState};
use aws_sdk_ssm::types::{ParameterType, ResourceTypeForTagging, Tag};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::runtime::Runtime;

/// Far longer than anything takes, so that a test that waits in vain ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// A policy that lets a host read every customer's parameters.
pub const LEAK: &str = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";

/// Clients with the operator's own credentials.
pub struct Cloud {
    runtime: Runtime,
    config: SdkConfig,
}

impl Cloud {
    /// The one that these variables point at.
    pub fn of(variables: &BTreeMap<String, String>) -> Self {
        let value = |name: &str| variables[name].clone();
        let credentials = Credentials::from_keys(
            value("AWS_ACCESS_KEY_ID"),
            value("AWS_SECRET_ACCESS_KEY"),
            None,
        );
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            config: SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(value("AWS_REGION")))
                .endpoint_url(value("AWS_ENDPOINT_URL"))
                .credentials_provider(SharedCredentialsProvider::new(credentials))
                .http_client(aws_smithy_http_client::Builder::new().build_http())
                .build(),
        }
    }

    fn ssm(&self) -> aws_sdk_ssm::Client {
        aws_sdk_ssm::Client::new(&self.config)
    }

    fn iam(&self) -> aws_sdk_iam::Client {
        aws_sdk_iam::Client::new(&self.config)
    }

    fn ec2(&self) -> aws_sdk_ec2::Client {
        aws_sdk_ec2::Client::new(&self.config)
    }

    /// Stores a SecureString tagged for a customer.
    pub fn put_tagged(&self, name: &str, value: &str, customer: &str) {
        let tag = Tag::builder().key("Customer").value(customer).build();
        let put = self.ssm().put_parameter().name(name).value(value);
        let put = put.r#type(ParameterType::SecureString).tags(tag.unwrap());
        self.runtime.block_on(put.send()).unwrap();
    }

    /// Stores a String, as somebody does who leaves the type out.
    pub fn put_plain(&self, name: &str, value: &str) {
        let put = self.ssm().put_parameter().name(name).value(value);
        let put = put.r#type(ParameterType::String).overwrite(true);
        self.runtime.block_on(put.send()).unwrap();
    }

    /// Takes the customer's tag off a parameter.
    pub fn untag_parameter(&self, name: &str) {
        let untag = self.ssm().remove_tags_from_resource().resource_id(name);
        let untag = untag.resource_type(ResourceTypeForTagging::Parameter);
        let untag = untag.tag_keys("Customer");
        self.runtime.block_on(untag.send()).unwrap();
    }

    /// Takes a tag off a role, changes who may assume it, empties its policy and attaches one that leaks.
    pub fn spoil_role(&self, role: &str) {
        const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
        const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}"#;
        let iam = self.iam();
        self.runtime.block_on(async {
            let untag = iam.untag_role().role_name(role).tag_keys("Customer");
            untag.send().await.unwrap();
            let untag = iam.untag_instance_profile().tag_keys("m8trx:home");
            untag.instance_profile_name(role).send().await.unwrap();
            let trust = iam.update_assume_role_policy().role_name(role);
            trust.policy_document(TRUST).send().await.unwrap();
            let policy = iam.put_role_policy().role_name(role);
            let policy = policy.policy_name("m8trx-parameters");
            policy.policy_document(POLICY).send().await.unwrap();
            let leak = iam.attach_role_policy().role_name(role).policy_arn(LEAK);
            leak.send().await.unwrap();
        });
    }

    /// Takes a tag off a role.
    pub fn untag_role(&self, role: &str, key: &str) {
        let untag = self.iam().untag_role().role_name(role).tag_keys(key);
        self.runtime.block_on(untag.send()).unwrap();
    }

    /// The value of a role's tag.
    pub fn role_tag(&self, role: &str, key: &str) -> Option<String> {
        let answer = self
            .runtime
            .block_on(self.iam().get_role().role_name(role).send());
        let role = answer.unwrap().role.unwrap();
        let tag = role.tags().iter().find(|tag| tag.key() == key)?;
        Some(tag.value().to_owned())
    }

    /// Gives a role its policy for every region and account, as the runbook writes it.
    pub fn widen_role(&self, role: &str) {
        let id = role.trim_start_matches("m8trx-");
        let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Action": "ssm:GetParameter",
            "Resource": [
                "arn:aws:ssm:*:*:parameter/m8trx/brain-url",
                format!("arn:aws:ssm:*:*:parameter/m8trx/{id}/*"),
            ],
        }]});
        let put = self.iam().put_role_policy().role_name(role);
        let put = put
            .policy_name("m8trx-parameters")
            .policy_document(policy.to_string());
        self.runtime.block_on(put.send()).unwrap();
    }

    /// Deletes a role and the instance profile of the same name.
    pub fn delete_role(&self, name: &str) {
        let iam = self.iam();
        self.runtime.block_on(async {
            let remove = iam.remove_role_from_instance_profile().role_name(name);
            remove.instance_profile_name(name).send().await.unwrap();
            let profile = iam.delete_instance_profile();
            profile.instance_profile_name(name).send().await.unwrap();
            let policy = iam.delete_role_policy().role_name(name);
            policy.policy_name("m8trx-parameters").send().await.unwrap();
            iam.delete_role().role_name(name).send().await.unwrap();
        });
    }

    /// Tags a role for a customer.
    pub fn tag_role(&self, role: &str, customer: &str) {
        let tag = aws_sdk_iam::types::Tag::builder()
            .key("Customer")
            .value(customer)
            .build()
            .unwrap();
        let tagging = self.iam().tag_role().role_name(role).tags(tag);
        self.runtime.block_on(tagging.send()).unwrap();
    }

    /// Lets something into a security group.
    pub fn open_group(&self, name: &str) {
        let ec2 = self.ec2();
        self.runtime.block_on(async {
            let filter = aws_sdk_ec2::types::Filter::builder()
                .name("group-name")
                .values(name)
                .build();
            let groups = ec2.describe_security_groups().filters(filter).send().await;
            let groups = groups.unwrap();
            let id = groups.security_groups()[0].group_id().unwrap();
            let opened = ec2
                .authorize_security_group_ingress()
                .group_id(id)
                .ip_permissions(
                    aws_sdk_ec2::types::IpPermission::builder()
                        .ip_protocol("tcp")
                        .from_port(22)
                        .to_port(22)
                        .ip_ranges(
                            aws_sdk_ec2::types::IpRange::builder()
                                .cidr_ip("0.0.0.0/0")
                                .build(),
                        )
                        .build(),
                );
            opened.send().await.unwrap();
        });
    }

    /// One of the default VPC's subnets.
    pub fn subnet(&self) -> String {
        let asked = self.ec2().describe_subnets();
        let found = self.runtime.block_on(asked.send()).unwrap();
        found.subnets()[0].subnet_id().unwrap().to_owned()
    }

    /// The code with which reading a parameter is refused.
    pub fn parameter_refusal(&self, name: &str) -> Option<String> {
        let asked = self.ssm().get_parameter().name(name);
        code(self.runtime.block_on(asked.send()))
    }

    /// The code with which deleting a role is refused.
    pub fn role_refusal(&self, name: &str) -> Option<String> {
        let asked = self.iam().delete_role().role_name(name);
        code(self.runtime.block_on(asked.send()))
    }

    /// The code with which ending an instance is refused.
    pub fn host_refusal(&self, id: &str) -> Option<String> {
        let asked = self.ec2().terminate_instances().instance_ids(id);
        code(self.runtime.block_on(asked.send()))
    }

    /// Takes the customer's tag off its host; gives the host.
    pub fn untag_host(&self, customer: &str) -> String {
        let ec2 = self.ec2();
        self.runtime.block_on(async {
            let id = listed(&ec2, customer).await;
            let tag = aws_sdk_ec2::types::Tag::builder().key("Customer").build();
            let untag = ec2.delete_tags().resources(&id).tags(tag);
            untag.send().await.unwrap();
            id
        })
    }

    /// Attaches a policy that leaks.
    pub fn attach_leak(&self, role: &str) {
        let leak = self.iam().attach_role_policy();
        let leak = leak.role_name(role).policy_arn(LEAK);
        self.runtime.block_on(leak.send()).unwrap();
    }

    /// Stops a customer's host, and turns its metadata options off.
    pub fn stop_host(&self, customer: &str) {
        let ec2 = self.ec2();
        self.runtime.block_on(async {
            let id = listed(&ec2, customer).await;
            let options = ec2.modify_instance_metadata_options().instance_id(&id);
            let options = options.instance_metadata_tags(InstanceMetadataTagsState::Disabled);
            let options = options.http_tokens(HttpTokensState::Optional);
            options.send().await.unwrap();
            ec2.stop_instances().instance_ids(&id).send().await.unwrap();
            until(&ec2, &id, "stopped").await;
        });
    }

    /// Ends a customer's host for good.
    pub fn terminate_host(&self, customer: &str) {
        let ec2 = self.ec2();
        self.runtime.block_on(async {
            let id = listed(&ec2, customer).await;
            ec2.terminate_instances()
                .instance_ids(&id)
                .send()
                .await
                .unwrap();
            until(&ec2, &id, "terminated").await;
        });
    }
}

fn code<T, E: ProvideErrorMetadata, R>(answer: Result<T, SdkError<E, R>>) -> Option<String> {
    let error = answer.err()?;
    error
        .as_service_error()
        .and_then(|error| error.code())
        .map(str::to_owned)
}

async fn hosts(ec2: &aws_sdk_ec2::Client, customer: &str) -> Vec<String> {
    let filter = aws_sdk_ec2::types::Filter::builder()
        .name("tag:Customer")
        .values(customer)
        .build();
    let found = ec2.describe_instances().filters(filter).send().await;
    let found = found.unwrap();
    found
        .reservations()
        .iter()
        .flat_map(|reservation| reservation.instances())
        .filter(|host| {
            let state = host.state().unwrap().name().unwrap().as_str().to_owned();
            !matches!(state.as_str(), "terminated" | "shutting-down")
        })
        .map(|host| host.instance_id().unwrap().to_owned())
        .collect()
}

/// EC2 lists a host some time after it was launched.
async fn listed(ec2: &aws_sdk_ec2::Client, customer: &str) -> String {
    let began = Instant::now();
    loop {
        if let Some(id) = hosts(ec2, customer).await.pop() {
            return id;
        }
        assert!(began.elapsed() < PATIENCE, "{customer} has no host");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until(ec2: &aws_sdk_ec2::Client, id: &str, wanted: &str) {
    let began = Instant::now();
    loop {
        let found = ec2.describe_instances().instance_ids(id).send().await;
        let found = found.unwrap();
        let state = found.reservations()[0].instances()[0].state().unwrap();
        if state.name().unwrap().as_str() == wanted {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{id} is not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
