//! A role for EC2, its inline policy and its instance profile.

use aws_sdk_iam::types::{RoleLastUsed, Tag};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use serde_json::Value;

use super::{Aws, AwsError};

/// A role as it stands.
#[derive(Debug, Clone)]
pub struct Role {
    /// Who may assume it, parsed; `Null` when IAM's document is not JSON.
    pub trust_policy: Value,
    /// Its tags.
    pub tags: Vec<(String, String)>,
    /// The region it was last used in, as far as IAM knows by now.
    pub last_used_region: Option<String>,
    /// Names of its inline policies.
    pub inline_policies: Vec<String>,
    /// ARNs of the managed policies attached to it.
    pub attached_policies: Vec<String>,
}

/// What one call says of a role.
#[derive(Debug, Clone)]
pub struct RoleIdentity {
    /// Its tags.
    pub tags: Vec<(String, String)>,
    /// The region it was last used in, as far as IAM knows by now.
    pub last_used_region: Option<String>,
}

/// An instance profile as it stands.
#[derive(Debug, Clone)]
pub struct InstanceProfile {
    /// Names of the roles in it: AWS allows one.
    pub roles: Vec<String>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

pub(super) fn tags_of(tags: &[Tag]) -> Vec<(String, String)> {
    tags.iter()
        .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
        .collect()
}

fn sdk_tags(tags: &[(String, String)]) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| {
            Tag::builder()
                .key(key)
                .value(value)
                .build()
                .expect("key and value are set")
        })
        .collect()
}

/// IAM answers with policy documents percent-encoded.
pub(super) fn document(encoded: &str) -> Value {
    let text = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// IAM leaves the region empty for a role that was never used.
pub(super) fn last_used_region(used: Option<&RoleLastUsed>) -> Option<String> {
    let region = used?.region()?;
    (!region.is_empty()).then(|| region.to_owned())
}

/// IAM's one code for "there is no such thing".
fn is_missing<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error
        .as_service_error()
        .is_some_and(|e| e.code() == Some("NoSuchEntity"))
}

fn exists_already<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error
        .as_service_error()
        .is_some_and(|e| e.code() == Some("EntityAlreadyExists"))
}

/// Turns "there is none" into `false`, and success into `true`.
macro_rules! removed {
    ($self:ident, $operation:literal, $name:expr, $answer:expr) => {
        match $answer {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err($self.iam_error($operation, error).about($name)),
        }
    };
}

/// Turns "it exists already" into `false`, and success into `true`.
macro_rules! created {
    ($self:ident, $operation:literal, $name:expr, $answer:expr) => {
        match $answer {
            Ok(_) => Ok(true),
            Err(error) if exists_already(&error) => Ok(false),
            Err(error) => Err($self.iam_error($operation, error).about($name)),
        }
    };
}

impl Aws {
    pub(super) fn iam_error<E, R>(&self, operation: &'static str, error: SdkError<E, R>) -> AwsError
    where
        E: ProvideErrorMetadata + aws_sdk_iam::operation::RequestId + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        AwsError::from_sdk("iam", operation, &self.region, error)
    }

