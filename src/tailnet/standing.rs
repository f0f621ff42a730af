//! How the device of a customer's host stands in the tailnet, and what mends it.

use jiff::Timestamp;

use super::devices::Device;
use crate::customer::CustomerId;

/// How the tags of customers begin.
pub const CUSTOMER_TAG_PREFIX: &str = "tag:m8trx-cust-";

/// Why a device reaches nothing, or more than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong.
    pub what: String,
    /// What to do, with the command where there is one.
    pub fix: String,
}

/// What is wrong with a customer's device, the worst first; `None` where nothing is.
pub fn trouble(device: &Device, customer: &CustomerId) -> Option<Trouble> {
    let id = &device.node_id;
    let tag = customer.tailscale_tag();
    if device.tags != [tag.as_str()] {
        let tags = if device.tags.is_empty() {
            format!("no tag, so it has the access of {}", device.user)
        } else {
            format!("the tags {}", device.tags.join(", "))
        };
        return Some(Trouble {
            what: format!("its device {id} joined under {tags} instead of {tag}"),
            fix: format!(
                "remove the device in the admin console, put a key with exactly {tag} into {}, and end the host: m8trx onboard {customer} then launches another",
                customer.tailscale_auth_key_parameter()
            ),
        });
    }
    if device.is_locked_out() {
        return Some(Trouble {
            what: format!(
                "Tailnet Lock shuts its device {id} out: {}",
                super::error::clean(&device.tailnet_lock_error)
            ),
            fix: format!("sign it on a signing node: m8trx tailnet lock sign {customer}"),
        });
    }
    if !device.authorized {
        let address = device.addresses.first().map_or("", String::as_str);
        return Some(Trouble {
            what: format!("its device {id} waits for the approval of an administrator"),
            fix: format!(
                "approve it: https://login.tailscale.com/admin/machines/{address}; a key that is pre-approved spares this"
            ),
        });
    }
    None
}

/// By what a host is known.
#[derive(Debug, Clone, Copy)]
pub struct HostNames<'a> {
    /// `i-…`.
    pub instance_id: &'a str,
    /// `ip-172-31-0-10.…`
    pub dns_name: Option<&'a str>,
    /// When it was launched or last started.
    pub launched: Option<Timestamp>,
}

impl HostNames<'_> {
    /// Whether a device has this host's name: bootstrap.sh ends it with the instance id; by hand it is the machine's own.
    pub fn are_of(&self, device: &Device) -> bool {
        self.has_id(device) || self.has_dns_name(device)
    }

    fn has_id(&self, device: &Device) -> bool {
        device
            .hostname
            .strip_suffix(self.instance_id)
            .is_some_and(|before| before.is_empty() || before.ends_with('-'))
    }

    fn has_dns_name(&self, device: &Device) -> bool {
        self.dns_name
            .is_some_and(|name| same_machine(&device.hostname, name))
    }
}

/// The device of a customer's host among all devices.
///
/// Machines' own names repeat between networks, so a device that has just such a name and not the customer's tag is
/// taken for the host's only where it carries no other customer's, and joined after the host was launched.
pub fn device_of_host<'d>(
    devices: &'d [Device],
    customer: &CustomerId,
    host: HostNames<'_>,
) -> Option<&'d Device> {
    let tag = customer.tailscale_tag();
    let newest_where = |matches: &dyn Fn(&Device) -> bool| {
        devices
            .iter()
            .filter(|device| matches(device))
            .max_by_key(|device| device.created)
    };
    newest_where(&|device| host.has_id(device))
        .or_else(|| newest_where(&|device| host.has_dns_name(device) && device.tags.contains(&tag)))
        .or_else(|| {
            newest_where(&|device| {
                let of_customer = |tag: &String| tag.starts_with(CUSTOMER_TAG_PREFIX);
                host.has_dns_name(device)
                    && !device.tags.iter().any(of_customer)
                    && matches!((device.created, host.launched), (Some(created), Some(launched)) if created >= launched)
            })
        })
}

