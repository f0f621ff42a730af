//! What an onboarding makes, checks and waits for: one table with names, order, removal, and the command that fixes each.
//!
//! Steps are known by these names in plans, events, journals and JSON output. Nothing else lists them.

use crate::customer::CustomerId;

/// Something of a customer that a step ensures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// The fleet-wide parameter with the brain's URL.
    BrainUrl,
    /// The parameter with the customer's brain key, and the key.
    BrainKey,
    /// The parameter with the customer's Tailscale auth key, the key, and the devices that joined with it.
    TailscaleAuthKey,
    /// The role of the customer's hosts and its policy.
    IamRole,
    /// The instance profile that holds the role.
    InstanceProfile,
    /// The image of a new host; chosen, never made.
    Image,
    /// The security group of the customer's hosts.
    SecurityGroup,
    /// The EC2 host.
    Host,
    /// The first heartbeat in the brain; waited for.
    FirstHeartbeat,
    /// The customer's entries in the tailnet's policy file.
    TailnetPolicy,
}

use Resource::{
    BrainKey, BrainUrl, FirstHeartbeat, Host, IamRole, Image, InstanceProfile, SecurityGroup,
    TailnetPolicy, TailscaleAuthKey,
};

struct Row {
    resource: Resource,
    name: &'static str,
    /// The resources that must stand before this one is made.
    after: &'static [&'static str],
    /// Its place in a removal; none where there is nothing to remove.
    removed: Option<u8>,
    /// Whether a host that boots without it fails.
    needed_by_host: bool,
}

/// In the order in which they are made, as far as `after` leaves it open.
///
/// The host is removed first, and the security group second: EC2 deletes it only when no instance uses it, which proves
/// that no host lives that EC2 did not list. Only then does the brain key go. The role goes after the profile that holds
/// it, and the policy entry after the auth key, whose devices bear the tag.
const TABLE: [Row; 10] = [
    row(BrainUrl, "brain-url", &[], Some(7), false),
    row(BrainKey, "brain-key", &[], Some(3), true),
    // Tailscale refuses a key with a tag that the policy file does not define.
    row(
        TailscaleAuthKey,
        "tailscale-auth-key",
        &["tailnet-policy"],
        Some(4),
        true,
    ),
    row(IamRole, "iam-role", &[], Some(6), true),
    row(
        InstanceProfile,
        "instance-profile",
        &["iam-role"],
        Some(5),
        true,
    ),
    row(Image, "image", &[], None, false),
    row(SecurityGroup, "security-group", &[], Some(2), false),
    row(
        Host,
        "host",
        &[
            "brain-url",
            "brain-key",
            "tailscale-auth-key",
            "iam-role",
            "instance-profile",
            "image",
            "security-group",
        ],
        Some(1),
        false,
    ),
    row(FirstHeartbeat, "first-heartbeat", &["host"], None, false),
    row(TailnetPolicy, "tailnet-policy", &[], Some(8), true),
];

const fn row(
    resource: Resource,
    name: &'static str,
    after: &'static [&'static str],
    removed: Option<u8>,
    needed_by_host: bool,
) -> Row {
    Row {
        resource,
        name,
        after,
        removed,
        needed_by_host,
    }
}

impl Resource {
    /// All of them, in the order in which they are made.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.resource)
    }

    /// Those that can be removed, in the order of a removal.
    pub fn in_order_of_removal() -> Vec<Self> {
        let mut rows: Vec<&Row> = TABLE.iter().filter(|row| row.removed.is_some()).collect();
        rows.sort_by_key(|row| row.removed);
        rows.into_iter().map(|row| row.resource).collect()
    }

    /// The one whose step has this name.
    pub fn named(name: &str) -> Option<Self> {
        let row = TABLE.iter().find(|row| row.name == name)?;
        Some(row.resource)
    }

    /// The name of its step.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The names of the steps that come before it.
    pub fn after(self) -> &'static [&'static str] {
        self.row().after
    }

    /// Whether a step can leave something that has to be removed.
    pub fn is_made(self) -> bool {
        self.row().removed.is_some()
    }

    /// Whether a host that boots without it fails.
    pub fn is_needed_by_host(self) -> bool {
        self.row().needed_by_host
    }

    /// Whether the rest of a removal waits for it: while a host may live, nothing that it needs is taken away.
    pub fn guards_removal(self) -> bool {
        matches!(self, Host | SecurityGroup)
    }

    /// The command that puts it right by itself.
    pub fn remedy(self, customer: &CustomerId) -> String {
        match self {
            BrainUrl => "m8trx brain-url set URL".to_owned(),
            BrainKey => format!("m8trx mint-key {customer} --store"),
            TailscaleAuthKey => format!("m8trx params put {customer}/{}", self.name()),
            TailnetPolicy => format!("m8trx tailnet apply {customer}"),
            IamRole | InstanceProfile => format!("m8trx iam apply {customer}"),
            Image | SecurityGroup | Host => format!("m8trx launch {customer}"),
            FirstHeartbeat => format!("m8trx wait {customer}"),
        }
    }

    fn row(self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.resource == self)
            .expect("the table has every resource")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_table_is_of_a_resource_in_it() {
        for row in &TABLE {
            assert_eq!(Resource::named(row.name), Some(row.resource));
            for name in row.after {
                assert!(Resource::named(name).is_some(), "{name}");
            }
        }
    }

    /// What needs something is removed before it, except that a host is proved to be terminated first.
    #[test]
    fn a_removal_takes_nothing_away_from_under_what_needs_it() {
        let order = Resource::in_order_of_removal();
        let place = |wanted: Resource| order.iter().position(|resource| *resource == wanted);
        for resource in &order {
            for needed in resource.after().iter().filter_map(|n| Resource::named(n)) {
                let Some(needed) = place(needed) else {
                    continue;
                };
                assert!(place(*resource) < Some(needed), "{}", resource.name());
            }
        }
        assert_eq!(order[..2], [Host, SecurityGroup]);
    }
}
