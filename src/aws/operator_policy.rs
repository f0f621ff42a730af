//! The policy of whoever runs `m8trx`, from the calls it makes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::operations::{Operation, Scope};

/// Where a policy holds; `*` where that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// The region.
    pub region: String,
    /// The account.
    pub account: String,
}

/// A policy document, its parts in the order people write them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: String,
    effect: &'static str,
    action: BTreeSet<&'static str>,
    resource: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Value>,
}

/// The least policy with which these calls succeed.
pub fn policy(operations: &BTreeSet<Operation>, place: &Place) -> Policy {
    let mut scopes: BTreeMap<Scope, BTreeSet<&'static str>> = BTreeMap::new();
    for grant in operations.iter().flat_map(|operation| operation.grants) {
        scopes.entry(grant.on).or_default().insert(grant.action);
    }
    let statements = scopes.into_iter().map(|(scope, actions)| Statement {
        sid: format!("{scope:?}"),
        effect: "Allow",
        action: actions,
        resource: scope.resources(place),
        condition: scope.condition(),
    });
    Policy {
        version: "2012-10-17",
        statement: statements.collect(),
    }
}

impl Scope {
    fn resources(self, place: &Place) -> Vec<String> {
        let Place {
            partition,
            region,
            account,
        } = place;
        let iam = |what: &str| format!("arn:{partition}:iam::{account}:{what}/m8trx-cust_*");
        let ec2 = |what: &str| format!("arn:{partition}:ec2:{region}:{account}:{what}/*");
        match self {
            Self::Lists => vec!["*".to_owned()],
            Self::Parameters => vec![format!(
                "arn:{partition}:ssm:{region}:{account}:parameter/m8trx/*"
            )],
            Self::ImageParameters => vec![format!(
                "arn:{partition}:ssm:{region}::parameter/aws/service/canonical/*"
            )],
            Self::Roles | Self::RolesForEc2 => vec![iam("role")],
            Self::InstanceProfiles => vec![iam("instance-profile")],
            Self::Hosts => vec![ec2("instance")],
            Self::NewHosts => vec![ec2("instance"), ec2("volume")],
            Self::LaunchInputs => vec![
                format!("arn:{partition}:ec2:{region}::image/*"),
                ec2("network-interface"),
                ec2("security-group"),
                ec2("subnet"),
            ],
            Self::Groups | Self::NewGroups => vec![ec2("security-group")],
            Self::Networks => vec![ec2("vpc")],
            Self::TagsAtCreation => vec![ec2("instance"), ec2("security-group"), ec2("volume")],
        }
    }

    fn condition(self) -> Option<Value> {
        match self {
            Self::Hosts | Self::Groups => {
                Some(json!({ "StringLike": { "aws:ResourceTag/Customer": "cust_*" } }))
            }
            Self::NewHosts | Self::NewGroups => {
                Some(json!({ "StringLike": { "aws:RequestTag/Customer": "cust_*" } }))
            }
            Self::TagsAtCreation => Some(
                json!({ "StringEquals": { "ec2:CreateAction": ["CreateSecurityGroup", "RunInstances"] } }),
            ),
            // A call that does not say to which service the role goes is held by the role's name and its trust policy.
            Self::RolesForEc2 => Some(
                json!({ "StringEqualsIfExists": { "iam:PassedToService": ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"] } }),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::operations::everything;

    #[test]
    fn the_whole_policy_fits_a_managed_policy_and_is_narrow() {
        let place = Place {
            partition: "aws".to_owned(),
            region: "eu-central-1".to_owned(),
            account: "123456789012".to_owned(),
        };
        let policy = serde_json::to_value(policy(&everything(), &place)).unwrap();
        // IAM counts no white space, and allows 6144 characters.
        assert!(
            policy.to_string().len() < 6144,
            "{}",
            policy.to_string().len()
        );
        for statement in policy["Statement"].as_array().unwrap() {
            let text = statement.to_string();
            assert!(!text.contains(":*\""), "no action is a wildcard: {text}");
            if statement["Sid"] == "Lists" {
                continue;
            }
            assert!(!text.contains("\"*\""), "{text}");
        }
    }
}
