//! Finds the entry of the table that a failure's lines show, and puts what is known into its words.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex_lite::Regex;

use super::causes::{self, Advice, Cause};
use super::{Remedy, Situation};
use crate::bootstrap_log::BootstrapLog;
use crate::customer::CustomerId;

/// How many lines before a failure are looked at.
const LOOKED_AT: usize = 40;
/// How many lines are shown.
const SHOWN: usize = 3;
/// A longer line is cut.
const LONGEST_LINE: usize = 400;

/// An entry with its patterns ready.
pub(super) struct Ready {
    pub(super) cause: &'static Cause,
    pub(super) shows: Vec<Regex>,
}

/// The table, in its order.
pub(super) static READY: LazyLock<Vec<Ready>> = LazyLock::new(|| {
    causes::all()
        .map(|cause| Ready {
            cause,
            shows: cause
                .shows
                .iter()
                .map(|pattern| {
                    Regex::new(pattern).unwrap_or_else(|e| panic!("{}: {pattern}: {e}", cause.name))
                })
                .collect(),
        })
        .collect()
});

/// An entry of the table that lines show.
pub(super) struct Found {
    pub(super) cause: &'static Cause,
    /// What the pattern's named groups caught.
    pub(super) captured: Vec<(String, String)>,
    /// The lines, oldest first.
    pub(super) evidence: Vec<String>,
}

impl Ready {
    fn is_at(&self, step: &str) -> bool {
        match self.cause.at {
            // Any step of the bootstrap.
            [] => !matches!(
                step,
                super::LAUNCH
                    | super::INSTANCE
                    | super::BOOT
                    | super::FIRST_HEARTBEAT
                    | super::TAILNET
            ),
            at => at.contains(&step),
        }
    }

    fn captured(&self, line: &str) -> Option<Vec<(String, String)>> {
        self.shows.iter().find_map(|pattern| {
            let captures = pattern.captures(line)?;
            let named = pattern.capture_names().flatten();
            Some(
                named
                    .filter_map(|name| {
                        Some((name.to_owned(), captures.name(name)?.as_str().to_owned()))
                    })
                    .collect(),
            )
        })
    }
}

/// Every entry that one line shows at a step, in the table's order.
pub(super) fn shown_by<'r>(step: &'r str, line: &'r str) -> impl Iterator<Item = &'r Ready> {
    READY
        .iter()
        .filter(move |ready| ready.is_at(step) && ready.captured(line).is_some())
}

/// The line that decides: the script's own reason, or else the last line that shows something. What an entry says in
/// general counts only where nothing says more.
pub(super) fn deciding<'l>(
    step: &str,
    reason: Option<&'l str>,
    lines: &'l [String],
) -> Option<(&'static Cause, &'l str)> {
    let recent = &lines[lines.len().saturating_sub(LOOKED_AT)..];
    let newest_first = || recent.iter().rev().map(String::as_str);
    for general in [false, true] {
        for line in reason.into_iter().chain(newest_first()) {
            let mut entries = shown_by(step, line).filter(|ready| ready.cause.general == general);
            if let Some(ready) = entries.next() {
                return Some((ready.cause, line));
            }
        }
    }
    None
}

/// Finds the entry that a failure shows.
pub(super) fn recognise(step: &str, reason: Option<&str>, lines: &[String]) -> Option<Found> {
    let (cause, line) = deciding(step, reason, lines)?;
    let ready = READY.iter().find(|ready| ready.cause.name == cause.name)?;
    // What was tried before and failed in the same words says nothing more than the failure itself.
    let is_repeated = |text: &str| reason.is_some() && text.contains(", again in ");
    let mut evidence: Vec<String> = Vec::new();
    for line in lines.iter().rev().take(LOOKED_AT) {
        if evidence.len() < SHOWN
            && ready.captured(line).is_some()
            && !evidence.contains(line)
            && !is_repeated(line)
        {
            evidence.push(line.clone());
        }
    }
    evidence.reverse();
    for line in &mut evidence {
        if let Some((at, _)) = line.char_indices().nth(LONGEST_LINE) {
            line.truncate(at);
            line.push('…');
        }
    }
    Some(Found {
        cause,
        captured: ready.captured(line)?,
        evidence,
    })
}

/// What stands for the names in an entry's words.
pub(super) struct Words(BTreeMap<String, String>);

impl Words {
    /// What is known of a host: by its situation, or else by its own console.
    pub(super) fn of(situation: &Situation<'_>, log: &BootstrapLog) -> Self {
        let own = log.identity.as_ref();
        let mut words = BTreeMap::new();
        let mut set = |name: &str, given: Option<&str>, own: Option<&str>| {
            if let Some(value) = given.or(own) {
                words.insert(name.to_owned(), value.to_owned());
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
        let customer = words.get("customer").and_then(|id| id.parse().ok());
        if let Some(customer) = &customer {
            let customer: &CustomerId = customer;
            words.insert("tag".to_owned(), customer.tailscale_tag());
            words.insert("role".to_owned(), customer.resource_name());
            if let Some(id) = words.get("id") {
                // As join_tailnet of bootstrap.sh names it.
                let name = customer.as_str().replacen("cust_", "", 1).replace('_', "-");
                let name: String = name.chars().take(40).collect();
                words.insert("node".to_owned(), format!("{name}-{id}"));
            }
            words.insert(
                "auth_key".to_owned(),
                customer.tailscale_auth_key_parameter(),
            );
            words.insert("brain_key".to_owned(), customer.brain_key_parameter());
        }
        Self(words)
    }

    pub(super) fn with(&self, captured: Vec<(String, String)>) -> Self {
        let mut words = self.0.clone();
        words.extend(captured);
        Self(words)
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
