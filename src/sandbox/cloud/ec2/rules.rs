//! Rules of security groups.

use super::groups::target;
use super::{ACCOUNT, ApiError, Call, Params, Xml, authorize, dry_run};

/// Traffic of one kind with one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub protocol: String,
    pub ports: Option<(i64, i64)>,
    pub peer: Peer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    V4(String),
    V6(String),
    Group(String),
}

/// New groups let everything out.
pub(super) fn all_egress() -> Rule {
    Rule {
        protocol: "-1".to_owned(),
        ports: None,
        peer: Peer::V4("0.0.0.0/0".to_owned()),
    }
}

/// Writes a list of rules.
pub(super) fn write_rules(xml: &mut Xml, name: &str, rules: &[Rule]) {
    // EC2 shows rules of the same protocol and ports as one, with all peers.
    let mut kinds: Vec<(&str, Option<(i64, i64)>)> = Vec::new();
    for rule in rules {
        let kind = (rule.protocol.as_str(), rule.ports);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    xml.list(name, "item", kinds, |xml, (protocol, ports)| {
        let of_kind = || {
            rules
                .iter()
                .filter(move |rule| rule.protocol == protocol && rule.ports == ports)
                .map(|rule| &rule.peer)
        };
        xml.text("ipProtocol", protocol)
            .optional("fromPort", ports.map(|ports| ports.0))
            .optional("toPort", ports.map(|ports| ports.1));
        xml.element("groups", |xml| {
            for peer in of_kind() {
                if let Peer::Group(id) = peer {
                    xml.element("item", |xml| {
                        xml.text("userId", ACCOUNT).text("groupId", id);
                    });
                }
            }
        });
        for (list, member) in [("ipRanges", "cidrIp"), ("ipv6Ranges", "cidrIpv6")] {
            xml.element(list, |xml| {
                for peer in of_kind() {
                    match (peer, member) {
                        (Peer::V4(cidr), "cidrIp") | (Peer::V6(cidr), "cidrIpv6") => {
                            xml.element("item", |xml| {
                                xml.text(member, cidr);
                            });
                        }
                        _ => {}
                    }
                }
            });
        }
        xml.element("prefixListIds", |_| {});
    });
}

/// Authorises or revokes ingress or egress.
pub(super) fn change(call: &mut Call, params: &Params, action: &str) -> Result<Xml, ApiError> {
    let id = target(call, params)?;
    authorize(call, action, "security-group", &id)?;
    let rules = read_rules(params)?;
    dry_run(params)?;
    let store = &mut call.region().ec2;
    for rule in &rules {
        if let Peer::Group(peer) = &rule.peer {
            store.require_group(peer)?;
        }
    }
    let group = store
        .groups
        .get_mut(&id)
        .ok_or_else(|| super::groups::not_found(&id))?;
    let held = if action.ends_with("Egress") {
        &mut group.egress
    } else {
        &mut group.ingress
    };
    if action.starts_with("Authorize") {
        if rules.iter().any(|rule| held.contains(rule)) {
            return Err(ApiError::new(
                "InvalidPermission.Duplicate",
                "the specified rule already exists",
            ));
        }
        held.extend(rules);
    } else {
        if rules.iter().any(|rule| !held.contains(rule)) {
            return Err(ApiError::new(
                "InvalidPermission.NotFound",
                "The specified rule does not exist in this security group.",
            ));
        }
        held.retain(|rule| !rules.contains(rule));
    }
    let mut xml = Xml::default();
    xml.text("return", true);
    Ok(xml)
}

fn read_rules(params: &Params) -> Result<Vec<Rule>, ApiError> {
    let mut permissions = params.structures("IpPermissions");
    // The short form: one rule in the request itself.
    if permissions.is_empty() && params.get("IpProtocol").is_some() {
        permissions.push(params.clone());
    }
    let mut rules = Vec::new();
    for permission in permissions {
        let protocol = permission.required("IpProtocol")?.to_owned();
        if !matches!(protocol.as_str(), "-1" | "tcp" | "udp" | "icmp" | "icmpv6")
            && protocol.parse::<u8>().is_err()
        {
            return Err(super::invalid(
                "protocol",
                &protocol,
                "Unknown IP protocol.",
            ));
        }
        let ports = match (permission.number("FromPort")?, permission.number("ToPort")?) {
            (Some(from), Some(to)) if protocol != "-1" => {
                let valid = (-1..=65535).contains(&from) && (-1..=65535).contains(&to);
                if !valid || (from > to && !protocol.starts_with("icmp")) {
                    return Err(ApiError::new(
                        "InvalidParameterValue",
                        format!("Invalid TCP/UDP port range ({from}:{to})"),
                    ));
                }
                Some((from, to))
            }
            (None, None) | (Some(_), Some(_)) if protocol == "-1" => None,
            _ => {
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    "Invalid value for portRange. Must specify both from and to ports with TCP/UDP.",
                ));
            }
        };
        let mut peers: Vec<Peer> = Vec::new();
        peers.extend(
            permission
                .get("CidrIp")
                .map(|cidr| Peer::V4(cidr.to_owned())),
        );
        for (list, member, peer) in [
            ("IpRanges", "CidrIp", Peer::V4 as fn(String) -> Peer),
            ("Ipv6Ranges", "CidrIpv6", Peer::V6),
            ("Groups", "GroupId", Peer::Group),
        ] {
            for item in permission.structures(list) {
                peers.push(peer(item.required(member)?.to_owned()));
            }
        }
        for peer in peers {
            check_cidr(&peer)?;
            rules.push(Rule {
                protocol: protocol.clone(),
                ports,
                peer,
            });
        }
    }
    if rules.is_empty() {
        return Err(ApiError::new(
            "MissingParameter",
            "The request must contain the parameter ipPermissions",
        ));
    }
    Ok(rules)
}

fn check_cidr(peer: &Peer) -> Result<(), ApiError> {
    let (cidr, limit) = match peer {
        Peer::V4(cidr) => (cidr, 32),
        Peer::V6(cidr) => (cidr, 128),
        Peer::Group(_) => return Ok(()),
    };
    let valid = cidr.split_once('/').is_some_and(|(address, length)| {
        let address = match limit {
            32 => address.parse::<std::net::Ipv4Addr>().is_ok(),
            _ => address.parse::<std::net::Ipv6Addr>().is_ok(),
        };
        address && length.parse::<u8>().is_ok_and(|length| length <= limit)
    });
    if valid {
        Ok(())
    } else {
        Err(ApiError::new(
            "InvalidParameterValue",
            format!("CIDR block {cidr} is malformed"),
        ))
    }
}
