//! What others say of a host that says nothing itself.

use crate::aws::Aws;
use crate::aws::ec2::Instance;
use crate::customer::CustomerId;
use crate::tailnet::Tailnet;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// What others say of a host that says nothing itself: EC2's status checks, and the tailnet.
pub(super) async fn others_say(
    aws: &Aws,
    tailnet: Option<&Tailnet>,
    customer: Option<&CustomerId>,
    host: &Instance,
    terminal: &Terminal,
) -> Vec<String> {
    let mut said = Vec::new();
    match aws.status_checks(&host.id).await {
        Ok(checks) => said.extend(checks),
        Err(error) => terminal.warn(format!(
            "EC2's status checks could not be read: {}",
            Failure::from(error).in_a_line()
        )),
    }
    if let (Some(tailnet), Some(customer)) = (tailnet, customer) {
        said.extend(last_contact(tailnet, customer, host).await);
    }
    said
}

/// What the tailnet knows of a host that says nothing itself.
async fn last_contact(tailnet: &Tailnet, customer: &CustomerId, host: &Instance) -> Option<String> {
    let devices = tailnet
        .devices_tagged(&customer.tailscale_tag())
        .await
        .ok()?;
    let device = devices
        .iter()
        .find(|device| device.hostname.ends_with(&host.id));
    Some(match device {
        None => format!(
            "the tailnet has no device of {}: it never joined, or was removed",
            host.id
        ),
        Some(device) if device.is_online() => {
            format!(
                "the tailnet is connected with its device {}",
                device.hostname
            )
        }
        Some(device) => match device.last_seen {
            Some(at) => format!(
                "the tailnet's last contact with its device {} was at {at}",
                device.hostname
            ),
            None => format!(
                "the tailnet is not connected with its device {}",
                device.hostname
            ),
        },
    })
}
