//! Reading grants, ACLs and SSH rules.

use std::collections::HashMap;

use super::hujson::{Node, Value};
use super::model::{Rule, SshRule, Target};
use super::read::{Reader, split_ports};
use super::selection::Selection;
use super::traffic::{self, Traffic};

impl<'d> Reader<'d> {
    pub(super) fn grants(&mut self, node: &'d Node) -> Vec<Rule<'d>> {
        let mut rules = Vec::new();
        for (path, grant) in self.elements("grants", node) {
            self.only(
                &path,
                grant,
                &["src", "dst", "ip", "app", "srcPosture", "via"],
            );
            let src = self.required(&path, grant, &["src"]);
            let dst = self.required(&path, grant, &["dst"]);
            let mut allowed = Vec::new();
            if let Some(ip) = grant.get("ip") {
                let before = self.problems.len();
                for (text, at) in self.strings(&format!("{path}.ip"), ip) {
                    match traffic::of_grant(text) {
                        Some(traffic) => allowed.extend(traffic),
                        None => self.problem(
                            format!("{path}.ip"),
                            &(at..at),
                            format!(
                                "`{}` is not `*`, ports or protocol:ports",
                                text.escape_debug()
                            ),
                        ),
                    }
                }
                if self.problems.len() > before {
                    allowed.push(Traffic::UNKNOWN);
                }
            }
            let app = match grant.get("app").map(|app| &app.value) {
                None | Some(Value::Null) => false,
                Some(Value::Object(capabilities)) => !capabilities.is_empty(),
                Some(_) => true,
            };
            let via = grant
                .get("via")
                .map(|list| self.selection(&format!("{path}.via"), list));
            rules.push(Rule {
                at: grant.span.start,
                src,
                targets: vec![Target {
                    dst,
                    traffic: allowed,
                }],
                conditional: via.is_some() || self.postured(grant),
                via,
                app,
                path,
            });
        }
        rules
    }

    pub(super) fn acls(&mut self, node: &'d Node) -> Vec<Rule<'d>> {
        let mut rules = Vec::new();
        for (path, acl) in self.elements("acls", node) {
            self.only(
                &path,
                acl,
                &[
                    "action",
                    "src",
                    "users",
                    "dst",
                    "ports",
                    "proto",
                    "srcPosture",
                ],
            );
            if acl.get("action").and_then(Node::as_str) != Some("accept") {
                self.problem(&path, &acl.span, "its `action` is not `accept`");
            }
            let src = self.required(&path, acl, &["src", "users"]);
            for (one, other) in [("src", "users"), ("dst", "ports")] {
                if acl.get(one).is_some() && acl.get(other).is_some() {
                    self.problem(
                        &path,
                        &acl.span,
                        format!("it has `{one}` and `{other}` both"),
                    );
                }
            }
            let protocol = match acl.get("proto") {
                None => Some(traffic::Protocol::Unnamed),
                Some(node) => match &node.value {
                    Value::String(text) | Value::Number(text) => traffic::protocol(text),
                    _ => None,
                },
            };
            if protocol.is_none() {
                self.problem(&path, &acl.span, "its `proto` is not known");
            }
            let mut targets: Vec<Target<'d>> = Vec::new();
            let mut by_ports: HashMap<Option<&'d str>, usize> = HashMap::new();
            let list = acl.get("dst").or_else(|| acl.get("ports"));
            let Some(list) = list else {
                self.problem(&path, &acl.span, "`dst` is missing");
                continue;
            };
            for (text, at) in self.plain_strings(&format!("{path}.dst"), list) {
                let (host, ports) = split_ports(text);
                let traffic = ports
                    .zip(protocol)
                    .and_then(|(ports, protocol)| traffic::ports(protocol, ports));
                if traffic.is_none() && protocol.is_some() {
                    self.problem(
                        format!("{path}.dst"),
                        &(at..at),
                        format!("`{}` does not end in `:` and ports", text.escape_debug()),
                    );
                }
                let ports = ports.filter(|_| traffic.is_some());
                let index = *by_ports.entry(ports).or_insert_with(|| {
                    targets.push(Target {
                        dst: Selection::default(),
                        traffic: traffic.unwrap_or_else(|| vec![Traffic::UNKNOWN]),
                    });
                    targets.len() - 1
                });
                targets[index].dst.add(host, &mut self.names);
                if Selection::read([host], &mut self.names).is_unknown() {
                    self.problem(
                        format!("{path}.dst"),
                        &(at..at),
                        format!(
                            "`{}` is not known, and may be anything",
                            host.escape_debug()
                        ),
                    );
                }
                self.note_tag(host, at);
            }
            rules.push(Rule {
                at: acl.span.start,
                src,
                targets,
                conditional: self.postured(acl),
                via: None,
                app: false,
                path,
            });
        }
        rules
    }

    pub(super) fn ssh(&mut self, node: &'d Node) -> Vec<SshRule<'d>> {
        let mut rules = Vec::new();
        for (path, rule) in self.elements("ssh", node) {
            self.only(
                &path,
                rule,
                &[
                    "action",
                    "src",
                    "dst",
                    "users",
                    "checkPeriod",
                    "acceptEnv",
                    "srcPosture",
                    "recorder",
                    "enforceRecorder",
                ],
            );
            let action = rule.get("action").and_then(Node::as_str);
            if !matches!(action, Some("accept" | "check")) {
                self.problem(
                    &path,
                    &rule.span,
                    "its `action` is neither `accept` nor `check`",
                );
            }
            let src = self.required(&path, rule, &["src"]);
            let dst = self.required(&path, rule, &["dst"]);
            let users = match rule.get("users") {
                Some(list) => self.strings(&format!("{path}.users"), list),
                None => Vec::new(),
            };
            for (list, name) in [(rule.get("dst"), "dst"), (rule.get("users"), "users")] {
                if let Some(list) = list
                    && list.strings().any(|text| text == "*")
                {
                    self.problem(
                        format!("{path}.{name}"),
                        &list.span,
                        "`*` is not allowed here; Tailscale refuses the file",
                    );
                }
            }
            let check = action == Some("check");
            if check && (!src.named_tags().is_empty() || src.names_every_tagged()) {
                self.problem(
                    &path,
                    &rule.span,
                    "`check` is not allowed for tagged sources; Tailscale refuses the file",
                );
            }
            rules.push(SshRule {
                at: rule.span.start,
                check,
                src,
                dst,
                users: users.into_iter().map(|(text, _)| text).collect(),
                conditional: self.postured(rule),
                path,
            });
        }
        rules
    }
}
