//! Who may give a device which tag. Whoever may give it a customer's tag is inside that customer's wall.

use std::collections::{BTreeMap, HashSet};

use super::check::{Finding, Kind};
use super::model::{BRAIN_TAG, CUSTOMER_PREFIX, OPERATOR_TAG, Policy, TEAM_TAG, TagOwner};
use super::selection::TagId;

/// Those who may give any tag anyway (Tailscale's policy reference, `tagOwners`), and the owner of the tailnet.
const ADMINS: [&str; 3] = [
    "autogroup:admin",
    "autogroup:network-admin",
    "autogroup:owner",
];

/// What is wrong with tags and their owners.
pub fn examine(policy: &Policy<'_>) -> Vec<Finding> {
    let mut findings = undefined(policy);
    findings.extend(malformed(policy));
    let customers: HashSet<TagId> = policy.customers.iter().copied().collect();
    for owner in &policy.tag_owners {
        let tag = policy.names.tag_name(owner.tag);
        let of_customer = customers.contains(&owner.tag);
        for (who, at) in &owner.owners {
            let trusted = ADMINS.contains(who) || (of_customer && *who == OPERATOR_TAG);
            if (of_customer || gives(tag).is_some()) && !trusted {
                findings.push(claim(policy, owner, who, *at));
            } else if who.starts_with(CUSTOMER_PREFIX) {
                let what = format!(
                    "a host of the customer with {who} may take {tag} for its own, and with it what {tag} reaches"
                );
                findings.push(finding(policy, owner, *at, what).between(*who, tag, None));
            }
        }
    }
    findings
}

/// What comes with a tag of the design that is not a customer's.
fn gives(tag: &str) -> Option<&'static str> {
    match tag {
        OPERATOR_TAG => Some("every customer's tag"),
        BRAIN_TAG => Some("the brain's place, to which every customer's host sends its key"),
        TEAM_TAG => Some("a way into every customer's host as root"),
        _ => None,
    }
}

fn finding(policy: &Policy<'_>, owner: &TagOwner<'_>, at: usize, what: String) -> Finding {
    let path = format!("tagOwners.{}", policy.names.tag_name(owner.tag));
    Finding::new(Kind::TagClaimable, policy.document, &path, at, what)
}

/// Somebody owns a customer's tag who is neither an admin nor the operator, or one of the design's who is no admin.
fn claim(policy: &Policy<'_>, owner: &TagOwner<'_>, who: &str, at: usize) -> Finding {
    let tag = policy.names.tag_name(owner.tag);
    let people = people(policy, who, &mut HashSet::new());
    let through = if people.is_empty() || people == [who] {
        String::new()
    } else {
        format!(" (that is {})", shortened(&people))
    };
    let what = match gives(tag) {
        Some(what) => {
            format!("{who}{through} may give a device {tag}, and with it {what}; only admins may")
        }
        None => {
            format!("{who}{through} may give a device {tag}; only admins and {OPERATOR_TAG} may")
        }
    };
    finding(policy, owner, at, what).between(who, tag, None)
}

/// Who stands behind an owner in the end: the members of a group, the owners of a tag.
fn people(policy: &Policy<'_>, who: &str, seen: &mut HashSet<String>) -> Vec<String> {
    if !seen.insert(who.to_owned()) {
        return Vec::new();
    }
    let next: Vec<&str> = if let Some(members) = policy.names.groups.get(who) {
        members.clone()
    } else if let Some(tag) = policy.names.known_tag(who) {
        policy
            .tag_owners
            .iter()
            .filter(|owner| owner.tag == tag)
            .flat_map(|owner| owner.owners.iter().map(|(text, _)| *text))
            .collect()
    } else {
        return vec![who.to_owned()];
    };
    next.into_iter()
        .flat_map(|next| people(policy, next, seen))
        .collect()
}

fn shortened(people: &[String]) -> String {
    match people {
        [a, b, c, _, rest @ ..] => format!("{a}, {b}, {c} and {} more", rest.len() + 1),
        few => few.join(", "),
    }
}

/// Tags that no client accepts, most of all one with a wildcard: `tag:m8trx-cust-*` would look like all customers.
fn malformed(policy: &Policy<'_>) -> Vec<Finding> {
    let is_good = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let owned = policy.tag_owners.iter().map(|owner| (owner.tag, owner.at));
    let used = policy.used_tags.iter().map(|(tag, at)| (*tag, *at));
    let places: BTreeMap<TagId, usize> = used.chain(owned).collect();
    places
        .into_iter()
        .filter_map(|(tag, at)| {
            let tag = policy.names.tag_name(tag);
            let name = tag.strip_prefix("tag:").unwrap_or_default();
            (!is_good(name)).then(|| {
                let shown = tag.escape_debug();
                let what = format!("`{shown}` is no tag: `tag:`, a letter, then letters, digits and `-`; Tailscale refuses the file");
                Finding::new(Kind::Invalid, policy.document, tag, at, what)
            })
        })
        .collect()
}

/// Tags that are used and that nobody owns: Tailscale refuses the file.
fn undefined(policy: &Policy<'_>) -> Vec<Finding> {
    let defined: HashSet<TagId> = policy.tag_owners.iter().map(|owner| owner.tag).collect();
    let mut missing: Vec<(usize, TagId)> = policy
        .used_tags
        .iter()
        .filter(|(tag, _)| !defined.contains(tag))
        .map(|(tag, at)| (*at, *tag))
        .collect();
    missing.sort_unstable();
    missing
        .into_iter()
        .map(|(at, tag)| {
            let tag = policy.names.tag_name(tag);
            let what = format!("{tag} is not in `tagOwners`; Tailscale refuses the file");
            Finding::new(Kind::Invalid, policy.document, tag, at, what)
        })
        .collect()
}
