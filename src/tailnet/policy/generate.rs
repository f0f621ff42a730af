//! A whole policy file for some customers.
//!
//! Its size grows with the number of customers, not with that of their pairs: rules hold all customers in one list, and the
//! tests form a ring, in which each customer must not reach the next. A rule that opened a way between two customers by
//! mistake would most likely open it between neighbours too; what proves isolation for all pairs is the check.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::model::{BRAIN_TAG, OPERATOR_TAG, TEAM_TAG};
use crate::customer::CustomerId;

/// Users of a host that the team logs in as.
pub const SSH_USERS: [&str; 2] = ["ubuntu", "root"];

const HEAD: &str = "\
// The tailnet's policy file. Each customer's hosts reach the brain, and nothing else; the team reaches everything.
// Rules only ever add: a rule with `*`, `autogroup:tagged` or a network before customers' tags would end their isolation.
// `m8trx tailnet check` proves that it holds.
";

/// What stands above the rule that lets customers reach the brain.
pub(super) const BRAIN_COMMENT: &str = "Customers reach the brain.";

/// The tags of customers, in their order.
pub fn tags<'c>(customers: impl IntoIterator<Item = &'c CustomerId>) -> BTreeSet<String> {
    customers
        .into_iter()
        .map(CustomerId::tailscale_tag)
        .collect()
}

/// The policy file for customers with these tags, and a brain on this port.
pub fn policy(tags: &BTreeSet<String>, brain_port: u16) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("{\n");
    section(&mut text, "{", "tagOwners", "}", |out| {
        for (tag, owners) in base_owners() {
            let _ = writeln!(out, "    {}: {},", quoted(tag), inline(owners));
        }
        for tag in tags {
            let _ = writeln!(out, "    {}: {},", quoted(tag), inline([OPERATOR_TAG]));
        }
    });
    text.push('\n');
    section(&mut text, "[", "grants", "]", |out| {
        if !tags.is_empty() {
            let _ = writeln!(out, "    // {BRAIN_COMMENT}");
            let _ = writeln!(out, "    {},", brain_grant(tags, brain_port, INDENT));
        }
        out.push_str("    // The team reaches everything.\n");
        let _ = writeln!(out, "    {},", team_grant(tags, INDENT));
    });
    text.push('\n');
    section(&mut text, "[", "ssh", "]", |out| {
        if !tags.is_empty() {
            let _ = writeln!(out, "    {},", ssh_rule(tags, INDENT));
        }
    });
    text.push('\n');
    section(&mut text, "[", "tests", "]", |out| {
        if !tags.is_empty() {
            let _ = writeln!(out, "    {},", team_test(tags, INDENT));
        }
        for tag in tags {
            let _ = writeln!(out, "    {},", customer_test(tag, tags, brain_port));
        }
    });
    text.push('\n');
    section(&mut text, "[", "sshTests", "]", |out| {
        if !tags.is_empty() {
            let _ = writeln!(out, "    {},", team_ssh_test(tags, INDENT));
        }
        for tag in tags {
            let _ = writeln!(out, "    {},", customer_ssh_test(tag, tags));
        }
    });
    text.push_str("}\n");
    text
}

/// Where an element of a section begins.
pub(super) const INDENT: &str = "    ";

fn section(out: &mut String, open: &str, name: &str, close: &str, fill: impl FnOnce(&mut String)) {
    let _ = writeln!(out, "  {}: {open}", quoted(name));
    fill(out);
    let _ = writeln!(out, "  {close},");
}

/// The tags that are not a customer's, and who owns them: whoever may call itself the brain is given every customer's key,
/// whoever may call itself the team is root on every host, and the operator's client owns every customer.
pub(super) fn base_owners() -> [(&'static str, &'static [&'static str]); 3] {
    [
        (OPERATOR_TAG, &["autogroup:admin"]),
        (TEAM_TAG, &["autogroup:admin"]),
        (BRAIN_TAG, &["autogroup:admin"]),
    ]
}

/// A JSON string. Tags, ports and names of users need no escapes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A list on one line.
pub(super) fn inline<'t>(
    texts: impl IntoIterator<Item = &'t (impl AsRef<str> + ?Sized + 't)>,
) -> String {
    let texts: Vec<String> = texts
        .into_iter()
        .map(|text| quoted(text.as_ref()))
        .collect();
    format!("[{}]", texts.join(", "))
}

/// A list with one element a line, so that a customer more is a line more in a diff.
fn lines<'t>(texts: impl Iterator<Item = String> + 't, indent: &str) -> String {
    let mut out = "[\n".to_owned();
    for text in texts {
        let _ = writeln!(out, "{indent}    {},", quoted(&text));
    }
    let _ = write!(out, "{indent}  ]");
    out
}

/// Customers reach the brain's port.
pub(super) fn brain_grant(tags: &BTreeSet<String>, port: u16, indent: &str) -> String {
    format!(
        "{{\n{indent}  \"src\": {},\n{indent}  \"dst\": {},\n{indent}  \"ip\": [\"tcp:{port}\"],\n{indent}}}",
        lines(tags.iter().cloned(), indent),
        inline([BRAIN_TAG]),
    )
}

