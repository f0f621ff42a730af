//! The role of the customer's hosts: it may read the customer's own parameters and nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::Context;
use crate::artifacts;
use crate::aws::iam::Role;
use crate::customer::{CUSTOMER_TAG_KEY, CustomerId};
use crate::home;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;

/// The name of the inline policy.
pub const POLICY_NAME: &str = "m8trx-parameters";

/// Managed policies that let a host read every customer's parameters: they grant `ssm:GetParameter` on `*`.
const LEAKING_MANAGED_POLICIES: [&str; 3] = [
    "policy/AmazonSSMManagedInstanceCore",
    "policy/service-role/AmazonEC2RoleforSSM",
    "policy/AmazonSSMReadOnlyAccess",
];

/// The role `m8trx-<id>` with its inline policy.
pub struct IamRole(pub Arc<Context>);

/// Only EC2 may assume the role.
pub fn trust_policy(partition: &str) -> Value {
    let service = if partition == "aws-cn" {
        "ec2.amazonaws.com.cn"
    } else {
        "ec2.amazonaws.com"
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sts:AssumeRole"
        }]
    })
}

/// The embedded policy, narrowed from every customer to this one, this account and this region.
pub fn permission_policy(context: &Context) -> Value {
    let aws = &context.aws;
    permission_policy_of(&context.customer, &aws.partition, &aws.region, &aws.account)
}

/// The same for a customer without a context.
pub fn permission_policy_of(
    customer: &CustomerId,
    partition: &str,
    region: &str,
    account: &str,
) -> Value {
    let mut policy: Value = serde_json::from_str(artifacts::IAM_POLICY_JSON)
        .expect("the embedded policy is JSON, as a test checks");
    let narrow = |arn: &str| {
        let name = arn.rsplit_once(":parameter").map_or("", |(_, name)| name);
        format!(
            "arn:{partition}:ssm:{region}:{account}:parameter{}",
            name.replace('*', customer.as_str())
        )
    };
    let statements = policy["Statement"].as_array_mut().into_iter().flatten();
    for statement in statements {
        match &mut statement["Resource"] {
            Value::String(arn) => *arn = narrow(arn),
            Value::Array(arns) => {
                for arn in arns {
                    if let Value::String(text) = arn {
                        *text = narrow(text);
                    }
                }
            }
            _ => {}
        }
    }
    policy
}

/// What is otherwise than it should be, and the call that mends it.
enum Difference {
    Trust,
    Tag,
    Home,
    Policy(String),
    Leak(String),
}

impl Difference {
    fn line(&self) -> String {
        match self {
            Self::Trust => "replace who may assume the role: EC2 alone".to_owned(),
            Self::Tag => "add the missing Customer tag".to_owned(),
            Self::Home => home::TAG_IS_MISSING.to_owned(),
            Self::Policy(what) => what.clone(),
            Self::Leak(arn) => {
                format!("detach {arn}: it lets a host read every customer's parameters")
            }
        }
    }
}

/// What is otherwise on a role than it should be. `policy` is the document of its inline policy [`POLICY_NAME`], where it
/// has one.
fn compare(
    role: &Role,
    policy: Option<&Value>,
    wanted: &Value,
    partition: &str,
) -> Vec<Difference> {
    let mut found = Vec::new();
    if role.trust_policy != trust_policy(partition) {
        found.push(Difference::Trust);
    }
    if !role.tags.iter().any(|(key, _)| key == CUSTOMER_TAG_KEY) {
        found.push(Difference::Tag);
    }
    if !home::is_tagged(&role.tags) {
        found.push(Difference::Home);
    }
    match policy {
        None => found.push(Difference::Policy(format!(
            "add the inline policy {POLICY_NAME}"
        ))),
        Some(policy) if policy != wanted => found.push(Difference::Policy(format!(
            "replace the inline policy {POLICY_NAME}: it grants something else than this customer's parameters"
        ))),
        Some(_) => {}
    }
    for arn in &role.attached_policies {
        if LEAKING_MANAGED_POLICIES
            .iter()
            .any(|leak| arn.ends_with(leak))
        {
            found.push(Difference::Leak(arn.clone()));
        }
    }
    found
}

/// What would be mended on a role, one line each; not the tag of its home, without which roles of earlier versions are well.
pub(crate) fn differences(
    role: &Role,
    policy: Option<&Value>,
    wanted: &Value,
    partition: &str,
) -> Vec<String> {
    compare(role, policy, wanted, partition)
        .iter()
        .filter(|difference| !matches!(difference, Difference::Home))
        .map(Difference::line)
        .collect()
}

