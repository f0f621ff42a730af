//! What smoke runs made in the tailnet: devices of their hosts, auth keys that carry their mark in the description, and the
//! entries in the policy file that carry it as a comment.

use crate::aws::Aws;
use crate::customer::CustomerId;
use crate::inventory::{Inventory, Item, Kind};
use crate::plan::StepError;
use crate::tags::MARK_KEY;
use crate::tags::Mark;
use crate::tags::mark_among;
use crate::tailnet::Tailnet;
use crate::tailnet::keys::description;
use crate::tailnet::policy::merge::remark_at;
use crate::tailnet::standing::HostNames;

impl Inventory {
    /// Everything of one customer in AWS, and what smoke runs left in the tailnet, where its API is configured.
    ///
    /// What else the tailnet has of the customer is not listed: it carries no mark, and a smoke run neither makes nor
    /// removes it.
    pub async fn read_all(
        aws: &Aws,
        tailnet: Option<&Tailnet>,
        customer: &CustomerId,
    ) -> Result<Self, StepError> {
        let mut found = Self::read(aws, customer).await?;
        let Some(tailnet) = tailnet else {
            return Ok(found);
        };
        for key in tailnet.auth_keys().await? {
            if let Some(mark) = mark_of(customer, &key.description)
                && key.is_of(customer)
            {
                found.items.push(Item {
                    mark: Some(mark),
                    ..Item::new(Kind::AuthKey, key.id)
                });
            }
        }
        let policy = tailnet.policy_file().await?.text;
        // A file that this program cannot read keeps nothing else from being removed; the step that changes it tells.
        let remark = remark_at(&policy, customer).ok().flatten();
        if let Some(mark) = remark.and_then(|remark| mark_in(customer, &remark)) {
            found.items.push(Item {
                mark: Some(mark),
                ..Item::new(Kind::PolicyEntry, customer.tailscale_tag())
            });
        }
        let devices = tailnet.devices_tagged(&customer.tailscale_tag()).await?;
        if devices.is_empty() {
            return Ok(found);
        }
        let hosts = aws.customer_instances(customer).await?;
        for device in devices {
            let mark = hosts
                .iter()
                .find(|host| HostNames::from(*host).are_of(&device))
                .and_then(|host| mark_among(customer, &host.tags));
            if mark.is_some() {
                found.items.push(Item {
                    mark,
                    ..Item::new(Kind::Device, device.node_id)
                });
            }
        }
        Ok(found)
    }
}

/// The mark in a comment of the policy file: `m8trx-smoke=<mark>`.
fn mark_in(customer: &CustomerId, remark: &str) -> Option<Mark> {
    let (key, value) = remark.split_once('=')?;
    mark_among(customer, &[(key.to_owned(), value.to_owned())])
}

/// The mark in the description of a key that a smoke run minted: `m8trx-<name>-<when it began>-<random>`.
fn mark_of(customer: &CustomerId, text: &str) -> Option<Mark> {
    let (rest, random) = text.rsplit_once('-')?;
    let (_, began) = rest.rsplit_once('-')?;
    let run = format!("{began}-{random}");
    let shaped = began.len() == 16 && began.ends_with('Z') && random.len() == 8;
    (shaped && description(customer, &run) == text).then(|| Mark {
        key: MARK_KEY,
        value: format!("{customer}/{run}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smoke::new_mark;
    use crate::tailnet::keys::{random_mark, run_of};

    #[test]
    fn a_mark_goes_into_a_description_and_comes_back() {
        for id in ["cust_b4_smoke", &format!("cust_{}", "a".repeat(59))] {
            let customer: CustomerId = id.parse().unwrap();
            let mark = new_mark(&customer);
            let text = description(&customer, run_of(&mark.value));
            assert_eq!(mark_of(&customer, &text), Some(mark), "{text}");
            assert_eq!(
                mark_of(&customer, &description(&customer, &random_mark())),
                None
            );
        }
        let smoke: CustomerId = "cust_b4_smoke".parse().unwrap();
        let other: CustomerId = "cust_b4_smoke2".parse().unwrap();
        let text = description(&other, run_of(&new_mark(&other).value));
        assert_eq!(mark_of(&smoke, &text), None);
        for text in ["", "m8trx", "a-b", "m8trx-b4-smoke-x-y"] {
            assert_eq!(mark_of(&smoke, text), None);
        }
    }
}
