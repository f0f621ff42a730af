//! Networks and security groups, as far as a customer host needs them.

use aws_sdk_ec2::types::ResourceType;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::ec2::{filter, tag, tag_specification, tags_of};
use super::{Aws, AwsError};
use crate::customer::{CUSTOMER_TAG_KEY, CustomerId};

/// A security group as it stands.
#[derive(Debug, Clone)]
pub struct SecurityGroup {
    /// `sg-…`.
    pub id: String,
    /// The value of its `Customer` tag.
    pub customer: Option<String>,
    /// All its tags.
    pub tags: Vec<(String, String)>,
    /// What it lets in, as EC2's own structures, to be able to revoke just that.
    pub ingress: Vec<aws_sdk_ec2::types::IpPermission>,
}

fn security_group_of(group: &aws_sdk_ec2::types::SecurityGroup) -> SecurityGroup {
    SecurityGroup {
        id: group.group_id().unwrap_or_default().to_owned(),
        customer: tag(group.tags(), CUSTOMER_TAG_KEY).map(str::to_owned),
        tags: tags_of(group.tags()),
        ingress: group.ip_permissions().to_vec(),
    }
}

/// A subnet, for a person to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// `subnet-…`.
    pub id: String,
    /// The VPC it is in.
    pub vpc: String,
    /// `eu-central-1a`, for one.
    pub zone: String,
    /// Its addresses.
    pub cidr: String,
    /// Its `Name` tag.
    pub name: Option<String>,
    /// Whether it is its zone's default.
    pub is_default: bool,
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}  {}  {}  {}", self.id, self.zone, self.cidr, self.vpc)?;
        if let Some(name) = &self.name {
            write!(f, "  {}", name.escape_debug())?;
        }
        if self.is_default {
            f.write_str("  (default)")?;
        }
        Ok(())
    }
}

impl Aws {
    /// The region's subnets, by VPC and zone.
    pub async fn subnets(&self) -> Result<Vec<Subnet>, AwsError> {
        let answer = self.ec2.describe_subnets().send().await;
        let answer = answer.map_err(|e| self.ec2_error("DescribeSubnets", e))?;
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let mut found: Vec<Subnet> = answer
            .subnets()
            .iter()
            .map(|subnet| Subnet {
                id: text(subnet.subnet_id()),
                vpc: text(subnet.vpc_id()),
                zone: text(subnet.availability_zone()),
                cidr: text(subnet.cidr_block()),
                name: tag(subnet.tags(), "Name").map(str::to_owned),
                is_default: subnet.default_for_az().unwrap_or_default(),
            })
            .collect();
        found.sort_by(|a, b| (&a.vpc, &a.zone, &a.id).cmp(&(&b.vpc, &b.zone, &b.id)));
        Ok(found)
    }

    /// The VPC of a subnet; `None` when there is no such subnet.
    pub async fn subnet_vpc(&self, subnet: &str) -> Result<Option<String>, AwsError> {
        let answer = match self.ec2.describe_subnets().subnet_ids(subnet).send().await {
            Ok(answer) => answer,
            Err(error)
                if error
                    .as_service_error()
                    .and_then(|e| e.code())
                    .is_some_and(|code| code.starts_with("InvalidSubnetID")) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(self.ec2_error("DescribeSubnets", error).about(subnet)),
        };
        Ok(answer
            .subnets()
            .first()
            .and_then(|subnet| subnet.vpc_id())
            .map(str::to_owned))
    }

    /// The region's default VPC.
    pub async fn default_vpc(&self) -> Result<Option<String>, AwsError> {
        let answer = self
            .ec2
            .describe_vpcs()
            .filters(filter("is-default", &["true"]))
            .send()
            .await
            .map_err(|e| self.ec2_error("DescribeVpcs", e))?;
        Ok(answer
            .vpcs()
            .first()
            .and_then(|vpc| vpc.vpc_id())
            .map(str::to_owned))
    }

    /// Reads a security group of a VPC by its name.
    pub async fn security_group(
        &self,
        vpc: &str,
        name: &str,
    ) -> Result<Option<SecurityGroup>, AwsError> {
        let answer = self
            .ec2
            .describe_security_groups()
            .filters(filter("group-name", &[name]))
            .filters(filter("vpc-id", &[vpc]))
            .send()
            .await
            .map_err(|e| self.ec2_error("DescribeSecurityGroups", e).about(name))?;
        Ok(answer.security_groups().first().map(security_group_of))
    }

    /// Every security group of a name tagged for a customer, in whatever VPC.
    pub async fn customer_security_groups(
        &self,
        customer: &CustomerId,
        name: &str,
    ) -> Result<Vec<SecurityGroup>, AwsError> {
        let answer = self
            .ec2
            .describe_security_groups()
            .filters(filter("group-name", &[name]))
            .filters(filter(
                &format!("tag:{CUSTOMER_TAG_KEY}"),
                &[customer.as_str()],
            ))
            .send()
            .await
            .map_err(|e| self.ec2_error("DescribeSecurityGroups", e).about(name))?;
        Ok(answer
            .security_groups()
            .iter()
            .map(security_group_of)
            .collect())
    }

    /// Creates a security group: nothing may come in, everything may go out. `None` when the name is taken.
    pub async fn create_security_group(
        &self,
        vpc: &str,
        name: &str,
        tags: &[(&str, &str)],
    ) -> Result<Option<String>, AwsError> {
        let answer = self
            .ec2
            .create_security_group()
            .group_name(name)
            .description("m8trx customer host: nothing comes in")
            .vpc_id(vpc)
            .tag_specifications(tag_specification(ResourceType::SecurityGroup, tags))
            .send()
            .await;
        match answer {
            Ok(answer) => match answer.group_id() {
                Some(id) => Ok(Some(id.to_owned())),
                None => Err(AwsError::incomplete(
                    "ec2",
                    "CreateSecurityGroup",
                    &self.region,
                    "group id",
                )
                .about(name)),
            },
            Err(error)
                if error.as_service_error().and_then(|e| e.code())
                    == Some("InvalidGroup.Duplicate") =>
            {
                Ok(None)
            }
            Err(error) => Err(self.ec2_error("CreateSecurityGroup", error).about(name)),
        }
    }

    /// Takes back what a security group lets in.
    pub async fn revoke_ingress(&self, group: &SecurityGroup) -> Result<(), AwsError> {
        self.ec2
            .revoke_security_group_ingress()
            .group_id(&group.id)
            .set_ip_permissions(Some(group.ingress.clone()))
            .send()
            .await
            .map(drop)
            .map_err(|e| {
                self.ec2_error("RevokeSecurityGroupIngress", e)
                    .about(&group.id)
            })
    }

    /// Deletes a security group; `false` when there was none. `DependencyViolation` while an instance uses it.
    pub async fn delete_security_group(&self, id: &str) -> Result<bool, AwsError> {
        match self.ec2.delete_security_group().group_id(id).send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error.as_service_error().and_then(|e| e.code())
                    == Some("InvalidGroup.NotFound") =>
            {
                Ok(false)
            }
            Err(error) => Err(self.ec2_error("DeleteSecurityGroup", error).about(id)),
        }
    }
}
