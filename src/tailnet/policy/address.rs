//! Addresses in a policy file: single ones, networks and ranges, and whether they may be devices of the tailnet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses from `first` to `last`, both of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// What Tailscale gives to devices and services (Tailscale's reserved addresses): `100.64.0.0/10` and `fd7a:115c:a1e0::/48`.
/// 4via6 subnets are in the latter too.
const TAILNET: [AddressRange; 2] = [
    AddressRange {
        first: IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)),
        last: IpAddr::V4(Ipv4Addr::new(100, 127, 255, 255)),
    },
    AddressRange {
        first: IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0)),
        last: IpAddr::V6(Ipv6Addr::new(
            0xfd7a, 0x115c, 0xa1e0, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
        )),
    },
];

/// Addresses in the tailnet's ranges that no device ever has: MagicDNS and services of this machine (Tailscale's reserved
/// addresses), and what ChromeOS takes for itself.
const NEVER_DEVICES: [&str; 3] = ["100.100.0.0/24", "100.100.100.0/24", "100.115.92.0/23"];

/// Networks in which a customer's host may have a second address, reached through a subnet router.
const PRIVATE: [&str; 6] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

impl AddressRange {
    /// Reads `100.101.102.103`, `10.0.0.0/8`, `10.0.0.1-10.0.0.9`, and the same in IPv6.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = text.parse::<IpAddr>() {
            let address = address.to_canonical();
            return Some(Self {
                first: address,
                last: address,
            });
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self::of_network(network));
        }
        let (first, last) = text.split_once('-')?;
        let (first, last) = (first.parse::<IpAddr>().ok()?, last.parse::<IpAddr>().ok()?);
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// IPv4 addresses written as IPv6 ones are what they stand for.
    fn of_network(network: IpNet) -> Self {
        let (first, last) = (network.network(), network.broadcast());
        match (first, last) {
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                match (one.to_ipv4_mapped(), other.to_ipv4_mapped()) {
                    (Some(first), Some(last)) => Self {
                        first: first.into(),
                        last: last.into(),
                    },
                    _ => Self { first, last },
                }
            }
            _ => Self { first, last },
        }
    }

    /// The one address it is.
    pub fn single(&self) -> Option<IpAddr> {
        (self.first == self.last).then_some(self.first)
    }

    /// Whether all of it is in what Tailscale gives to devices and services.
    pub fn is_within_tailnet(&self) -> bool {
        TAILNET
            .iter()
            .any(|tailnet| tailnet.contains(self.first) && tailnet.contains(self.last))
    }

    /// Whether no device can ever have an address in it.
    pub fn is_never_a_device(&self) -> bool {
        NEVER_DEVICES
            .iter()
            .filter_map(|network| Self::parse(network))
            .any(|never| never.contains(self.first) && never.contains(self.last))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4()
            && self.first <= other.last
            && other.first <= self.last
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether every device has an address in it.
    pub fn covers_tailnet(&self) -> bool {
        TAILNET
            .iter()
            .any(|tailnet| self.contains(tailnet.first) && self.contains(tailnet.last))
    }

    /// Whether some device may have an address in it.
    pub fn meets_tailnet(&self) -> bool {
        TAILNET.iter().any(|tailnet| self.overlaps(tailnet))
    }

    /// Whether it holds private addresses.
    pub fn meets_private(&self) -> bool {
        PRIVATE
            .iter()
            .filter_map(|network| Self::parse(network))
            .any(|network| self.overlaps(&network))
    }
}

/// Whether a device or a service of the tailnet may have this address.
pub fn is_of_tailnet(address: IpAddr) -> bool {
    TAILNET.iter().any(|tailnet| tailnet.contains(address))
}

/// Whether an address is reached over an exit node and not inside.
pub fn is_public(address: IpAddr) -> bool {
    let range = AddressRange {
        first: address,
        last: address,
    };
    !is_of_tailnet(address) && !range.meets_private() && !address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_networks_and_ranges() {
        let range = |text: &str| AddressRange::parse(text).unwrap();
        for (text, covers, meets, private) in [
            ("100.101.102.103", false, true, false),
            ("[fd7a:115c:a1e0::1]", false, true, true),
            ("100.64.0.0/10", true, true, false),
            ("fd7a:115c:a1e0::/48", true, true, true),
            ("0.0.0.0/0", true, true, true),
            ("::/0", true, true, true),
            ("100.64.0.0-100.127.255.255", true, true, false),
            ("100.100.0.0-100.100.0.9", false, true, false),
            ("100.0.0.0/10", false, false, false),
            ("10.1.0.0/16", false, false, true),
            ("198.51.100.0/24", false, false, false),
        ] {
            let range = range(text);
            assert_eq!(
                (
                    range.covers_tailnet(),
                    range.meets_tailnet(),
                    range.meets_private()
                ),
                (covers, meets, private),
                "{text}"
            );
        }
        for text in [
            "",
            "host",
            "10.0.0.0/33",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-::1",
            "1.2.3",
        ] {
            assert_eq!(AddressRange::parse(text), None, "{text}");
        }
    }
}
