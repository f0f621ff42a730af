//! What in the tailnet belongs to a customer: keys that were minted for it, and devices.

use super::Context;
use crate::aws::ec2::Instance;
use crate::plan::StepError;
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

/// The good keys minted for the customer that are no younger than the one that is stored now: they were replaced by it, or
/// never stored. A younger one belongs to a run that is still going on.
pub async fn replaced_keys(
    tailnet: &Tailnet,
    context: &Context,
    stored_id: &str,
) -> Result<Vec<AuthKey>, TailnetError> {
    let stored = tailnet.auth_key(stored_id).await?;
    let Some(until) = stored.and_then(|key| key.created) else {
        return Ok(Vec::new());
    };
    let mut keys = minted_keys(tailnet, context).await?;
    keys.retain(|key| key.id != stored_id && key.created.is_some_and(|at| at <= until));
    Ok(keys)
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
