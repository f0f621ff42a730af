//! Which customers there are, as far as AWS knows.

use std::collections::{BTreeMap, BTreeSet};

use super::fleet::RoleDetail;
use super::{Aws, AwsError};
use crate::customer::{CUSTOMER_TAG_KEY, CustomerId};
use crate::home::Known;
use crate::steps::iam_role::POLICY_NAME;

/// What the names of customers' roles begin with.
const ROLE_PREFIX: &str = "m8trx-";

impl Aws {
    /// Every customer of the account with a role that says where it lives, with that place: of whatever region.
    pub async fn homes(&self) -> Result<BTreeMap<CustomerId, Known>, AwsError> {
        let roles = self
            .role_details(|name| name.starts_with(ROLE_PREFIX))
            .await?;
        Ok(homes_of(&roles, &self.account))
    }

    /// Every customer with a parameter, or with a host that has not ended. No value of a parameter is read.
    pub async fn customers(&self) -> Result<BTreeSet<CustomerId>, AwsError> {
        let (names, hosts) = futures::try_join!(
            self.parameter_names("/m8trx"),
            self.customers_instances(None),
        )?;
        let with_parameter = names
            .iter()
            .filter_map(|name| name.strip_prefix("/m8trx/")?.split_once('/'))
            .filter_map(|(id, _)| id.parse().ok());
        let with_host = hosts
            .iter()
            .filter(|host| host.state != "terminated" && host.state != "shutting-down")
            .filter_map(|host| host.customer.as_deref()?.parse().ok());
        Ok(with_parameter.chain(with_host).collect())
    }
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
