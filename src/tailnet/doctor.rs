//! What in a tailnet endangers customers or will fail soon, why it matters, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::devices::Device;
use super::keys::AuthKey;
use super::lock::LockState;
use super::policy::check::{Kind, check};
use super::policy::hujson::Document;
use super::policy::model::{
    BRAIN_TAG, CUSTOMER_PREFIX, OPERATOR_TAG, Policy, Rule, SshRule, TEAM_TAG,
};
use crate::customer::CustomerId;

/// A key with fewer days left is near its end.
pub const NEAR_EXPIRY_DAYS: i64 = 14;
/// The most examples that one finding names.
const NAMED: usize = 5;

/// What is looked at.
#[derive(Debug)]
pub struct Tailnet<'t> {
    /// The policy file.
    pub policy: &'t Document,
    /// The port of the brain.
    pub brain_port: u16,
    /// All devices.
    pub devices: &'t [Device],
    /// All auth keys.
    pub keys: &'t [AuthKey],
    /// How Tailnet Lock stands.
    pub lock: LockState,
    /// The customers, where they could be looked up.
    pub customers: Option<&'t BTreeSet<CustomerId>>,
    /// Now.
    pub now: Timestamp,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Isolation does not hold, or something fails or will fail soon.
    Problem,
    /// It would be better otherwise.
    Advice,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnosis {
    /// Its stable name.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub todo: String,
}

#[cfg(test)]
mod tests;

/// Looks at everything; problems come first.
pub fn examine(tailnet: &Tailnet<'_>) -> Vec<Diagnosis> {
    let policy = Policy::read(tailnet.policy);
    let mut found = Vec::new();
    found.extend(allow_all(&policy));
    found.extend(not_isolated(tailnet));
    found.extend(missing_owners(&policy, tailnet));
    found.extend(unused_tags(&policy, tailnet));
    found.extend(keys(tailnet));
    found.extend(devices(tailnet));
    found.extend(wide_ssh(&policy));
    found.extend(lock(tailnet.lock));
    found.sort_by_key(|diagnosis| diagnosis.severity);
    found
}

fn some(mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let listed = names.join(", ");
    if more > 0 {
        format!("{listed} and {more} more")
    } else {
        listed
    }
}

fn place(policy: &Policy<'_>, path: &str, at: usize) -> String {
    format!("{path} at line {}", policy.document.position(at).line)
}

/// The rule with which every tailnet begins.
fn allow_all(policy: &Policy<'_>) -> Option<Diagnosis> {
    let opens_all = |rule: &&Rule<'_>| {
        let all = |target: &super::policy::model::Target<'_>| {
            target.dst.is_everything() && !target.traffic.is_empty()
        };
        rule.src.is_everything() && rule.targets.iter().any(all)
    };
    let what = match policy.rules.iter().find(opens_all) {
        Some(rule) => format!(
            "the rule that lets everything reach everything is still there: {}",
            place(policy, &rule.path, rule.at)
        ),
        None if !policy.has_rules => {
            "the policy file has neither `grants` nor `acls`, and so lets everything through"
                .to_owned()
        }
        None => return None,
    };
    Some(Diagnosis {
        id: "allow-all",
        severity: Severity::Problem,
        what,
        why: "rules only ever add: as long as it is there, every customer's host reaches every other, whatever the other rules say",
        todo: "take it out in the admin console under Access controls, from `grants` and `acls` both; add rules for what your own machines need first".to_owned(),
    })
}

fn not_isolated(tailnet: &Tailnet<'_>) -> Option<Diagnosis> {
    let report = check(tailnet.policy, tailnet.brain_port);
    let isolating = report.violations.iter().filter(|finding| {
        !matches!(
            finding.kind,
            Kind::Invalid | Kind::TestFails | Kind::SshTestFails
        )
    });
    let lines: Vec<String> = isolating.map(ToString::to_string).collect();
    let first = lines.first()?;
    let more = match lines.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Some(Diagnosis {
        id: "not-isolated",
        severity: Severity::Problem,
        what: format!("the policy file does not hold: {first}{more}"),
        why: "the network is what keeps customers apart",
        todo: "m8trx tailnet check".to_owned(),
    })
}

