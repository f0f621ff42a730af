//! Where a customer lives. IAM, the tailnet and the brain know no region; parameters and hosts are of one. Whoever changes
//! something of a customer from another account or region would cut off a living host, so its home is looked at first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::aws::fleet::RoleDetail;
use crate::aws::iam::{InstanceProfile, Role};
use crate::aws::{Aws, AwsError};
use crate::customer::{CUSTOMER_TAG_KEY, CustomerId, POLICY_NAME};
use crate::plan::StepError;

/// The tag of role and instance profile that names the home: `<account>/<region>`.
pub const HOME_TAG_KEY: &str = "m8trx:home";

/// The account and the region of a customer's parameters and hosts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Home {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
}

/// What is said where role or instance profile has no such tag: hosts do not need it.
pub const TAG_IS_MISSING: &str = "add the tag m8trx:home: where the customer lives";

/// Whether one of these tags names a home.
pub fn is_tagged(tags: &[(String, String)]) -> bool {
    tags.iter().any(|(key, _)| key == HOME_TAG_KEY)
}

impl Home {
    /// Where these clients work.
    pub fn of(aws: &Aws) -> Self {
        Self {
            account: aws.account.clone(),
            region: aws.region.clone(),
        }
    }

    /// The value of the tag [`HOME_TAG_KEY`].
    pub fn tag_value(&self) -> String {
        format!("{}/{}", self.account, self.region)
    }

    fn of_tags(tags: &[(String, String)]) -> Option<Self> {
        let (_, value) = tags.iter().find(|(key, _)| key == HOME_TAG_KEY)?;
        let (account, region) = value.split_once('/')?;
        let named = !account.is_empty() && !region.is_empty();
        named.then(|| Self {
            account: account.to_owned(),
            region: region.to_owned(),
        })
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {}, {}", self.account, self.region)
    }
}

/// A home, and what says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The home.
    pub home: Home,
    /// What says so, in words.
    pub by: &'static str,
}

impl Known {
    fn new(home: Home, by: &'static str) -> Self {
        Self { home, by }
    }

    /// By the tag of a role, else by the parameters that its policy lets it read, else by where it was last used.
    pub fn of_role(
        tags: &[(String, String)],
        policy: Option<&Value>,
        last_used_region: Option<&str>,
        account: &str,
    ) -> Option<Self> {
        if let Some(home) = Home::of_tags(tags) {
            return Some(Self::new(home, "the tag m8trx:home of its role"));
        }
        if let Some(home) = policy.and_then(home_of_policy) {
            return Some(Self::new(home, "the parameters that its role may read"));
        }
        let home = Home {
            account: account.to_owned(),
            region: last_used_region?.to_owned(),
        };
        Some(Self::new(home, "where its role was last used"))
    }

    /// By the tag of an instance profile.
    pub fn of_profile(profile: &InstanceProfile) -> Option<Self> {
        let home = Home::of_tags(&profile.tags)?;
        Some(Self::new(
            home,
            "the tag m8trx:home of its instance profile",
        ))
    }
}

/// The account and region of the parameters in a policy, where they are of one.
fn home_of_policy(policy: &Value) -> Option<Home> {
    let statements = policy["Statement"].as_array()?;
    let mut homes = BTreeSet::new();
    for statement in statements {
        let resources = match &statement["Resource"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        for resource in resources {
            let parts: Vec<&str> = resource.splitn(6, ':').collect();
            if let ["arn", _, "ssm", region, account, _] = parts[..] {
                homes.insert((account, region));
            }
        }
    }
    let mut homes = homes.into_iter();
    let (account, region) = homes.next()?;
    let literal = |text: &str| !text.is_empty() && !text.contains(['*', '?', '$']);
    (homes.next().is_none() && literal(account) && literal(region)).then(|| Home {
        account: account.to_owned(),
        region: region.to_owned(),
    })
}

/// A customer lives in another account or region than the one that is worked in. Nothing has been changed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{customer} lives in {} (by {}), and this is {here}; nothing was changed", known.home, known.by)]
pub struct Elsewhere {
    /// The customer.
    pub customer: CustomerId,
    /// Where it lives.
    pub known: Known,
    /// Where the clients work.
    pub here: Home,
}

impl Elsewhere {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        let home = &self.known.home;
        if home.account != self.here.account {
            return format!(
                "use credentials of account {} (--profile NAME) and --region {}",
                home.account, home.region
            );
        }
        format!(
            "pass --region {}; to move a customer, offboard it there first",
            home.region
        )
    }
}

impl From<Box<Elsewhere>> for StepError {
    fn from(error: Box<Elsewhere>) -> Self {
        Self::Precondition {
            problem: error.to_string(),
            hint: error.hint(),
        }
    }
}

