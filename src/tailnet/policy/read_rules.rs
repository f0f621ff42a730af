//! Reading grants, ACLs and SSH rules.

use std::collections::HashMap;

use super::address::AddressRange;
use super::hujson::{Node, Value};
use super::model::{Rule, SshRule, Target};
use super::read::{Reader, split_ports};
use super::selection::Selection;
use super::traffic::{self, Traffic};

/// Whether SSH rules take it: `always`, or hours, minutes and seconds up to a week.
fn is_check_period(text: &str) -> bool {
    if text == "always" {
        return true;
    }
    let mut seconds: f64 = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else {
            return false;
        };
        let unit = match rest[digits..].chars().next() {
            Some('h') => 3600.0,
            Some('m') => 60.0,
            Some('s') => 1.0,
            _ => return false,
        };
        seconds += number * unit;
        rest = &rest[digits + 1..];
    }
    seconds > 0.0 && seconds <= 168.0 * 3600.0
}

impl<'d> Reader<'d> {
    /// What Tailscale refuses in a rule.
    fn refused(&mut self, path: &str, rule: &Node, what: &str) {
        self.problem(
            path,
            &rule.span,
            format!("{what}; Tailscale refuses the file"),
        );
    }

    fn port_zero(&mut self, path: &str, ports: &str, at: usize) {
        let ports = ports.rsplit(':').next().unwrap_or_default();
        if ports.split(',').any(|part| part.trim() == "0") {
            self.problem(
                path,
                &(at..at),
                "there is no port 0; Tailscale refuses the file",
            );
        }
    }

    /// Selectors that have no place on one side of a rule, or not together.
    fn sides(&mut self, path: &str, rule: &Node, src: &Selection<'d>, dst: &[&Selection<'d>]) {
        let to = |selector: &str| dst.iter().any(|dst| dst.says(selector));
        if src.says("autogroup:self") {
            self.refused(path, rule, "autogroup:self cannot be a source");
        }
        if to("autogroup:self")
            && (src.is_everything() || !src.named_tags().is_empty() || src.names_every_tagged())
        {
            self.refused(
                path,
                rule,
                "autogroup:self cannot be the destination of tagged devices",
            );
        }
        if to("autogroup:danger-all") {
            self.refused(path, rule, "autogroup:danger-all cannot be a destination");
        }
        if to("0.0.0.0/0") || to("::/0") {
            self.refused(path, rule, "`0.0.0.0/0` and `::/0` cannot be destinations: autogroup:internet is meant, or `*`");
        }
    }

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
                    self.port_zero(&path, text, at);
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
            let absent = |name: &str| grant.get(name).is_none_or(|n| n.value == Value::Null);
            if absent("ip") && absent("app") {
                self.refused(&path, grant, "it has neither `ip` nor `app`");
            }
            if app && dst.says("autogroup:internet") {
                self.refused(
                    &path,
                    grant,
                    "`app` cannot be granted to autogroup:internet",
                );
            }
            if via
                .as_ref()
                .is_some_and(|via| via.said().any(|text| !text.starts_with("tag:")))
            {
                self.refused(&path, grant, "`via` holds something else than tags");
            }
            self.sides(&path, grant, &src, &[&dst]);
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
                self.port_zero(&path, ports.unwrap_or_default(), at);
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
            let destinations: Vec<&Selection<'d>> =
                targets.iter().map(|target| &target.dst).collect();
            self.sides(&path, acl, &src, &destinations);
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
            if users.is_empty() || users.iter().any(|(text, _)| text.is_empty()) {
                self.refused(&path, rule, "`users` is missing or holds an empty name");
            }
            let network = |text: &str| text.contains('/') && AddressRange::parse(text).is_some();
            if dst
                .said()
                .any(|text| network(self.names.hosts.get(text).copied().unwrap_or(text)))
            {
                self.refused(&path, rule, "`dst` holds a network");
            }
            let period = rule.get("checkPeriod").and_then(Node::as_str);
            if period.is_some_and(|text| !is_check_period(text)) {
                self.refused(&path, rule, "its `checkPeriod` is not between 1m and 168h");
            }
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
