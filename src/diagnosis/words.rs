//! Puts what is known of a host into an entry's words.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex_lite::Regex;

use super::causes::Advice;
use super::{Remedy, Situation};
use crate::bootstrap_log::BootstrapLog;
use crate::customer::CustomerId;

/// Where a line names the customer, the host or the region in passing.
static NAMES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"/m8trx/(?<customer>cust_[a-z0-9_]+)/",
        r"assumed-role/m8trx-(?<customer>cust_[a-z0-9_]+)/(?<id>i-[0-9a-f]+)",
        r"arn:aws[a-z-]*:ssm:(?<region>[a-z0-9-]+):",
        r"//ssm\.(?<region>[a-z]+-[a-z-]+-[0-9]+)\.amazonaws",
        r"//(?<region>[a-z]+-[a-z-]+-[0-9]+)\.ec2\.archive\.ubuntu\.com",
    ]
    .iter()
    .map(|pattern| Regex::new(pattern).expect("a pattern of this file"))
    .collect()
});

/// What stands for the names in an entry's words.
pub(super) struct Words(BTreeMap<String, String>);

impl Words {
    /// What is known of a host: by its situation, or else by its own console.
    pub(super) fn of(situation: &Situation<'_>, log: &BootstrapLog) -> Self {
        let own = log.identity.as_ref();
        let mut words = Self(BTreeMap::new());
        let mut set = |name: &str, given: Option<&str>, own: Option<&str>| {
            if let Some(value) = given.or(own) {
                words.0.insert(name.to_owned(), value.to_owned());
            }
        };
        set(
            "customer",
            situation.customer,
            own.map(|own| own.customer.as_str())
                .or(log.complete.as_deref()),
        );
        set(
            "id",
            situation.instance_id,
            own.map(|own| own.instance_id.as_str()),
        );
        set(
            "region",
            situation.region,
            own.map(|own| own.region.as_str()),
        );
        words.derive();
        words
    }

    /// What follows from the customer's id.
    fn derive(&mut self) {
        let words = &mut self.0;
        let Some(customer) = words.get("customer").and_then(|id| id.parse().ok()) else {
            return;
        };
        let customer: CustomerId = customer;
        let mut set = |name: &str, value: String| {
            words.insert(name.to_owned(), value);
        };
        set("tag", customer.tailscale_tag());
        set("role", customer.resource_name());
        set("auth_key", customer.tailscale_auth_key_parameter());
        set("brain_key", customer.brain_key_parameter());
        if let Some(id) = words.get("id") {
            // As join_tailnet of bootstrap.sh names it.
            let name = customer.as_str().replacen("cust_", "", 1).replace('_', "-");
            let name: String = name.chars().take(40).collect();
            let node = format!("{name}-{id}");
            words.insert("node".to_owned(), node);
        }
    }

    /// With what a line says: what its pattern caught, and who is named in it where nothing else tells.
    pub(super) fn with(&self, captured: &[(String, String)], line: &str) -> Self {
        let mut words = Self(self.0.clone());
        for pattern in NAMES.iter() {
            let Some(captures) = pattern.captures(line) else {
                continue;
            };
            for name in pattern.capture_names().flatten() {
                if let Some(value) = captures.name(name) {
                    let known = words.0.entry(name.to_owned());
                    known.or_insert_with(|| value.as_str().to_owned());
                }
            }
        }
        words.derive();
        words.0.extend(captured.iter().cloned());
        words
    }

    pub(super) fn known(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// A sentence with its names filled in.
    pub(super) fn sentence(&self, template: &str) -> String {
        self.filled(template, |value| value.to_owned())
    }

    /// An advice with its names filled in. In a command they are quoted: they may come from the console, which is not
    /// to be trusted.
    pub(super) fn fill(&self, advice: &Advice) -> Remedy {
        match advice {
            Advice::Do(template) => Remedy::Do(self.sentence(template)),
            Advice::Run(template) => {
                Remedy::Run(self.filled(template, |value| shell_words::quote(value).into_owned()))
            }
        }
    }

    fn filled(&self, template: &str, form: impl Fn(&str) -> String) -> String {
        let mut text = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, name, after)) = next_name(rest) {
            text.push_str(before);
            match self.0.get(name) {
                Some(value) => text.push_str(&form(value)),
                // Whoever pastes it sees what is to be put there.
                None => text.push_str(&name.to_uppercase()),
            }
            rest = after;
        }
        text.push_str(rest);
        text
    }
}

/// The next `{name}` of a template, with what is before and after it. Other braces stand for themselves.
pub(super) fn next_name(template: &str) -> Option<(&str, &str, &str)> {
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let mut from = 0;
    while let Some(open) = template[from..].find('{') {
        let open = from + open;
        let inside = &template[open + 1..];
        if let Some(close) = inside.find('}')
            && is_name(&inside[..close])
        {
            return Some((&template[..open], &inside[..close], &inside[close + 1..]));
        }
        from = open + 1;
    }
    None
}