/// Why a home does not allow a change.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The customer lives elsewhere.
    #[error(transparent)]
    Elsewhere(#[from] Box<Elsewhere>),
    /// AWS could not be asked.
    #[error(transparent)]
    Aws(#[from] AwsError),
}

/// Refuses a home that is known to be another than here.
pub fn check_known(
    customer: &CustomerId,
    known: Option<Known>,
    aws: &Aws,
) -> Result<Option<Known>, Box<Elsewhere>> {
    let here = Home::of(aws);
    match known {
        Some(known) if known.home != here => Err(Box::new(Elsewhere {
            customer: customer.clone(),
            known,
            here,
        })),
        known => Ok(known),
    }
}

/// [`check_known`] for a role that was read whole.
pub fn check_role(
    customer: &CustomerId,
    role: &Role,
    policy: Option<&Value>,
    aws: &Aws,
) -> Result<Option<Known>, Box<Elsewhere>> {
    let last_used = role.last_used_region.as_deref();
    let known = Known::of_role(&role.tags, policy, last_used, &aws.account);
    check_known(customer, known, aws)
}

/// Looks where a customer lives, by its role and the role's policy, else by its instance profile, and refuses another place
/// than here. `None` where nothing says.
pub async fn check(aws: &Aws, customer: &CustomerId) -> Result<Option<Known>, HomeError> {
    let name = customer.resource_name();
    let known = match aws.role_identity(&name).await? {
        None => aws
            .instance_profile(&name)
            .await?
            .and_then(|profile| Known::of_profile(&profile)),
        Some(role) => {
            let policy = match Home::of_tags(&role.tags) {
                Some(_) => None,
                None => aws.role_policy(&name, POLICY_NAME).await?,
            };
            let last_used = role.last_used_region.as_deref();
            Known::of_role(&role.tags, policy.as_ref(), last_used, &aws.account)
        }
    };
    Ok(check_known(customer, known, aws)?)
}

/// What the names of customers' roles begin with.
const ROLE_PREFIX: &str = "m8trx-";

/// Every customer of the account with a role that says where it lives, with that place: of whatever region.
pub async fn all(aws: &Aws) -> Result<BTreeMap<CustomerId, Known>, AwsError> {
    let roles = aws
        .role_details(|name| name.starts_with(ROLE_PREFIX))
        .await?;
    Ok(homes_of(&roles, &aws.account))
}

/// Where the customers of these roles live.
pub(crate) fn homes_of(
    roles: &BTreeMap<String, RoleDetail>,
    account: &str,
) -> BTreeMap<CustomerId, Known> {
    let mut homes = BTreeMap::new();
    for (name, detail) in roles {
        let role = &detail.role;
        let tag = role.tags.iter().find(|(key, _)| key == CUSTOMER_TAG_KEY);
        let id = tag.map_or(name.strip_prefix(ROLE_PREFIX), |(_, id)| Some(id));
        let Some(id) = id.and_then(|id| id.parse::<CustomerId>().ok()) else {
            continue;
        };
        if id.resource_name() != *name {
            continue;
        }
        let (policy, used) = (
            detail.documents.get(POLICY_NAME),
            role.last_used_region.as_deref(),
        );
        if let Some(known) = Known::of_role(&role.tags, policy, used, account) {
            homes.insert(id, known);
        }
    }
    homes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tag_says_it_then_the_policy_then_where_the_role_was_used() {
        let policy = |resource: Value| json!({"Statement": [{"Resource": resource}]});
        let one = policy(json!([
            "arn:aws:ssm:eu-west-1:123456789012:parameter/m8trx/brain-url",
            "arn:aws:ssm:eu-west-1:123456789012:parameter/m8trx/cust_a/*"
        ]));
        let two = policy(json!([
            "arn:aws:ssm:eu-west-1:123456789012:parameter/a",
            "arn:aws:ssm:eu-west-2:123456789012:parameter/b"
        ]));
        let wide = policy(json!("arn:aws:ssm:*:*:parameter/m8trx/cust_a/*"));
        let region = |tag: Option<&str>, policy: Option<&Value>, used: Option<&str>| {
            let tags: Vec<(String, String)> = tag
                .map(|value| (HOME_TAG_KEY.to_owned(), value.to_owned()))
                .into_iter()
                .collect();
            let known = Known::of_role(&tags, policy, used, "123456789012")?;
            Some(known.home.region)
        };
        let is = |region: &str| Some(region.to_owned());
        let (tag, used) = (Some("210987654321/us-east-1"), Some("eu-south-1"));
        assert_eq!(region(tag, Some(&one), used), is("us-east-1"));
        assert_eq!(region(None, Some(&one), used), is("eu-west-1"));
        for unclear in [Some(&two), Some(&wide), None] {
            assert_eq!(region(None, unclear, used), is("eu-south-1"));
            assert_eq!(region(None, unclear, None), None);
        }
        for malformed in ["", "/", "x", "123456789012/", "/eu-west-1"] {
            assert_eq!(region(Some(malformed), None, None), None);
        }
    }
}