/// Tags that the design needs, or that a customer has, and that the file does not define.
fn missing_owners(policy: &Policy<'_>, tailnet: &Tailnet<'_>) -> Option<Diagnosis> {
    let defined: BTreeSet<&str> = policy
        .tag_owners
        .iter()
        .map(|owner| policy.names.tag_name(owner.tag))
        .collect();
    let wanted = [OPERATOR_TAG, TEAM_TAG, BRAIN_TAG]
        .map(str::to_owned)
        .into_iter()
        .chain(
            tailnet
                .customers
                .into_iter()
                .flatten()
                .map(CustomerId::tailscale_tag),
        );
    let missing: Vec<String> = wanted
        .filter(|tag| !defined.contains(tag.as_str()))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let customers: Vec<String> = tailnet
        .customers
        .into_iter()
        .flatten()
        .filter(|customer| missing.contains(&customer.tailscale_tag()))
        .map(ToString::to_string)
        .collect();
    let todo = if customers.is_empty() {
        "put them into `tagOwners` in the admin console under Access controls, owned by autogroup:admin (m8trx tailnet policy shows how); m8trx tailnet apply does it with the next customer".to_owned()
    } else {
        format!("m8trx tailnet apply {}", customers.join(" "))
    };
    Some(Diagnosis {
        id: "tag-owners-missing",
        severity: Severity::Problem,
        what: format!("the policy file does not define {}", some(missing)),
        why: "no key can be minted for a tag that is not defined, and no host can join with it",
        todo,
    })
}

/// Customers as arguments of a command.
fn listed(customers: &[CustomerId]) -> String {
    let ids: Vec<&str> = customers.iter().map(CustomerId::as_str).collect();
    ids.join(" ")
}

fn unused_tags(policy: &Policy<'_>, tailnet: &Tailnet<'_>) -> Option<Diagnosis> {
    let customers = tailnet.customers?;
    let unused: Vec<CustomerId> = policy
        .customers
        .iter()
        .map(|tag| policy.names.tag_name(*tag))
        .filter(|tag| {
            !tailnet
                .devices
                .iter()
                .any(|device| device.tags.iter().any(|own| own == tag))
        })
        .filter_map(CustomerId::from_tailscale_tag)
        .filter(|customer| !customers.contains(customer))
        .collect();
    if unused.is_empty() {
        return None;
    }
    let flags: Vec<String> = unused.iter().map(|id| format!("--remove {id}")).collect();
    Some(Diagnosis {
        id: "unused-tags",
        severity: Severity::Advice,
        what: format!(
            "the policy file names customers that have neither a parameter nor a host in AWS nor a device: {}",
            some(unused.iter().map(CustomerId::tailscale_tag).collect())
        ),
        why: "a key that was minted for such a tag still lets a machine in",
        todo: format!("m8trx tailnet apply {}", flags.join(" ")),
    })
}

/// Customers whose best key ends soon. Older keys of theirs do not matter.
fn keys(tailnet: &Tailnet<'_>) -> Option<Diagnosis> {
    let mut best: BTreeMap<&str, Option<i64>> = BTreeMap::new();
    for key in tailnet.keys.iter().filter(|key| !key.is_dead(tailnet.now)) {
        let [tag] = key.tags() else { continue };
        if !tag.starts_with(CUSTOMER_PREFIX) {
            continue;
        }
        let days = key.days_left(tailnet.now);
        let known = best.entry(tag).or_insert(days);
        // None never ends.
        *known = match (*known, days) {
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        };
    }
    let near: Vec<String> = best
        .iter()
        .filter_map(|(tag, days)| {
            let days = (*days)?;
            (days < NEAR_EXPIRY_DAYS).then(|| format!("{tag} ({days} days)"))
        })
        .collect();
    let ends_soon = |days: &Option<i64>| days.is_some_and(|days| days < NEAR_EXPIRY_DAYS);
    let customers: Vec<CustomerId> = best
        .iter()
        .filter(|(_, days)| ends_soon(days))
        .filter_map(|(tag, _)| CustomerId::from_tailscale_tag(tag))
        .collect();
    if near.is_empty() {
        return None;
    }
    Some(Diagnosis {
        id: "keys-near-expiry",
        severity: Severity::Problem,
        what: format!("auth keys end soon: {}", some(near)),
        why: "a host that is restarted or replaced after that does not get into the tailnet again",
        todo: format!("m8trx rotate-tailscale-key {}", listed(&customers)),
    })
}