    async fn get_role(&self, name: &str) -> Result<Option<aws_sdk_iam::types::Role>, AwsError> {
        match self.iam.get_role().role_name(name).send().await {
            Ok(answer) => match answer.role {
                Some(role) => Ok(Some(role)),
                None => {
                    Err(AwsError::incomplete("iam", "GetRole", &self.region, "role").about(name))
                }
            },
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.iam_error("GetRole", error).about(name)),
        }
    }

    /// Reads a role's tags and where it was last used; `None` when there is none.
    pub async fn role_identity(&self, name: &str) -> Result<Option<RoleIdentity>, AwsError> {
        let role = self.get_role(name).await?;
        Ok(role.map(|role| RoleIdentity {
            tags: tags_of(role.tags()),
            last_used_region: last_used_region(role.role_last_used()),
        }))
    }

    /// Reads a role with its tags and the names of its policies; `None` when there is none.
    pub async fn role(&self, name: &str) -> Result<Option<Role>, AwsError> {
        let Some(role) = self.get_role(name).await? else {
            return Ok(None);
        };
        let inline = self
            .iam
            .list_role_policies()
            .role_name(name)
            .send()
            .await
            .map_err(|e| self.iam_error("ListRolePolicies", e).about(name))?;
        let attached = self
            .iam
            .list_attached_role_policies()
            .role_name(name)
            .send()
            .await
            .map_err(|e| self.iam_error("ListAttachedRolePolicies", e).about(name))?;
        Ok(Some(Role {
            trust_policy: role
                .assume_role_policy_document()
                .map_or(Value::Null, document),
            tags: tags_of(role.tags()),
            last_used_region: last_used_region(role.role_last_used()),
            inline_policies: inline.policy_names().to_vec(),
            attached_policies: attached
                .attached_policies()
                .iter()
                .filter_map(|policy| policy.policy_arn().map(str::to_owned))
                .collect(),
        }))
    }

    /// Reads one inline policy of a role; `None` when there is none.
    pub async fn role_policy(&self, role: &str, policy: &str) -> Result<Option<Value>, AwsError> {
        let answer = self
            .iam
            .get_role_policy()
            .role_name(role)
            .policy_name(policy)
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(Some(document(answer.policy_document()))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.iam_error("GetRolePolicy", error).about(role)),
        }
    }

    /// Creates a role; `false` when one of this name exists.
    pub async fn create_role(
        &self,
        name: &str,
        trust_policy: &Value,
        tags: &[(String, String)],
    ) -> Result<bool, AwsError> {
        let answer = self
            .iam
            .create_role()
            .role_name(name)
            .assume_role_policy_document(trust_policy.to_string())
            .description("Lets a customer host read its own m8trx parameters")
            .set_tags(Some(sdk_tags(tags)))
            .send()
            .await;
        created!(self, "CreateRole", name, answer)
    }

    /// Replaces who may assume a role.
    pub async fn set_trust_policy(&self, name: &str, policy: &Value) -> Result<(), AwsError> {
        self.iam
            .update_assume_role_policy()
            .role_name(name)
            .policy_document(policy.to_string())
            .send()
            .await
            .map(drop)
            .map_err(|e| self.iam_error("UpdateAssumeRolePolicy", e).about(name))
    }

    /// Adds tags to a role, overwriting those of the same key.
    pub async fn tag_role(&self, name: &str, tags: &[(String, String)]) -> Result<(), AwsError> {
        self.iam
            .tag_role()
            .role_name(name)
            .set_tags(Some(sdk_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(|e| self.iam_error("TagRole", e).about(name))
    }

    /// Writes an inline policy, replacing one of the same name.
    pub async fn put_role_policy(
        &self,
        role: &str,
        policy: &str,
        document: &Value,
    ) -> Result<(), AwsError> {
        self.iam
            .put_role_policy()
            .role_name(role)
            .policy_name(policy)
            .policy_document(document.to_string())
            .send()
            .await
            .map(drop)
            .map_err(|e| self.iam_error("PutRolePolicy", e).about(role))
    }

    /// Deletes an inline policy; `false` when there was none.
    pub async fn delete_role_policy(&self, role: &str, policy: &str) -> Result<bool, AwsError> {
        let answer = self
            .iam
            .delete_role_policy()
            .role_name(role)
            .policy_name(policy)
            .send()
            .await;
        removed!(self, "DeleteRolePolicy", role, answer)
    }

    /// Detaches a managed policy; `false` when it was not attached.
    pub async fn detach_role_policy(&self, role: &str, arn: &str) -> Result<bool, AwsError> {
        let answer = self
            .iam
            .detach_role_policy()
            .role_name(role)
            .policy_arn(arn)
            .send()
            .await;
        removed!(self, "DetachRolePolicy", role, answer)
    }

    /// Deletes a role that holds no policies and is in no profile; `false` when there was none.
    pub async fn delete_role(&self, name: &str) -> Result<bool, AwsError> {
        let answer = self.iam.delete_role().role_name(name).send().await;
        removed!(self, "DeleteRole", name, answer)
    }

    /// Reads an instance profile; `None` when there is none.
    pub async fn instance_profile(&self, name: &str) -> Result<Option<InstanceProfile>, AwsError> {
        let answer = self
            .iam
            .get_instance_profile()
            .instance_profile_name(name)
            .send()
            .await;
        let profile = match answer {
            Ok(answer) => answer.instance_profile,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(self.iam_error("GetInstanceProfile", error).about(name)),
        };
        let Some(profile) = profile else {
            return Err(AwsError::incomplete(
                "iam",
                "GetInstanceProfile",
                &self.region,
                "instance profile",
            )
            .about(name));
        };
        Ok(Some(InstanceProfile {
            roles: profile
                .roles()
                .iter()
                .map(|role| role.role_name().to_owned())
                .collect(),
            tags: tags_of(profile.tags()),
        }))
    }

    /// Creates an instance profile; `false` when one of this name exists.
    pub async fn create_instance_profile(
        &self,
        name: &str,
        tags: &[(String, String)],
    ) -> Result<bool, AwsError> {
        let answer = self
            .iam
            .create_instance_profile()
            .instance_profile_name(name)
            .set_tags(Some(sdk_tags(tags)))
            .send()
            .await;
        created!(self, "CreateInstanceProfile", name, answer)
    }

    /// Adds tags to an instance profile, overwriting those of the same key.
    pub async fn tag_instance_profile(
        &self,
        name: &str,
        tags: &[(String, String)],
    ) -> Result<(), AwsError> {
        self.iam
            .tag_instance_profile()
            .instance_profile_name(name)
            .set_tags(Some(sdk_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(|e| self.iam_error("TagInstanceProfile", e).about(name))
    }

    /// Puts a role into a profile. Adding the role that is there already is answered with `LimitExceeded`.
    pub async fn add_role_to_instance_profile(
        &self,
        profile: &str,
        role: &str,
    ) -> Result<(), AwsError> {
        self.iam
            .add_role_to_instance_profile()
            .instance_profile_name(profile)
            .role_name(role)
            .send()
            .await
            .map(drop)
            .map_err(|e| self.iam_error("AddRoleToInstanceProfile", e).about(profile))
    }

    /// Takes a role out of a profile; `false` when it was not in it.
    pub async fn remove_role_from_instance_profile(
        &self,
        profile: &str,
        role: &str,
    ) -> Result<bool, AwsError> {
        let answer = self
            .iam
            .remove_role_from_instance_profile()
            .instance_profile_name(profile)
            .role_name(role)
            .send()
            .await;
        removed!(self, "RemoveRoleFromInstanceProfile", profile, answer)
    }

    /// Deletes an instance profile that holds no role; `false` when there was none.
    pub async fn delete_instance_profile(&self, name: &str) -> Result<bool, AwsError> {
        let answer = self
            .iam
            .delete_instance_profile()
            .instance_profile_name(name)
            .send()
            .await;
        removed!(self, "DeleteInstanceProfile", name, answer)
    }
}
