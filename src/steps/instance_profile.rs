//! The instance profile through which EC2 hands the role to a host.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Context;
use crate::aws::iam::InstanceProfile as Profile;
use crate::customer::CUSTOMER_TAG_KEY;
use crate::home;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;

/// How often a role that IAM does not see yet is tried again, a second apart.
const ROLE_RETRIES: usize = 15;

/// The instance profile `m8trx-<id>` with the role of the same name.
pub struct InstanceProfile(pub Arc<Context>);

impl InstanceProfile {
    fn other_role(&self, name: &str, role: &str) -> StepError {
        StepError::Precondition {
            problem: format!("the instance profile {name} holds another role, {role}"),
            hint: format!(
                "a host would get that role's permissions; take it out: aws iam remove-role-from-instance-profile --instance-profile-name {name} --role-name {role}"
            ),
        }
    }

    /// A profile of this name that is somebody else's, or of a customer that lives elsewhere, is never touched.
    fn check_owner(&self, profile: &Profile) -> Result<(), StepError> {
        let name = self.0.customer.resource_name();
        let known = home::Known::of_profile(profile);
        home::check_known(&self.0.customer, known, &self.0.aws)?;
        match profile.tags.iter().find(|(key, _)| key == CUSTOMER_TAG_KEY) {
            Some((_, owner)) if owner != self.0.customer.as_str() => Err(StepError::Precondition {
                problem: format!(
                    "the instance profile {name} is tagged for another customer, {owner}"
                ),
                hint: "settle whose it is in the IAM console; nothing was changed".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Step for InstanceProfile {
    fn name(&self) -> &'static str {
        Resource::InstanceProfile.name()
    }

    fn after(&self) -> &'static [&'static str] {
        Resource::InstanceProfile.after()
    }

    fn describe(&self) -> String {
        format!("instance profile {}", self.0.customer.resource_name())
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let name = self.0.customer.resource_name();
        let Some(profile) = self.0.aws.instance_profile(&name).await? else {
            return Ok(Observation::missing(format!(
                "create the instance profile {name} with the role {name}"
            )));
        };
        self.check_owner(&profile)?;
        match profile.roles.first() {
            Some(role) if *role == name && !home::is_tagged(&profile.tags) => {
                Ok(Observation::Drifted {
                    differences: vec![home::TAG_IS_MISSING.to_owned()],
                })
            }
            Some(role) if *role == name => Ok(Observation::satisfied(name)),
            Some(role) => Err(self.other_role(&name, role)),
            None => Ok(Observation::Drifted {
                differences: vec![format!("it holds no role: add {name}")],
            }),
        }
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let aws = &self.0.aws;
        let name = self.0.customer.resource_name();
        let before = aws.instance_profile(&name).await?;
        let created = before.is_none()
            && aws
                .create_instance_profile(&name, &self.0.global_tags())
                .await?;
        if let Some(profile) = before {
            self.check_owner(&profile)?;
            let holds_its_role = profile.roles.first() == Some(&name);
            if !home::is_tagged(&profile.tags) {
                aws.tag_instance_profile(&name, &self.0.global_tags())
                    .await?;
                if holds_its_role {
                    return Ok(Outcome::Updated(format!(
                        "{name}: {}",
                        home::TAG_IS_MISSING
                    )));
                }
            }
        }
        let mut attempt = 0;
        loop {
            let profile = aws.instance_profile(&name).await?;
            match profile.as_ref().and_then(|profile| profile.roles.first()) {
                Some(role) if *role == name => break,
                Some(role) => return Err(self.other_role(&name, role)),
                None => {}
            }
            match aws.add_role_to_instance_profile(&name, &name).await {
                Ok(()) => break,
                // IAM is eventually consistent: the role or the profile made a moment ago may not be seen yet, and
                // another run may have added it in between.
                Err(e)
                    if matches!(e.code(), Some("NoSuchEntity" | "LimitExceeded"))
                        && attempt < ROLE_RETRIES =>
                {
                    attempt += 1;
                    run.progress("waiting for IAM to know the role");
                    run.pause(Duration::from_secs(1)).await?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(if created {
            Outcome::Created(name)
        } else {
            Outcome::Updated(format!("{name}: added its role"))
        })
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        let aws = &self.0.aws;
        let name = self.0.customer.resource_name();
        let Some(profile) = aws.instance_profile(&name).await? else {
            return Ok(Vec::new());
        };
        self.check_owner(&profile)?;
        if !self.0.may_remove(&profile.tags) {
            return Ok(Vec::new());
        }
        for role in &profile.roles {
            aws.remove_role_from_instance_profile(&name, role).await?;
        }
        aws.delete_instance_profile(&name).await?;
        Ok(vec![format!("instance profile {name}")])
    }
}
