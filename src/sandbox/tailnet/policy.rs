//! The tailnet's policy file: what Tailscale refuses in one, who owns a tag, and the tests that a file carries.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::check_tag;
use super::hujson::standardize;
use crate::random::hexadecimal;

/// The tag of the operator's OAuth client.
pub(super) const OPERATOR_TAG: &str = "tag:m8trx-operator";

/// The policy file of a new sandbox: the tags of the design, no customer yet, and a rule that is nobody's business.
const FIRST: &str = include_str!("first-policy.hujson");

const SECTIONS: [&str; 18] = [
    "acls",
    "attrConfig",
    "autoApprovers",
    "defaultSrcPosture",
    "derpMap",
    "disableIPv4",
    "grants",
    "groups",
    "hosts",
    "ipsets",
    "nodeAttrs",
    "oneCGNATRoute",
    "postures",
    "randomizeClientPort",
    "ssh",
    "sshTests",
    "tagOwners",
    "tests",
];

/// What may stand in the entries of a list.
const FIELDS: [(&str, &[&str]); 5] = [
    (
        "acls",
        &[
            "action",
            "dst",
            "ports",
            "proto",
            "src",
            "srcPosture",
            "users",
        ],
    ),
    ("grants", &["app", "dst", "ip", "src", "srcPosture", "via"]),
    (
        "ssh",
        &[
            "acceptEnv",
            "action",
            "checkPeriod",
            "dst",
            "enforceRecorder",
            "recorder",
            "src",
            "srcPosture",
            "users",
        ],
    ),
    ("sshTests", &["accept", "check", "deny", "dst", "src"]),
    (
        "tests",
        &[
            "accept",
            "allow",
            "deny",
            "proto",
            "src",
            "srcPostureAttrs",
            "user",
        ],
    ),
];

/// A policy file that was accepted.
pub(super) struct Policy {
    text: String,
    document: Map<String, Value>,
}

/// Why one was not: the body of the API's answer.
pub(super) type Refused = Value;

fn refused(message: impl Into<String>) -> Refused {
    json!({ "message": message.into() })
}

impl Policy {
    /// The policy file of a new sandbox.
    pub(super) fn first() -> Self {
        Self::parse(FIRST).expect("the first policy file is a good one")
    }