impl IamRole {
    /// A role of this name that is somebody else's is never touched.
    fn check_owner(&self, role: &Role) -> Result<(), StepError> {
        let name = self.0.customer.resource_name();
        match role.tags.iter().find(|(key, _)| key == CUSTOMER_TAG_KEY) {
            Some((_, owner)) if owner != self.0.customer.as_str() => Err(StepError::Precondition {
                problem: format!("the IAM role {name} is tagged for another customer, {owner}"),
                hint: "settle whose it is in the IAM console; nothing was changed".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The document of its inline policy, where it has one.
    async fn policy(&self, role: &Role) -> Result<Option<Value>, StepError> {
        let has_policy = role
            .inline_policies
            .iter()
            .any(|policy| policy == POLICY_NAME);
        if !has_policy {
            return Ok(None);
        }
        let name = self.0.customer.resource_name();
        Ok(self.0.aws.role_policy(&name, POLICY_NAME).await?)
    }

    /// What is otherwise than it should be. A role of a customer that lives elsewhere is never judged by here.
    async fn differences(&self, role: &Role) -> Result<Vec<Difference>, StepError> {
        let aws = &self.0.aws;
        let policy = self.policy(role).await?;
        home::check_role(&self.0.customer, role, policy.as_ref(), aws)?;
        let wanted = permission_policy(&self.0);
        Ok(compare(role, policy.as_ref(), &wanted, &aws.partition))
    }

    /// Policies that somebody else gave the role: told, left alone.
    fn foreign_policies(role: &Role) -> Vec<&str> {
        role.inline_policies
            .iter()
            .filter(|policy| *policy != POLICY_NAME)
            .chain(role.attached_policies.iter().filter(|arn| {
                !LEAKING_MANAGED_POLICIES
                    .iter()
                    .any(|leak| arn.ends_with(leak))
            }))
            .map(String::as_str)
            .collect()
    }

    async fn mend(&self, role: &Role, run: &StepRun) -> Result<Vec<String>, StepError> {
        let aws = &self.0.aws;
        let name = self.0.customer.resource_name();
        self.check_owner(role)?;
        let mut mended = Vec::new();
        for difference in self.differences(role).await? {
            run.progress(difference.line());
            match &difference {
                Difference::Trust => {
                    aws.set_trust_policy(&name, &trust_policy(&aws.partition))
                        .await?;
                }
                Difference::Tag | Difference::Home => {
                    aws.tag_role(&name, &self.0.global_tags()).await?;
                }
                Difference::Policy(_) => {
                    aws.put_role_policy(&name, POLICY_NAME, &permission_policy(&self.0))
                        .await?;
                }
                Difference::Leak(arn) => {
                    aws.detach_role_policy(&name, arn).await?;
                }
            }
            mended.push(difference.line());
        }
        Ok(mended)
    }
}

#[async_trait]
impl Step for IamRole {
    fn name(&self) -> &'static str {
        Resource::IamRole.name()
    }

    fn describe(&self) -> String {
        format!("IAM role {}", self.0.customer.resource_name())
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let name = self.0.customer.resource_name();
        let Some(role) = self.0.aws.role(&name).await? else {
            return Ok(Observation::Missing {
                changes: vec![
                    format!("create the role {name} for EC2"),
                    format!(
                        "add the inline policy {POLICY_NAME}: ssm:GetParameter on this customer's parameters"
                    ),
                ],
            });
        };
        self.check_owner(&role)?;
        let differences = self.differences(&role).await?;
        if !differences.is_empty() {
            return Ok(Observation::Drifted {
                differences: differences.iter().map(Difference::line).collect(),
            });
        }
        let foreign = Self::foreign_policies(&role);
        Ok(Observation::satisfied(if foreign.is_empty() {
            name
        } else {
            format!("{name}; left alone: {}", foreign.join(", "))
        }))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let aws = &self.0.aws;
        let name = self.0.customer.resource_name();
        let trust = trust_policy(&aws.partition);
        if aws.role(&name).await?.is_none()
            && aws
                .create_role(&name, &trust, &self.0.global_tags())
                .await?
        {
            run.progress("writing its policy");
            aws.put_role_policy(&name, POLICY_NAME, &permission_policy(&self.0))
                .await?;
            return Ok(Outcome::Created(name));
        }
        let Some(role) = aws.role(&name).await? else {
            return Err(StepError::Precondition {
                problem: format!("the IAM role {name} was there and is gone again"),
                hint: "IAM needs a moment: run the same command again".to_owned(),
            });
        };
        let mended = self.mend(&role, run).await?;
        Ok(if mended.is_empty() {
            Outcome::Adopted(name)
        } else {
            Outcome::Updated(format!("{name}: {}", mended.join("; ")))
        })
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        let aws = &self.0.aws;
        let name = self.0.customer.resource_name();
        let Some(role) = aws.role(&name).await? else {
            return Ok(Vec::new());
        };
        self.check_owner(&role)?;
        if !self.0.may_remove(&role.tags) {
            return Ok(Vec::new());
        }
        let policy = self.policy(&role).await?;
        home::check_role(&self.0.customer, &role, policy.as_ref(), aws)?;
        for policy in &role.inline_policies {
            aws.delete_role_policy(&name, policy).await?;
        }
        for arn in &role.attached_policies {
            aws.detach_role_policy(&name, arn).await?;
        }
        aws.delete_role(&name).await?;
        Ok(vec![format!("IAM role {name}")])
    }
}
