//! The customer's own security group: nothing comes in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Context;
use super::host::Host;
use crate::aws::ec2_network;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;

/// How often deleting is tried again, two seconds apart, while an ended instance still holds the group.
const DELETE_RETRIES: usize = 60;

/// The security group `m8trx-<id>` in the VPC of the subnet, or in the default VPC.
pub struct SecurityGroup(pub Arc<Context>);

/// The VPC a new host goes to.
pub(super) async fn resolve_vpc(context: &Context) -> Result<String, StepError> {
    let aws = &context.aws;
    if let Some(subnet) = &context.subnet {
        return aws
            .subnet_vpc(subnet)
            .await?
            .ok_or_else(|| StepError::Precondition {
                problem: format!("{} has no subnet {subnet}", aws.region),
                hint: "list them with `aws ec2 describe-subnets`, then pass one as --subnet"
                    .to_owned(),
            });
    }
    aws.default_vpc()
        .await?
        .ok_or_else(|| StepError::Precondition {
            problem: format!("{} has no default VPC", aws.region),
            hint: "pass a subnet with a route to the internet as --subnet".to_owned(),
        })
}

impl SecurityGroup {
    fn check_owner(&self, group: &ec2_network::SecurityGroup) -> Result<(), StepError> {
        match &group.customer {
            Some(owner) if owner == self.0.customer.as_str() => Ok(()),
            owner => Err(StepError::Precondition {
                problem: format!(
                    "the security group {} ({}) is {}",
                    self.0.customer.resource_name(),
                    group.id,
                    owner
                        .as_ref()
                        .map_or("not tagged for any customer".to_owned(), |owner| {
                            format!("tagged for another customer, {owner}")
                        })
                ),
                hint: format!(
                    "settle whose it is; if it is this customer's: aws ec2 create-tags --resources {} --tags Key=Customer,Value={}",
                    group.id, self.0.customer
                ),
            }),
        }
    }
}

#[async_trait]
impl Step for SecurityGroup {
    fn name(&self) -> &'static str {
        Resource::SecurityGroup.name()
    }

    fn describe(&self) -> String {
        format!("security group {}", self.0.customer.resource_name())
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        if let Some(host) = self.0.live_hosts().await?.first() {
            return Ok(Observation::satisfied(format!(
                "not needed: {} exists",
                host.id
            )));
        }
        let name = self.0.customer.resource_name();
        let vpc = self.0.vpc().await?;
        let Some(group) = self.0.aws.security_group(vpc, &name).await? else {
            return Ok(Observation::missing(format!(
                "create the security group {name} in {vpc}: nothing comes in"
            )));
        };
        self.check_owner(&group)?;
        let _ = self.0.found.security_group.set(group.id.clone());
        if group.ingress.is_empty() {
            Ok(Observation::satisfied(format!("{} in {vpc}", group.id)))
        } else {
            Ok(Observation::Drifted {
                differences: vec![format!(
                    "{} lets traffic in by {} rules: revoke them",
                    group.id,
                    group.ingress.len()
                )],
            })
        }
    }

    async fn apply(&self, _run: &StepRun) -> Result<Outcome, StepError> {
        let aws = &self.0.aws;
        let name = self.0.customer.resource_name();
        let vpc = self.0.vpc().await?;
        let existing = aws.security_group(vpc, &name).await?;
        if existing.is_none()
            && let Some(id) = aws
                .create_security_group(vpc, &name, &self.0.tags())
                .await?
        {
            let _ = self.0.found.security_group.set(id.clone());
            return Ok(Outcome::Created(format!("{id} in {vpc}")));
        }
        let group = match existing {
            Some(group) => Some(group),
            None => aws.security_group(vpc, &name).await?,
        };
        let Some(group) = group else {
            return Err(StepError::Precondition {
                problem: format!("the security group {name} was there and is gone again"),
                hint: "run the same command again".to_owned(),
            });
        };
        self.check_owner(&group)?;
        let _ = self.0.found.security_group.set(group.id.clone());
        if group.ingress.is_empty() {
            return Ok(Outcome::Adopted(group.id));
        }
        aws.revoke_ingress(&group).await?;
        Ok(Outcome::Updated(format!(
            "{}: revoked what it let in",
            group.id
        )))
    }

    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let aws = &self.0.aws;
        let name = self.0.customer.resource_name();
        let mut removed = Vec::new();
        let groups = aws
            .customer_security_groups(&self.0.customer, &name)
            .await?;
        for group in groups {
            if !self.0.may_remove(&group.tags) {
                continue;
            }
            let mut attempt = 0;
            loop {
                match aws.delete_security_group(&group.id).await {
                    Ok(true) => {
                        removed.push(format!("security group {name} ({})", group.id));
                        break;
                    }
                    Ok(false) => break,
                    Err(e)
                        if e.code() == Some("DependencyViolation") && attempt < DELETE_RETRIES =>
                    {
                        attempt += 1;
                        // A host that was launched a moment ago, and that EC2 did not list before, may hold it.
                        removed.extend(Host(Arc::clone(&self.0)).undo(run).await?);
                        run.progress("waiting for the ended host to let go of its security group");
                        run.pause(Duration::from_secs(2)).await?;
                    }
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(removed)
    }
}