    /// Takes a policy file, or says why not, as the API does.
    pub(super) fn parse(text: &str) -> Result<Self, Refused> {
        let document: Value = serde_json::from_str(&standardize(text))
            .map_err(|error| refused(format!("parsing policy: {error}")))?;
        let Value::Object(mut document) = document else {
            return Err(refused("parsing policy: it is not an object"));
        };
        // Sections are known whatever their case: Tailscale's own client writes `ACLs` and `TagOwners`.
        for name in document.keys().cloned().collect::<Vec<_>>() {
            let known = SECTIONS
                .iter()
                .find(|known| known.eq_ignore_ascii_case(&name));
            if let Some(known) = known.filter(|known| **known != name)
                && let Some(section) = document.remove(&name)
            {
                document.insert((*known).to_owned(), section);
            }
        }
        let policy = Self {
            text: text.to_owned(),
            document,
        };
        policy.check_fields()?;
        policy.check_tags()?;
        policy.check_ssh()?;
        policy.run_tests()?;
        Ok(policy)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn json(&self) -> String {
        Value::Object(self.document.clone()).to_string()
    }

    pub(super) fn etag(&self) -> String {
        hexadecimal(&Sha256::digest(self.text.as_bytes()))
    }

    /// Whether a tag is defined.
    pub(super) fn defines(&self, tag: &str) -> bool {
        self.owners(tag).is_some()
    }

    /// Whether a tag names one of these as its owner.
    pub(super) fn is_owned_by(&self, tag: &str, candidates: &[&str]) -> bool {
        self.owners(tag)
            .is_some_and(|owners| texts(owners).any(|owner| candidates.contains(&owner)))
    }

    fn owners(&self, tag: &str) -> Option<&Value> {
        self.document.get("tagOwners")?.get(tag)
    }

    fn entries(&self, section: &str) -> impl Iterator<Item = &Map<String, Value>> {
        let entries = self.document.get(section).and_then(Value::as_array);
        entries.into_iter().flatten().filter_map(Value::as_object)
    }

    fn check_fields(&self) -> Result<(), Refused> {
        let unknown = |field: &str| Err(refused(format!("json: unknown field {field:?}")));
        for section in self.document.keys() {
            if !SECTIONS.contains(&section.as_str()) {
                return unknown(section);
            }
        }
        for (section, fields) in FIELDS {
            let listed = self.document.get(section);
            if listed.is_some_and(|listed| !listed.is_array()) {
                return Err(refused(format!("parsing policy: {section} is not a list")));
            }
            for entry in self.entries(section) {
                if let Some(field) = entry.keys().find(|field| !fields.contains(&field.as_str())) {
                    return unknown(field);
                }
            }
        }
        Ok(())
    }

    /// Every tag that is named must be defined, and well-formed where it is.
    fn check_tags(&self) -> Result<(), Refused> {
        let owners = self.document.get("tagOwners").and_then(Value::as_object);
        for tag in owners.into_iter().flat_map(Map::keys) {
            check_tag(tag).map_err(refused)?;
        }
        let mut named = Vec::new();
        for value in self.document.values() {
            collect_tags(value, &mut named);
        }
        match named.into_iter().find(|tag| !self.defines(tag)) {
            Some(tag) => Err(refused(format!("tag not found: {tag:?}"))),
            None => Ok(()),
        }
    }

    fn check_ssh(&self) -> Result<(), Refused> {
        for rule in self.entries("ssh") {
            let list = |field: &str| rule.get(field).map_or(Vec::new(), |v| texts(v).collect());
            if list("users").contains(&"*") {
                return Err(refused("users in SSH rules cannot be \"*\""));
            }
            if list("dst").contains(&"*") {
                return Err(refused("dst in SSH rules cannot be \"*\""));
            }
            let action = rule.get("action").and_then(Value::as_str);
            if action == Some("check") && list("src").iter().any(|src| src.starts_with("tag:")) {
                return Err(refused(
                    "SSH rules with action \"check\" cannot have tags as src",
                ));
            }
        }
        Ok(())
    }

    fn run_tests(&self) -> Result<(), Refused> {
        let mut failed = Vec::new();
        for test in self.entries("tests") {
            let source = test
                .get("src")
                .or_else(|| test.get("user"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            let mut errors = Vec::new();
            for (field, want) in [("accept", true), ("allow", true), ("deny", false)] {
                for address in test.get(field).into_iter().flat_map(texts) {
                    let Some((target, port)) = address
                        .rsplit_once(':')
                        .and_then(|(target, port)| Some((target, port.parse().ok()?)))
                    else {
                        return Err(refused(format!("test: {address:?} has no single port")));
                    };
                    if self.reaches(source, target, port) != want {
                        let (want, got) = if want {
                            ("Accept", "Drop")
                        } else {
                            ("Drop", "Accept")
                        };
                        errors.push(format!("address {address:?}: want: {want}, got: {got}"));
                    }
                }
            }
            if !errors.is_empty() {
                failed.push(json!({ "user": source, "errors": errors }));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(json!({ "message": "test(s) failed", "data": failed }))
    }

    /// Whether a rule lets TCP from a source to a port of a target through.
    fn reaches(&self, source: &str, target: &str, port: u16) -> bool {
        let any = |rule: &Map<String, Value>, field: &str, who: &str| {
            let list = rule.get(field).into_iter().flat_map(texts);
            list.into_iter().any(|selector| self.selects(selector, who))
        };
        let granted = self.entries("grants").any(|rule| {
            let ports = rule.get("ip").into_iter().flat_map(texts);
            any(rule, "src", source)
                && any(rule, "dst", target)
                && ports.into_iter().any(|range| has_port(range, port))
        });
        granted
            || self.entries("acls").any(|rule| {
                let sources = if rule.contains_key("src") {
                    "src"
                } else {
                    "users"
                };
                let targets = rule.get("dst").or_else(|| rule.get("ports"));
                any(rule, sources, source)
                    && targets.into_iter().flat_map(texts).any(|text| {
                        text.rsplit_once(':').is_some_and(|(selector, range)| {
                            self.selects(selector, target) && has_port(range, port)
                        })
                    })
            })
    }

    fn selects(&self, selector: &str, who: &str) -> bool {
        let tagged = who.starts_with("tag:");
        match selector {
            "*" | "autogroup:danger-all" => true,
            "autogroup:tagged" => tagged,
            // A stranger's login is no member's.
            "autogroup:member" | "autogroup:members" => who == super::USER,
            group if group.starts_with("group:") => {
                let members = self.document.get("groups").and_then(|all| all.get(group));
                members
                    .into_iter()
                    .flat_map(texts)
                    .any(|member| member == who)
            }
            other => other == who,
        }
    }
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn collect_tags<'v>(value: &'v Value, tags: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("tag:") {
                let end = name.find(':').unwrap_or(name.len());
                tags.push(&text[..end + "tag:".len()]);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_tags(item, tags)),
        Value::Object(fields) => fields.values().for_each(|item| collect_tags(item, tags)),
        _ => {}
    }
}

/// `*`, `22`, `8000-8080`, `tcp:22`, and several of them with commas.
fn has_port(ranges: &str, port: u16) -> bool {
    ranges.split(',').any(|range| {
        let range = match range.split_once(':') {
            Some(("tcp", range)) => range,
            Some(_) => return false,
            None => range,
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bound = |text: &str| text.trim().parse::<u16>().ok();
        range == "*"
            || matches!((bound(first), bound(last)), (Some(first), Some(last)) if (first..=last).contains(&port))
    })
}

#[cfg(test)]
mod tests;
