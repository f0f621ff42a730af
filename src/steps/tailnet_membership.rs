//! What in the tailnet belongs to a customer: keys that were minted for it, and devices.

use super::Context;
use super::minted_key::MINTING_TAKES_AT_MOST;
use crate::aws::ec2::Instance;
use crate::plan::{StepError, StepRun};
use crate::tailnet::devices::Device;
use crate::tailnet::keys::{AuthKey, description, run_of};
use crate::tailnet::lock::{self, LockState};
use crate::tailnet::standing::HostNames;
use crate::tailnet::{Tailnet, TailnetError};

/// The good keys that this program minted for the customer; of a run that marks what it makes, that run's only.
pub async fn minted_keys(
    tailnet: &Tailnet,
    context: &Context,
) -> Result<Vec<AuthKey>, TailnetError> {
    let customer = &context.customer;
    let mut keys = tailnet.auth_keys().await?;
    let own = context
        .mark
        .as_ref()
        .map(|mark| description(customer, run_of(&mark.value)));
    keys.retain(|key| {
        key.is_of(customer)
            && match &own {
                Some(own) => key.description == *own,
                None => key.is_minted(),
            }
    });
    Ok(keys)
}

/// Good keys minted for the customer that are not the stored one.
#[derive(Debug, Default)]
pub struct OtherKeys {
    /// Minted long before the stored one: replaced by it, or never stored.
    pub old: Vec<AuthKey>,
    /// Younger: left by an interrupted run, or about to be stored by one that is going on.
    pub young: Vec<AuthKey>,
}

/// Good keys minted for the customer that are not the stored one.
pub async fn other_keys(
    tailnet: &Tailnet,
    context: &Context,
    stored_id: &str,
) -> Result<OtherKeys, TailnetError> {
    let mut others = OtherKeys::default();
    let stored = tailnet.auth_key(stored_id).await?;
    let Some(stored_at) = stored.and_then(|key| key.created) else {
        return Ok(others);
    };
    for key in minted_keys(tailnet, context).await? {
        if key.id == stored_id {
            continue;
        }
        let is_old = key
            .created
            .is_some_and(|at| stored_at.duration_since(at) > MINTING_TAKES_AT_MOST);
        if is_old {
            others.old.push(key);
        } else {
            others.young.push(key);
        }
    }
    Ok(others)
}

impl OtherKeys {
    /// Says of the young ones what they are and how they go.
    pub fn name_young(&self, context: &Context, run: &StepRun) {
        for key in &self.young {
            run.progress(format!(
                "Tailscale also takes the auth key {} (`{}`), which no parameter holds: left by an interrupted run, or of one that is going on; the next `m8trx rotate-tailscale-key {customer}` revokes it once it is five minutes old, `m8trx offboard {customer}` at once",
                key.id,
                key.description.escape_debug(),
                customer = context.customer,
            ));
        }
    }
}

/// The customer's devices; of a run that marks what it makes, those of its hosts only.
pub async fn devices_to_remove(
    tailnet: &Tailnet,
    context: &Context,
) -> Result<Vec<Device>, StepError> {
    let customer = &context.customer;
    let mut devices = tailnet.devices_tagged(&customer.tailscale_tag()).await?;
    if let Some(mark) = &context.mark
        && !devices.is_empty()
    {
        // Hosts that have ended are still listed for about an hour, as long as an ephemeral device may outlive them.
        let hosts = context.aws.customer_instances(customer).await?;
        devices.retain(|device| {
            hosts
                .iter()
                .any(|host| mark.is_in(&host.tags) && HostNames::from(host).are_of(device))
        });
    }
    Ok(devices)
}

/// How Tailnet Lock stands. A client that may not list devices leaves it unknown: keys can be minted without that.
pub async fn lock_state(tailnet: &Tailnet) -> Result<LockState, TailnetError> {
    match tailnet.devices().await {
        Ok(devices) => Ok(lock::state(&devices).await),
        Err(TailnetError::Forbidden { .. }) => Ok(LockState::Unknown),
        Err(error) => Err(error),
    }
}

impl<'a> From<&'a Instance> for HostNames<'a> {
    fn from(host: &'a Instance) -> Self {
        Self {
            instance_id: &host.id,
            dns_name: host.private_dns_name.as_deref(),
            launched: host.launched,
        }
    }
}
