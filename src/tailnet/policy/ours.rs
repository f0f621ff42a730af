//! Which rules and tests of a file are in the form in which this program makes them, and so may be changed by it.

use std::collections::BTreeSet;

use super::generate::SSH_USERS;
use super::hujson::{Node, Value};
use super::model::{BRAIN_TAG, CUSTOMER_PREFIX, TEAM_TAG};

/// Whether it is a list of just these strings.
pub(super) fn is_list_of(node: &Node, texts: &[impl AsRef<str>]) -> bool {
    let elements = node.as_array();
    elements.is_some_and(|elements| {
        elements.len() == texts.len()
            && elements
                .iter()
                .zip(texts)
                .all(|(element, text)| element.as_str() == Some(text.as_ref()))
    })
}

/// Whether it is an object with just these members.
fn has_just(node: &Node, names: &[&str]) -> bool {
    node.as_object().is_some_and(|members| {
        members.len() == names.len()
            && members
                .iter()
                .all(|member| names.contains(&member.name.as_str()))
    })
}

/// Whether a member is a list of customers' tags, with `suffix` behind each, or of what is in `besides`.
fn is_of_customers(node: &Node, member: &str, suffix: &str, besides: &[&str]) -> bool {
    let Some(Value::Array(elements)) = node.get(member).map(|list| &list.value) else {
        return false;
    };
    elements.iter().all(|element| {
        element.as_str().is_some_and(|text| {
            let tag = text.strip_suffix(suffix).unwrap_or_default();
            besides.contains(&text) || tag.starts_with(CUSTOMER_PREFIX)
        })
    })
}

fn is(node: &Node, member: &str, texts: &[&str]) -> bool {
    node.get(member).is_some_and(|list| is_list_of(list, texts))
}

/// The grant that lets customers reach this port of the brain.
pub(super) fn is_brain_grant(node: &Node, port: u16) -> bool {
    has_just(node, &["src", "dst", "ip"])
        && is_of_customers(node, "src", "", &[])
        && is(node, "dst", &[BRAIN_TAG])
        && is(node, "ip", &[&format!("tcp:{port}")])
}

pub(super) fn is_team_grant(node: &Node) -> bool {
    has_just(node, &["src", "dst", "ip"])
        && is(node, "src", &[TEAM_TAG])
        && is_of_customers(node, "dst", "", &[BRAIN_TAG])
        && is(node, "ip", &["*"])
}

pub(super) fn is_ssh_rule(node: &Node) -> bool {
    has_just(node, &["action", "src", "dst", "users"])
        && node.get("action").and_then(Node::as_str) == Some("accept")
        && is(node, "src", &[TEAM_TAG])
        && is_of_customers(node, "dst", "", &[])
}

fn from_team(node: &Node) -> bool {
    node.get("src").and_then(Node::as_str) == Some(TEAM_TAG)
}

pub(super) fn is_team_test(node: &Node) -> bool {
    has_just(node, &["src", "accept"])
        && from_team(node)
        && is_of_customers(node, "accept", ":22", &[])
}

pub(super) fn is_team_ssh_test(node: &Node) -> bool {
    has_just(node, &["src", "dst", "accept"])
        && from_team(node)
        && is_of_customers(node, "dst", "", &[])
        && is(node, "accept", &SSH_USERS)
}

/// A test of a customer, of either kind; of whatever port of the brain, which may have moved since.
pub(super) fn is_customer_test(node: &Node) -> bool {
    let is_brain = |text: &str| {
        let port = text
            .strip_prefix(BRAIN_TAG)
            .and_then(|rest| rest.strip_prefix(':'));
        port.is_some_and(|port| port.parse::<u16>().is_ok())
    };
    let accepts_brain = matches!(
        node.get("accept").and_then(Node::as_array),
        Some([one]) if one.as_str().is_some_and(is_brain)
    );
    let (brain_ssh, team_ssh) = (format!("{BRAIN_TAG}:22"), format!("{TEAM_TAG}:22"));
    let network = has_just(node, &["src", "accept", "deny"])
        && accepts_brain
        && is_of_customers(node, "deny", ":22", &[&brain_ssh, &team_ssh]);
    let ssh = has_just(node, &["src", "dst", "deny"])
        && is(node, "deny", &SSH_USERS)
        && is_of_customers(node, "dst", "", &[BRAIN_TAG, TEAM_TAG]);
    network || ssh
}

/// What the lists of such elements hold together.
pub(super) fn listed(
    elements: &[Node],
    is_ours: fn(&Node) -> bool,
    member: &str,
) -> BTreeSet<String> {
    elements
        .iter()
        .filter(|element| is_ours(element))
        .filter_map(|element| element.get(member))
        .flat_map(|list| list.strings().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
