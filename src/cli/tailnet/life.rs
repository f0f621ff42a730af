//! Whether hosts of customers live: as AWS, the brain and the tailnet show it.

use std::collections::BTreeSet;

use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::status::{self, Memory};
use crate::steps::first_heartbeat::RECENT;
use crate::tailnet::{Tailnet, TailnetError};
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;
use crate::terminal::text::age;

/// What shows that customers' hosts live, in the order of the customers.
pub(super) async fn signs_of_life(
    customers: &BTreeSet<CustomerId>,
    target: &Target,
    tailnet: &Tailnet,
    terminal: &Terminal,
) -> Result<Vec<(CustomerId, String)>, Failure> {
    let mut signs = Vec::new();
    // A device is seen whatever region and account its host is in.
    let devices = match tailnet.devices().await {
        Err(error @ TailnetError::Forbidden { .. }) => {
            terminal.warn(format!("devices could not be looked at: {error}"));
            Vec::new()
        }
        devices => devices?,
    };
    for customer in customers {
        let tag = customer.tailscale_tag();
        for device in &devices {
            if device.is_online() && device.tags.contains(&tag) {
                let sign = format!(
                    "its device {} ({}) is connected",
                    device.node_id, device.hostname
                );
                signs.push((customer.clone(), sign));
            }
        }
    }
    let aws = target.aws(terminal).await?;
    let only: Vec<CustomerId> = customers.iter().cloned().collect();
    let fleet = status::look(&aws, &target.settings, &only, &mut Memory::default()).await?;
    for customer in &fleet.customers {
        for host in &customer.hosts {
            if !matches!(host.state.as_str(), "terminated" | "shutting-down") {
                let sign = format!("its host {} is {}", host.instance_id, host.state);
                signs.push((customer.customer.clone(), sign));
            }
        }
        if let Some(heartbeat) = &customer.heartbeat
            && heartbeat.age_s < RECENT.as_secs()
        {
            let ago = age(jiff::SignedDuration::from_secs(heartbeat.age_s));
            let sign = format!("the brain heard {} {ago} ago", heartbeat.hostname);
            signs.push((customer.customer.clone(), sign));
        }
    }
    if let Some(problem) = &fleet.brain.problem {
        terminal.warn(format!(
            "the brain could not be asked whether it hears these hosts: {problem}"
        ));
    }
    signs.sort();
    Ok(signs)
}
