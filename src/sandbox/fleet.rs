//! Customers that were onboarded before the sandbox began, so that a fleet of any size and age can be looked at: AWS and the
//! brain hold what an onboarding leaves, and the hosts have no machines beneath them.

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::Sandbox;
use super::cloud::{ApiError, DEFAULT_REGION, PUBLIC_IMAGES, Service};
use super::tailnet::{AuthKeySpec, KEY_LIFETIME};
use crate::customer::{BRAIN_URL_PARAMETER, TAG_KEY};

/// A customer that was onboarded some time ago.
#[derive(Debug, Clone)]
pub struct SettledCustomer {
    /// Who.
    pub id: String,
    /// The name of the role, the instance profile and the security group.
    pub resource_name: String,
    /// The tag of the hosts in the tailnet.
    pub tailscale_tag: String,
    /// The trust policy of the role.
    pub trust_policy: String,
    /// The name of the role's inline policy, and the policy.
    pub permission_policy: (String, String),
    /// How long ago everything was made.
    pub age: SignedDuration,
    /// How long ago the host's last heartbeat was; none when it never beat.
    pub last_heartbeat: Option<SignedDuration>,
}

/// A customer that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{action} of {customer} was refused: {reason}")]
pub struct NotSettled {
    customer: String,
    action: String,
    reason: String,
}

impl Sandbox {
    /// Makes what an onboarding of this customer would have left; gives the id of its host, which is running.
    pub fn settle(&self, customer: &SettledCustomer) -> Result<String, NotSettled> {
        let now = Timestamp::now();
        let made = now.checked_sub(customer.age).unwrap_or(now);
        let call = |service, action: &str, input: Value| {
            self.cloud
                .call_at(made, service, action, &input)
                .map_err(|error: ApiError| NotSettled {
                    customer: customer.id.clone(),
                    action: action.to_owned(),
                    reason: format!("{}: {}", error.code, error.message),
                })
        };
        let id = customer.id.as_str();
        let name = &customer.resource_name;
        let tags = json!([{"Key": TAG_KEY, "Value": id}]);
        let url = format!("http://{}", self.brain_server.address());
        let stored = call(
            Service::Ssm,
            "PutParameter",
            json!({"Name": BRAIN_URL_PARAMETER, "Value": url, "Type": "String"}),
        );
        // The first customer's onboarding has stored it for all.
        if let Err(error) = stored
            && !error.reason.starts_with("ParameterAlreadyExists")
        {
            return Err(error);
        }
        let brain_key = self.brain.mint(&customer.id, "settled");
        let auth_key = self.tailnet.mint_key(AuthKeySpec {
            tags: [customer.tailscale_tag.clone()].into(),
            lifetime: KEY_LIFETIME - customer.age,
            ..AuthKeySpec::default()
        });
        let secrets: [(String, &SecretString); 2] = [
            (format!("/m8trx/{id}/brain-key"), &brain_key),
            (format!("/m8trx/{id}/tailscale-auth-key"), &auth_key),
        ];
        for (parameter, secret) in secrets {
            call(
                Service::Ssm,
                "PutParameter",
                json!({"Name": parameter, "Value": secret.expose_secret(), "Type": "SecureString", "Tags": tags}),
            )?;
        }
        let tag = |list: &str| {
            [
                (format!("{list}.1.Key"), TAG_KEY),
                (format!("{list}.1.Value"), id),
            ]
        };
        let with = |members: &[(&str, &str)], tags: &[(String, &str)]| -> Value {
            let members = members
                .iter()
                .map(|(key, value)| ((*key).to_owned(), *value));
            members
                .chain(tags.iter().cloned())
                .map(|(key, value)| (key, json!(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let (policy_name, policy) = &customer.permission_policy;
        let member_tags = tag("Tags.member");
        call(
            Service::Iam,
            "CreateRole",
            with(
                &[
                    ("RoleName", name),
                    ("AssumeRolePolicyDocument", &customer.trust_policy),
                ],
                &member_tags,
            ),
        )?;
        call(
            Service::Iam,
            "PutRolePolicy",
            json!({"RoleName": name, "PolicyName": policy_name, "PolicyDocument": policy}),
        )?;
        call(
            Service::Iam,
            "CreateInstanceProfile",
            with(&[("InstanceProfileName", name)], &member_tags),
        )?;
        call(
            Service::Iam,
            "AddRoleToInstanceProfile",
            json!({"InstanceProfileName": name, "RoleName": name}),
        )?;
        let host = call(
            Service::Ec2,
            "RunInstances",
            with(
                &[
                    ("ImageId", &PUBLIC_IMAGES[0].id(DEFAULT_REGION)),
                    ("InstanceType", "t3.small"),
                    ("MinCount", "1"),
                    ("MaxCount", "1"),
                    ("IamInstanceProfile.Name", name),
                    ("MetadataOptions.HttpTokens", "required"),
                    ("MetadataOptions.HttpPutResponseHopLimit", "1"),
                    ("MetadataOptions.InstanceMetadataTags", "enabled"),
                    ("TagSpecification.1.ResourceType", "instance"),
                ],
                &tag("TagSpecification.1.Tag"),
            ),
        )?;
        let between = |text: &str, open: &str, close: &str| {
            let (_, rest) = text.split_once(open)?;
            Some(rest.split_once(close)?.0.to_owned())
        };
        let host = between(&host, "<instanceId>", "</instanceId>").unwrap_or_default();
        self.cloud.host_booted(DEFAULT_REGION, &host);
        if let (Some(ago), Some(view)) = (
            customer.last_heartbeat,
            self.cloud.host_view(DEFAULT_REGION, &host),
        ) {
            let ts = now.checked_sub(ago).unwrap_or(now);
            self.record_event(id, "heartbeat", ts, json!({"hostname": view.hostname}));
        }
        Ok(host)
    }

    /// Records an event at the brain as it is, also one that the brain itself would refuse.
    pub fn record_event(&self, customer: &str, event_type: &str, ts: Timestamp, payload: Value) {
        self.brain.record(customer, event_type, ts, payload);
    }
}
