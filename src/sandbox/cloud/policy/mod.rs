//! IAM policies: documents, and what they allow.
//!
//! Source: "Policy evaluation logic" and "IAM JSON policy elements" in the IAM user guide. Keys of conditions that the
//! sandbox cannot evaluate fail closed: such an Allow never applies, such a Deny always does.

mod document;
pub(super) mod pattern;

use std::collections::BTreeMap;

use document::{Condition, Effect, Names, Statement};
pub(crate) use document::{Document, Kind, Malformed};
use pattern::Pattern;

/// What is known about a request: condition keys, in lower case, and their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// Sets a key of one value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_ascii_lowercase(), vec![value.into()]);
    }

    /// Sets one key for each tag (`aws:RequestTag/Customer`, …).
    pub fn set_tags<'a>(
        &mut self,
        prefix: &str,
        tags: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) {
        for (key, value) in tags {
            self.set(&format!("{prefix}/{key}"), value);
        }
    }

    /// Sets a key of many values (`aws:TagKeys`).
    pub fn set_all(&mut self, key: &str, values: Vec<String>) {
        self.0.insert(key.to_ascii_lowercase(), values);
    }

    /// Adds everything of another context.
    pub fn extend(&mut self, other: &Self) {
        let entries = other.0.iter();
        self.0
            .extend(entries.map(|(key, values)| (key.clone(), values.clone())));
    }

    fn values(&self, key: &str) -> &[String] {
        self.0
            .get(&key.to_ascii_lowercase())
            .map_or(&[], Vec::as_slice)
    }

    /// The value of a key that has exactly one.
    fn single(&self, key: &str) -> Option<&str> {
        match self.values(key) {
            [value] => Some(value),
            _ => None,
        }
    }
}

/// The outcome of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A statement allows it and none denies it.
    Allowed,
    /// A statement denies it.
    Denied,
    /// No statement says anything.
    Silent,
}

/// What a set of identity policies says about an action on a resource.
pub(crate) fn evaluate<'a>(
    documents: impl IntoIterator<Item = &'a Document>,
    action: &str,
    resource: &str,
    context: &Context,
) -> Verdict {
    let mut verdict = Verdict::Silent;
    for statement in documents.into_iter().flat_map(|d| &d.statements) {
        if !statement.covers(action, resource, context) {
            continue;
        }
        match statement.effect {
            Effect::Deny => return Verdict::Denied,
            Effect::Allow => verdict = Verdict::Allowed,
        }
    }
    verdict
}

/// Whether a trust policy lets a service assume the role.
pub(crate) fn trusts_service(document: &Document, service: &str) -> bool {
    let mut trusted = false;
    for statement in &document.statements {
        let named = statement
            .service_principals
            .iter()
            .any(|principal| principal == service || principal == "*");
        if !named || !statement.covers_action("sts:AssumeRole") {
            continue;
        }
        match statement.effect {
            Effect::Deny => return false,
            Effect::Allow => trusted |= statement.conditions.is_empty(),
        }
    }
    trusted
}

impl Statement {
    fn covers_action(&self, action: &str) -> bool {
        let names = |patterns: &[String]| {
            patterns.iter().any(|pattern| {
                Pattern::plain(&pattern.to_ascii_lowercase()).matches(&action.to_ascii_lowercase())
            })
        };
        match &self.actions {
            Names::Only(patterns) => names(patterns),
            Names::AllBut(patterns) => !names(patterns),
        }
    }

    fn covers(&self, action: &str, resource: &str, context: &Context) -> bool {
        let names = |patterns: &[String]| {
            patterns.iter().any(|pattern| {
                // A variable without a value makes the whole element match nothing.
                Pattern::with_variables(pattern, |key| context.single(key))
                    .is_some_and(|pattern| pattern.matches(resource))
            })
        };
        let resource_covered = match &self.resources {
            Names::Only(patterns) => names(patterns),
            Names::AllBut(patterns) => !names(patterns),
        };
        self.covers_action(action)
            && resource_covered
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(self.effect, context))
    }
}

impl Condition {
    fn holds(&self, effect: Effect, context: &Context) -> bool {
        let present = context.values(&self.key);
        let (operator, if_exists) = match self.operator.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (self.operator.as_str(), false),
        };
        if operator == "Null" {
            return self
                .values
                .iter()
                .any(|value| (value == "true") == present.is_empty());
        }
        let (operator, for_all) = match operator.split_once(':') {
            Some(("ForAllValues", operator)) => (operator, Some(true)),
            Some(("ForAnyValue", operator)) => (operator, Some(false)),
            _ => (operator, None),
        };
        let negated = operator.contains("Not");
        let Some(matches) = matcher(&operator.replacen("Not", "", 1)) else {
            // Fails closed, see above.
            return effect == Effect::Deny;
        };
        let test = |value: &String| {
            let named = self
                .values
                .iter()
                .any(|wanted| matches(wanted, value, context));
            named != negated
        };
        match for_all {
            Some(true) => present.iter().all(test),
            Some(false) => present.iter().any(test),
            // A negated operator holds for a key that is not there.
            None if present.is_empty() => if_exists || negated,
            None if negated => present.iter().all(test),
            None => present.iter().any(test),
        }
    }
}

type Matcher = fn(&str, &str, &Context) -> bool;

fn matcher(operator: &str) -> Option<Matcher> {
    fn like(wanted: &str, value: &str, context: &Context) -> bool {
        Pattern::with_variables(wanted, |key| context.single(key))
            .is_some_and(|pattern| pattern.matches(value))
    }
    fn equal(wanted: &str, value: &str, context: &Context) -> bool {
        Pattern::with_variables(wanted, |key| context.single(key))
            .is_some_and(|pattern| pattern.text() == value)
    }
    fn equal_ignoring_case(wanted: &str, value: &str, context: &Context) -> bool {
        equal(
            &wanted.to_ascii_lowercase(),
            &value.to_ascii_lowercase(),
            context,
        )
    }
    Some(match operator {
        "StringEquals" => equal,
        "StringEqualsIgnoreCase" | "Bool" => equal_ignoring_case,
        "StringLike" | "ArnLike" | "ArnEquals" => like,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
