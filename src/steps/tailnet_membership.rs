//! What in the tailnet belongs to a customer: keys that were minted for it, and devices.

use super::Context;
use crate::plan::StepError;
use crate::tailnet::devices::Device;
use crate::tailnet::keys::{AuthKey, description, run_of};
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
                None => key.description.starts_with("m8trx-"),
            }
    });
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
        let names: Vec<&str> = hosts
            .iter()
            .filter(|host| mark.is_in(&host.tags))
            .filter_map(|host| host.private_dns_name.as_deref())
            .collect();
        devices.retain(|device| {
            names
                .iter()
                .any(|name| same_machine(&device.hostname, name))
        });
    }
    Ok(devices)
}

/// Whether a device and a host are one machine, by the first label of their names.
pub fn same_machine(hostname: &str, dns_name: &str) -> bool {
    let label = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    !label(hostname).is_empty() && label(hostname) == label(dns_name)
}
