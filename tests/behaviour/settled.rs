//! A customer that was onboarded some time ago, as the product would have left it.

use jiff::SignedDuration;
use m8trx::customer::CustomerId;
use m8trx::steps::iam_role::{POLICY_NAME, permission_policy_of, trust_policy};
use m8trx_sandbox::{ACCOUNT, DEFAULT_REGION, SettledCustomer};

const PARTITION: &str = "aws";

pub fn settled(
    id: &str,
    age: SignedDuration,
    last_heartbeat: Option<SignedDuration>,
) -> SettledCustomer {
    let customer: CustomerId = id.parse().unwrap();
    let policy = permission_policy_of(&customer, PARTITION, DEFAULT_REGION, ACCOUNT);
    SettledCustomer {
        id: id.to_owned(),
        resource_name: customer.resource_name(),
        tailscale_tag: customer.tailscale_tag(),
        trust_policy: trust_policy(PARTITION).to_string(),
        permission_policy: (POLICY_NAME.to_owned(), policy.to_string()),
        age,
        last_heartbeat,
    }
}