/// The team reaches the brain and all customers.
pub(super) fn team_grant(tags: &BTreeSet<String>, indent: &str) -> String {
    let all = std::iter::once(BRAIN_TAG.to_owned()).chain(tags.iter().cloned());
    format!(
        "{{\n{indent}  \"src\": {},\n{indent}  \"dst\": {},\n{indent}  \"ip\": [\"*\"],\n{indent}}}",
        inline([TEAM_TAG]),
        lines(all, indent),
    )
}

/// The team gets into all customers' hosts.
pub(super) fn ssh_rule(tags: &BTreeSet<String>, indent: &str) -> String {
    format!(
        "{{\n{indent}  \"action\": \"accept\",\n{indent}  \"src\": {},\n{indent}  \"dst\": {},\n{indent}  \"users\": {},\n{indent}}}",
        inline([TEAM_TAG]),
        lines(tags.iter().cloned(), indent),
        inline(["autogroup:nonroot", "root"]),
    )
}

/// The team reaches all customers' SSH ports.
pub(super) fn team_test(tags: &BTreeSet<String>, indent: &str) -> String {
    format!(
        "{{\n{indent}  \"src\": {},\n{indent}  \"accept\": {},\n{indent}}}",
        quoted(TEAM_TAG),
        lines(tags.iter().map(|tag| format!("{tag}:22")), indent),
    )
}

/// A customer reaches the brain's port, and neither the brain's SSH nor the next customer nor the team.
pub(super) fn customer_test(tag: &str, tags: &BTreeSet<String>, port: u16) -> String {
    format!(
        "{{\"src\": {}, \"accept\": {}, \"deny\": {}}}",
        quoted(tag),
        inline(&[accepted(port)]),
        inline(&denied(tag, tags)),
    )
}

/// What a customer must reach.
pub(super) fn accepted(port: u16) -> String {
    format!("{BRAIN_TAG}:{port}")
}

/// What a customer must not reach.
pub(super) fn denied(tag: &str, tags: &BTreeSet<String>) -> Vec<String> {
    others(tag, tags)
        .iter()
        .map(|other| format!("{other}:22"))
        .collect()
}

/// The brain, the next customer and the team.
pub(super) fn others(tag: &str, tags: &BTreeSet<String>) -> Vec<String> {
    std::iter::once(BRAIN_TAG)
        .chain(next(tag, tags))
        .chain([TEAM_TAG])
        .map(str::to_owned)
        .collect()
}

/// The team gets in as all the users that it should.
pub(super) fn team_ssh_test(tags: &BTreeSet<String>, indent: &str) -> String {
    format!(
        "{{\n{indent}  \"src\": {},\n{indent}  \"dst\": {},\n{indent}  \"accept\": {},\n{indent}}}",
        quoted(TEAM_TAG),
        lines(tags.iter().cloned(), indent),
        inline(SSH_USERS),
    )
}

/// A customer gets in nowhere.
pub(super) fn customer_ssh_test(tag: &str, tags: &BTreeSet<String>) -> String {
    format!(
        "{{\"src\": {}, \"dst\": {}, \"deny\": {}}}",
        quoted(tag),
        inline(&others(tag, tags)),
        inline(SSH_USERS),
    )
}

/// The customer after this one, the first after the last; none where there is no other.
fn next<'t>(tag: &str, tags: &'t BTreeSet<String>) -> Option<&'t str> {
    use std::ops::Bound::{Excluded, Unbounded};
    tags.range::<str, _>((Excluded(tag), Unbounded))
        .next()
        .or_else(|| tags.first())
        .map(String::as_str)
        .filter(|other| *other != tag)
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::super::hujson::Document;
    use super::*;

    fn of(names: &[&str]) -> BTreeSet<String> {
        names
            .iter()
            .map(|name| format!("tag:m8trx-cust-{name}"))
            .collect()
    }

    #[test]
    fn the_policy_of_two_customers() {
        insta::assert_snapshot!(policy(&of(&["bigco", "acme"]), 8080));
    }

    #[test]
    fn every_policy_made_holds() {
        for count in [0, 1, 2, 3, 40] {
            let names: Vec<String> = (0..count).map(|n| format!("c{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let report = check(&Document::parse(policy(&of(&names), 443)).unwrap(), 443);
            assert_eq!(report.violations, [], "{count}");
            assert_eq!(report.notes, [], "{count}");
            assert_eq!(report.customers, count);
            assert_eq!(report.tests.failed + report.tests.undecided, 0);
        }
    }

    #[test]
    fn its_size_grows_with_the_customers_and_not_with_their_pairs() {
        let size = |count: usize| {
            let names: Vec<String> = (0..count).map(|n| format!("customer-{n:04}")).collect();
            policy(
                &of(&names.iter().map(String::as_str).collect::<Vec<_>>()),
                8080,
            )
            .len()
        };
        let (hundred, thousand) = (size(100), size(1000));
        assert!(thousand < 11 * hundred, "{hundred} {thousand}");
        assert!(thousand < 1_000_000, "{thousand}");
    }
}
