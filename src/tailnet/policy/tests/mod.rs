//! Tests of checking and merging.

mod isolation;
mod merging;
mod properties;

use std::collections::BTreeSet;

use super::check::{Kind, Report, check};
use super::generate;
use super::hujson::Document;

/// The tags of customers of these names.
pub(super) fn tags(names: &[&str]) -> BTreeSet<String> {
    names
        .iter()
        .map(|name| format!("tag:m8trx-cust-{name}"))
        .collect()
}

/// Checks a text.
pub(super) fn checked(text: &str) -> Report {
    check(
        &Document::parse(text).unwrap_or_else(|e| panic!("{e}: {text}")),
        8080,
    )
}

/// The kinds of a report's violations.
pub(super) fn kinds(report: &Report) -> BTreeSet<Kind> {
    report
        .violations
        .iter()
        .map(|finding| finding.kind)
        .collect()
}

/// The policy of two customers, with a rule put into a section and other sections behind it.
pub(super) fn with_rule(section: &str, rule: &str, more: &str) -> String {
    let made = generate::policy(&tags(&["acme", "bigco"]), 8080);
    let opening = format!("  \"{section}\": [\n");
    let text = if made.contains(&opening) {
        made.replacen(&opening, &format!("{opening}    {rule},\n"), 1)
    } else {
        made.replacen("{\n", &format!("{{\n{opening}    {rule},\n  ],\n"), 1)
    };
    text.replacen("{\n", &format!("{{\n  {more}\n"), 1)
}
