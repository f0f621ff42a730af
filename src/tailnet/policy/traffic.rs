//! Protocols and ports, as `ip` of a grant and `proto` with the ports of an ACL write them.

use std::fmt;

use super::truth::Truth;

/// An IP protocol as a rule names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `*`
    Any,
    /// None is named: TCP and UDP.
    Unnamed,
    /// One, by its IANA number.
    Number(u8),
}

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;

/// Names that the policy file knows (Tailscale's policy reference, `proto`).
const NAMES: [(&str, u8); 14] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipv4", 4),
    ("ip-in-ip", 4),
    ("tcp", TCP),
    ("egp", 8),
    ("igp", 9),
    ("udp", UDP),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("sctp", 132),
];

/// Traffic that a rule lets through: ports of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    protocol: Protocol,
    first: u16,
    last: u16,
    /// Whether it was understood. What was not is taken for anything.
    understood: bool,
}

impl Traffic {
    /// Everything.
    pub const ALL: Self = Self {
        protocol: Protocol::Any,
        first: 0,
        last: u16::MAX,
        understood: true,
    };
    /// What could not be read, and so may be anything.
    pub const UNKNOWN: Self = Self {
        understood: false,
        ..Self::ALL
    };

    /// Whether it holds a port of a protocol.
    pub fn holds(&self, protocol: u8, port: u16) -> Truth {
        if !self.understood {
            return Truth::Perhaps;
        }
        // Whatever lets something through between two addresses lets ICMP through as well (policy reference, `proto`).
        let ping = matches!(protocol, 1 | 58);
        let fits = match self.protocol {
            Protocol::Any => true,
            Protocol::Unnamed => matches!(protocol, TCP | UDP),
            Protocol::Number(number) => number == protocol,
        };
        Truth::of(ping || (fits && self.first <= port && port <= self.last))
    }

    /// Whether it is one TCP port and nothing else.
    pub fn is_just(&self, port: u16) -> bool {
        self.protocol == Protocol::Number(TCP)
            && self.understood
            && self.first == port
            && self.last == port
    }

    /// A port to show: 22 if it is among them.
    pub fn example(&self) -> String {
        let port = if self.first <= 22 && 22 <= self.last {
            22
        } else {
            self.first
        };
        match self.protocol {
            Protocol::Any | Protocol::Unnamed => format!("tcp:{port}"),
            Protocol::Number(number @ (TCP | UDP | 132)) => {
                format!("{}:{port}", protocol_name(number))
            }
            Protocol::Number(number) => protocol_name(number),
        }
    }
}

fn protocol_name(number: u8) -> String {
    NAMES
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(
            || format!("protocol {number}"),
            |(name, _)| (*name).to_owned(),
        )
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.example())
    }
}

/// Reads the name or number of a protocol.
pub fn protocol(text: &str) -> Option<Protocol> {
    let text = text.trim();
    match text {
        "" => Some(Protocol::Unnamed),
        "*" => Some(Protocol::Any),
        _ => NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, number)| *number)
            .or_else(|| text.parse().ok())
            .map(Protocol::Number),
    }
}

/// Reads ports: `*`, `22`, `22,80`, `8000-8999`, and mixtures.
pub fn ports(protocol: Protocol, text: &str) -> Option<Vec<Traffic>> {
    text.split(',')
        .map(|part| {
            let part = part.trim();
            let (first, last) = if part == "*" {
                (0, u16::MAX)
            } else if let Some((first, last)) = part.split_once('-') {
                (first.trim().parse().ok()?, last.trim().parse().ok()?)
            } else {
                let port = part.parse().ok()?;
                (port, port)
            };
            // Only these have ports; Tailscale refuses them with others.
            let ported = match protocol {
                Protocol::Number(number) => matches!(number, TCP | UDP | 132),
                Protocol::Any | Protocol::Unnamed => true,
            };
            let fits = first <= last && (ported || (first, last) == (0, u16::MAX));
            fits.then_some(Traffic {
                protocol,
                first,
                last,
                understood: true,
            })
        })
        .collect()
}

/// Reads an element of a grant's `ip`: `*`, `443`, `80-443`, `tcp:443`, `icmp:*`, `tcp:80,443`.
pub fn of_grant(text: &str) -> Option<Vec<Traffic>> {
    match text.split_once(':') {
        None if text.trim() == "*" => Some(vec![Traffic::ALL]),
        None => ports(Protocol::Unnamed, text),
        Some((name, rest)) => ports(protocol(name).filter(|p| *p != Protocol::Unnamed)?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, protocol: u8, port: u16) -> bool {
        of_grant(text)
            .unwrap()
            .iter()
            .any(|traffic| traffic.holds(protocol, port) == Truth::Yes)
    }

    #[test]
    fn what_a_grant_lets_through() {
        for (text, protocol, port, expected) in [
            ("*", TCP, 22, true),
            ("*", 47, 0, true),
            ("443", TCP, 443, true),
            ("443", UDP, 443, true),
            ("443", 132, 443, false),
            ("443", TCP, 22, false),
            ("80-443", TCP, 443, true),
            ("80-443", TCP, 444, false),
            ("tcp:22,8080", TCP, 8080, true),
            ("tcp:8080", UDP, 8080, false),
            ("udp:*", UDP, 1, true),
            ("6:22", TCP, 22, true),
            ("icmp:*", TCP, 22, false),
            ("tcp:8080", 1, 0, true),
            ("*:22", TCP, 22, true),
        ] {
            assert_eq!(
                holds(text, protocol, port),
                expected,
                "{text} {protocol} {port}"
            );
        }
        for text in [
            "", "tcp", "tcp:", "tcp:x", "icmp:22", "65536", "9-1", "foo:22", ":22", "tcp:1-",
        ] {
            assert_eq!(of_grant(text), None, "{text}");
        }
        assert_eq!(Traffic::UNKNOWN.holds(TCP, 22), Truth::Perhaps);
    }

    #[test]
    fn an_example_of_the_ports() {
        let example = |text: &str| of_grant(text).unwrap()[0].example();
        assert_eq!(example("*"), "tcp:22");
        assert_eq!(example("tcp:1-100"), "tcp:22");
        assert_eq!(example("udp:53"), "udp:53");
        assert_eq!(example("443"), "tcp:443");
        assert_eq!(example("icmp:*"), "icmp");
        assert_eq!(example("99:*"), "protocol 99");
    }
}