/// Whether two names are of one machine, by their first label.
pub fn same_machine(one: &str, other: &str) -> bool {
    let label = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    !label(one).is_empty() && label(one) == label(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device(node_id: &str, tags: &[&str], created: &str) -> Device {
        serde_json::from_value(json!({
            "nodeId": node_id, "hostname": "ip-10-0-0-1", "tags": tags, "created": created, "addresses": ["100.64.0.7"],
            "user": "op@example.com",
        }))
        .unwrap()
    }

    #[test]
    fn a_device_is_the_hosts_by_tag_and_name() {
        let acme: CustomerId = "cust_acme".parse().unwrap();
        let launched: Option<Timestamp> = Some("2026-11-24T06:00:00Z".parse().unwrap());
        let of = |devices: &[Device]| {
            let names = HostNames {
                instance_id: "i-0a",
                dns_name: Some("ip-10-0-0-1.ec2.internal"),
                launched,
            };
            device_of_host(devices, &acme, names).map(|device| device.node_id.clone())
        };
        let named = |node_id: &str, hostname: &str, tags: &[&str]| Device {
            hostname: hostname.to_owned(),
            ..device(node_id, tags, "2026-11-24T05:00:00Z")
        };
        let old = device("nOld", &["tag:m8trx-cust-acme"], "2026-11-23T06:00:00Z");
        let new = device("nNew", &["tag:m8trx-cust-acme"], "2026-11-24T06:01:00Z");
        let bare = device("nBare", &[], "2026-11-24T06:02:00Z");
        let before = device("nBefore", &[], "2026-11-24T05:59:00Z");
        let other = device("nOther", &["tag:m8trx-cust-bigco"], "2026-11-24T06:02:00Z");
        assert_eq!(
            of(&[old.clone(), new.clone(), bare.clone()]).as_deref(),
            Some("nNew")
        );
        assert_eq!(of(&[old, bare.clone()]).as_deref(), Some("nOld"));
        assert_eq!(
            of(&[before.clone(), bare, other.clone()]).as_deref(),
            Some("nBare")
        );
        assert_eq!(of(&[before, other]), None);
        // bootstrap.sh puts the id into the name, which is proof whatever the tag.
        let mine = named("nMine", "acme-i-0a", &["tag:m8trx-cust-bigco"]);
        assert_eq!(of(&[new.clone(), mine]).as_deref(), Some("nMine"));
        assert_eq!(
            of(&[named("nX", "acme-i-0b", &[]), named("nY", "acmei-0a", &[])]),
            None
        );
    }

    #[test]
    fn troubles_name_the_device_and_what_mends_them() {
        let acme: CustomerId = "cust_acme".parse().unwrap();
        let good = device("nA", &["tag:m8trx-cust-acme"], "2026-11-24T06:00:00Z");
        assert_eq!(trouble(&good, &acme), None);
        let locked = Device {
            tailnet_lock_error: "not signed".to_owned(),
            ..good.clone()
        };
        let told = trouble(&locked, &acme).unwrap();
        assert!(told.what.contains("nA out: not signed"), "{told:?}");
        assert!(
            told.fix.ends_with("m8trx tailnet lock sign cust_acme"),
            "{told:?}"
        );
        let waiting = Device {
            authorized: false,
            ..good
        };
        assert!(
            trouble(&waiting, &acme)
                .unwrap()
                .fix
                .contains("machines/100.64.0.7")
        );
        let bare = device("nB", &[], "2026-11-24T06:00:00Z");
        let told = trouble(&bare, &acme).unwrap();
        assert!(
            told.what
                .contains("no tag, so it has the access of op@example.com")
        );
        assert!(told.fix.contains("exactly tag:m8trx-cust-acme"));
    }

    #[test]
    fn machines_are_told_apart_by_their_whole_first_label() {
        assert!(same_machine("IP-10-0-0-1", "ip-10-0-0-1.ec2.internal"));
        assert!(!same_machine("ip-10-0-0-1", "ip-10-0-0-11"));
        assert!(!same_machine("", ""));
    }
}