fn devices(tailnet: &Tailnet<'_>) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    let of_customer = |tag: &&String| tag.starts_with(CUSTOMER_PREFIX);
    let names = |wanted: &dyn Fn(&Device) -> bool| -> Vec<String> {
        tailnet
            .devices
            .iter()
            .filter(|device| wanted(device))
            .map(|device| device.hostname.clone())
            .collect()
    };
    let mixed =
        names(&|device| device.tags.len() > 1 && device.tags.iter().any(|tag| of_customer(&tag)));
    if !mixed.is_empty() {
        found.push(Diagnosis {
            id: "mixed-tags",
            severity: Severity::Problem,
            what: format!("devices carry a customer's tag and another one: {}", some(mixed)),
            why: "such a device reaches what either tag reaches, and so stands between two that should be apart",
            todo: "take the other tag off in the admin console under Machines, or remove the device and let the host join again".to_owned(),
        });
    }
    let undefined = names(&|device| {
        let defined = tailnet.policy.root.get("tagOwners");
        device
            .tags
            .iter()
            .any(|tag| of_customer(&tag) && defined.is_none_or(|owners| owners.get(tag).is_none()))
    });
    if !undefined.is_empty() {
        found.push(Diagnosis {
            id: "undefined-tags",
            severity: Severity::Problem,
            what: format!("devices carry a customer's tag that the policy file does not define: {}", some(undefined)),
            why: "no rule can name them, so they reach nothing, and nobody looks after them",
            todo: "m8trx tailnet apply for the customer, or remove the device in the admin console under Machines".to_owned(),
        });
    }
    let untagged = names(&|device| device.tags.is_empty());
    if !untagged.is_empty() {
        let have = match untagged.len() {
            1 => "1 device has no tag and so is its user's own".to_owned(),
            count => format!("{count} devices have no tag and so are their users' own"),
        };
        found.push(Diagnosis {
            id: "untagged-devices",
            severity: Severity::Advice,
            what: format!("{have}: {}", some(untagged)),
            why: "they reach what their user may reach, and are gone when the user is; a host among them would be no customer's",
            todo: format!("see that they are people's own machines; tag the team's with {TEAM_TAG}"),
        });
    }
    found
}

/// SSH rules that let in more people than the team.
fn wide_ssh(policy: &Policy<'_>) -> Vec<Diagnosis> {
    let set = policy.customer_set();
    let reaches_customers = |rule: &&SshRule<'_>| {
        rule.dst.every_tag() > super::policy::truth::Truth::No
            || rule.dst.named_tags().intersection(&set).next().is_some()
    };
    policy
        .ssh
        .iter()
        .filter(reaches_customers)
        .filter(|rule| rule.src.is_broad())
        .map(|rule| Diagnosis {
            id: "ssh-too-wide",
            severity: Severity::Problem,
            what: format!(
                "an SSH rule lets all users or all tagged devices into customers' hosts{}: {}",
                if rule.users.contains(&"root") { " as root" } else { "" },
                place(policy, &rule.path, rule.at)
            ),
            why: "whoever joins the tailnet, or takes over any machine in it, gets a shell on a customer's host",
            todo: format!("name {TEAM_TAG} or a group in its `src` instead, in the admin console under Access controls"),
        })
        .collect()
}

fn lock(state: LockState) -> Option<Diagnosis> {
    match state {
        LockState::On | LockState::OnElsewhere => None,
        LockState::Off => Some(Diagnosis {
            id: "tailnet-lock-off",
            severity: Severity::Advice,
            what: "Tailnet Lock is off".to_owned(),
            why: "without it, whoever controls Tailscale's coordination server or an admin's account can add a node to a customer's tag",
            todo: "tailscale lock init, on the machines that should sign (recommended, not needed)".to_owned(),
        }),
        LockState::Unknown => Some(Diagnosis {
            id: "tailnet-lock-unknown",
            severity: Severity::Advice,
            what: "whether Tailnet Lock is on cannot be seen from this machine".to_owned(),
            why: "Tailscale's API does not tell; a machine of the tailnet does",
            todo: "tailscale lock status, on a machine of the tailnet; with it off, consider tailscale lock init".to_owned(),
        }),
    }
}
