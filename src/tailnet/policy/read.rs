//! Reading a parsed file into a [`Policy`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use bit_set::BitSet;

use super::address::AddressRange;
use super::hujson::{Document, Member, Node, Value};
use super::index::Index;
use super::model::{
    Approver, Attribute, BRAIN_TAG, CUSTOMER_PREFIX, OPERATOR_TAG, Policy, Problem, SshTest,
    TEAM_TAG, TagOwner, Test,
};
use super::selection::{Names, Selection, TagId};

/// Sections that have no say in who reaches whom.
const WITHOUT_SAY: [&str; 7] = [
    "attrConfig",
    "derpMap",
    "disableIPv4",
    "OneCGNATRoute",
    "randomizeClientPort",
    "postures",
    "extraDNSRecords",
];

impl<'d> Policy<'d> {
    /// Reads a parsed file.
    pub fn read(document: &'d Document) -> Self {
        Self::read_with(document, HashMap::new())
    }

    /// As [`Policy::read`], where it is known whose single addresses of the tailnet are.
    pub fn read_with(document: &'d Document, addresses: HashMap<IpAddr, Vec<String>>) -> Self {
        let mut reader = Reader {
            document,
            names: Names::with_addresses(addresses),
            problems: Vec::new(),
            used_tags: HashMap::new(),
            default_posture: false,
        };
        reader.definitions();
        reader.nested_definitions();
        let root = &document.root;
        let section = |name: &str| root.get(name);
        let tag_owners = section("tagOwners").map_or_else(Vec::new, |n| reader.tag_owners(n));
        let mut rules = section("grants").map_or_else(Vec::new, |n| reader.grants(n));
        rules.extend(section("acls").map_or_else(Vec::new, |n| reader.acls(n)));
        let ssh = section("ssh").map_or_else(Vec::new, |n| reader.ssh(n));
        let approvers = section("autoApprovers").map_or_else(Vec::new, |n| reader.approvers(n));
        let attributes = section("nodeAttrs").map_or_else(Vec::new, |n| reader.attributes(n));
        let tests = section("tests").map_or_else(Vec::new, |n| reader.tests(n));
        let ssh_tests = section("sshTests").map_or_else(Vec::new, |n| reader.ssh_tests(n));
        reader.tags_by_case();
        let mut customers: Vec<TagId> = (0..reader.names.tags().len())
            .filter(|tag| reader.names.tag_name(*tag).starts_with(CUSTOMER_PREFIX))
            .collect();
        customers.sort_by(|a, b| reader.names.tag_name(*a).cmp(reader.names.tag_name(*b)));
        let (mut rule_index, mut ssh_index) = (Index::default(), Index::default());
        for (number, rule) in rules.iter().enumerate() {
            let destinations: Vec<_> = rule.targets.iter().map(|target| &target.dst).collect();
            rule_index.add(number, &rule.src, &destinations);
        }
        for (number, rule) in ssh.iter().enumerate() {
            ssh_index.add(number, &rule.src, &[&rule.dst]);
        }
        Self {
            document,
            rule_index,
            ssh_index,
            names: reader.names,
            customers,
            rules,
            ssh,
            tag_owners,
            approvers,
            attributes,
            tests,
            ssh_tests,
            has_rules: section("grants").is_some() || section("acls").is_some(),
            problems: reader.problems,
            used_tags: reader.used_tags,
        }
    }

    /// The customers as a set.
    pub fn customer_set(&self) -> BitSet {
        self.customers.iter().copied().collect()
    }
}

/// Reads the sections, and collects what is not understood.
pub(super) struct Reader<'d> {
    document: &'d Document,
    pub(super) names: Names<'d>,
    pub(super) problems: Vec<Problem>,
    pub(super) used_tags: HashMap<TagId, usize>,
    /// Whether `defaultSrcPosture` makes every rule conditional.
    default_posture: bool,
}

impl<'d> Reader<'d> {
    pub(super) fn problem(
        &mut self,
        path: impl Into<String>,
        span: &Range<usize>,
        what: impl Into<String>,
    ) {
        self.problems.push(Problem {
            path: path.into(),
            at: span.start,
            what: what.into(),
        });
    }

    /// Hosts, groups and IP sets come first: everything else refers to them.
    fn definitions(&mut self) {
        let members = self.document.root.as_object().unwrap_or_default();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for member in members {
            let lower = member.name.to_ascii_lowercase();
            if let Some(first) = seen.insert(lower, member.span.start) {
                let first = self.document.position(first);
                self.problem(
                    member.name.clone(),
                    &member.span,
                    format!("this section is there a second time, but for upper and lower case; the first is at {first}"),
                );
            }
            match member.name.to_ascii_lowercase().as_str() {
                "hosts" => self.hosts(member),
                "groups" => {
                    let lists = self.lists("groups", &member.value);
                    self.names.groups.extend(lists);
                }
                "ipsets" => {
                    let lists = self.lists("ipsets", &member.value);
                    self.names.ipsets.extend(lists);
                }
                "defaultsrcposture" => self.default_posture = true,
                "tagowners" | "grants" | "acls" | "ssh" | "autoapprovers" | "nodeattrs"
                | "tests" | "sshtests" => {}
                other if WITHOUT_SAY.iter().any(|s| s.eq_ignore_ascii_case(other)) => {}
                _ => self.problem(
                    member.name.clone(),
                    &member.span,
                    "this section is not known, and may grant anything",
                ),
            }
        }
    }

    /// Tags that are the design's but for upper and lower case: whether Tailscale takes both for one is not known.
    fn tags_by_case(&mut self) {
        let design = [BRAIN_TAG, TEAM_TAG, OPERATOR_TAG];
        let names: Vec<String> = self.names.tags().to_vec();
        for (tag, name) in names.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let ours = lower.starts_with(CUSTOMER_PREFIX) || design.contains(&lower.as_str());
            if ours && lower != *name {
                let at = self.used_tags.get(&tag).copied().unwrap_or(0);
                self.problem(
                    name.clone(),
                    &(at..at),
                    format!("it is {lower} but for upper and lower case, and may be taken for it"),
                );
            }
        }
    }

    /// What Tailscale refuses in groups and IP sets.
    fn nested_definitions(&mut self) {
        let root = &self.document.root;
        let lists = |section: &str| {
            root.get(section)
                .and_then(Node::as_object)
                .unwrap_or_default()
        };
        for group in lists("groups") {
            for member in group.value.as_array().unwrap_or_default() {
                if member
                    .as_str()
                    .is_some_and(|text| text.starts_with("group:"))
                {
                    let path = format!("groups.{}", group.name);
                    self.problem(
                        path,
                        &member.span,
                        "a group is in a group; Tailscale refuses the file",
                    );
                }
            }
        }
        for set in lists("ipsets") {
            for entry in set.value.as_array().unwrap_or_default() {
                let Some(text) = entry.as_str() else { continue };
                let what = text
                    .strip_prefix("add ")
                    .or_else(|| text.strip_prefix("remove "))
                    .unwrap_or(text)
                    .trim();
                let may = what.starts_with("ipset:")
                    || what == "autogroup:internet"
                    || self.names.hosts.contains_key(what)
                    || AddressRange::parse(what).is_some();
                if !may {
                    let path = format!("ipsets.{}", set.name);
                    let shown = what.escape_debug();
                    self.problem(
                        path,
                        &entry.span,
                        format!("`{shown}` is neither an address, a host, another IP set nor autogroup:internet; Tailscale refuses the file"),
                    );
                }
            }
        }
    }

    fn hosts(&mut self, member: &'d Member) {
        let Some(hosts) = member.value.as_object() else {
            self.problem("hosts", &member.value.span, "it is not an object");
            return;
        };
        for host in hosts {
            match host.value.as_str() {
                Some(address) => {
                    self.names.hosts.insert(&host.name, address);
                }
                None => self.problem(
                    format!("hosts.{}", host.name),
                    &host.span,
                    "it is not an address",
                ),
            }
        }
    }

    /// An object of lists of strings.
    fn lists(&mut self, section: &str, node: &'d Node) -> Vec<(&'d str, Vec<&'d str>)> {
        let Some(members) = node.as_object() else {
            self.problem(section, &node.span, "it is not an object");
            return Vec::new();
        };
        let mut lists = Vec::with_capacity(members.len());
        for member in members {
            let path = format!("{section}.{}", member.name);
            let list = self.strings(&path, &member.value);
            lists.push((
                member.name.as_str(),
                list.into_iter().map(|(s, _)| s).collect(),
            ));
        }
        lists
    }

    /// The strings of a list with their places; the tags among them are noted as used.
    pub(super) fn strings(&mut self, path: &str, node: &'d Node) -> Vec<(&'d str, usize)> {
        let strings = self.plain_strings(path, node);
        for (text, at) in &strings {
            self.note_tag(text, *at);
        }
        strings
    }

    /// Notes where a tag is used first.
    pub(super) fn note_tag(&mut self, text: &str, at: usize) {
        if text.starts_with("tag:") {
            let tag = self.names.tag(text);
            self.used_tags.entry(tag).or_insert(at);
        }
    }

    /// The strings of a list with their places. Anything else in it is a problem.
    pub(super) fn plain_strings(&mut self, path: &str, node: &'d Node) -> Vec<(&'d str, usize)> {
        let Some(elements) = node.as_array() else {
            self.problem(path, &node.span, "it is not a list");
            return Vec::new();
        };
        let mut strings = Vec::with_capacity(elements.len());
        for element in elements {
            match element.as_str() {
                Some(text) => strings.push((text, element.span.start)),
                None => self.problem(path, &element.span, "an element is not a string"),
            }
        }
        strings
    }

    /// A list of selectors. What is not a list of strings may be anything.
    pub(super) fn selection(&mut self, path: &str, node: &'d Node) -> Selection<'d> {
        let before = self.problems.len();
        let strings = self.strings(path, node);
        let mut selection = Selection::read(strings.iter().map(|(text, _)| *text), &mut self.names);
        if self.problems.len() > before {
            selection.add("?", &mut self.names);
        }
        for (text, at) in strings {
            if !text.starts_with("tag:") && Selection::read([text], &mut self.names).is_unknown() {
                self.problem(
                    path,
                    &(at..at),
                    format!(
                        "`{}` is not known, and may be anything",
                        text.escape_debug()
                    ),
                );
            }
        }
        selection
    }

    /// The elements of a section that is a list of objects, with their paths.
    pub(super) fn elements(&mut self, section: &str, node: &'d Node) -> Vec<(String, &'d Node)> {
        let Some(elements) = node.as_array() else {
            self.problem(section, &node.span, "it is not a list");
            return Vec::new();
        };
        let mut found = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let path = format!("{section}[{index}]");
            match &element.value {
                Value::Object(_) => found.push((path, element)),
                _ => self.problem(path, &element.span, "it is not an object"),
            }
        }
        found
    }

    /// Says which members are not known: they may change what the others mean.
    pub(super) fn only(&mut self, path: &str, node: &'d Node, known: &[&str]) {
        for (index, member) in node.as_object().unwrap_or_default().iter().enumerate() {
            let is = |name: &str| member.name.eq_ignore_ascii_case(name);
            let earlier = &node.as_object().unwrap_or_default()[..index];
            if !known.iter().any(|name| is(name)) {
                self.problem(
                    format!("{path}.{}", member.name),
                    &member.span,
                    "this is not known, and may change what the rule means",
                );
            } else if earlier.iter().any(|m| is(&m.name)) {
                self.problem(
                    format!("{path}.{}", member.name),
                    &member.span,
                    "this is there a second time, but for upper and lower case",
                );
            }
        }
    }

    pub(super) fn postured(&self, node: &Node) -> bool {
        self.default_posture
            || node
                .get("srcPosture")
                .is_some_and(|posture| posture.as_array().is_none_or(|list| !list.is_empty()))
    }

    pub(super) fn required(&mut self, path: &str, node: &'d Node, names: &[&str]) -> Selection<'d> {
        match names.iter().find_map(|name| node.get(name)) {
            Some(list) => self.selection(&format!("{path}.{}", names[0]), list),
            None => {
                self.problem(path, &node.span, format!("`{}` is missing", names[0]));
                Selection::default()
            }
        }
    }

    fn tag_owners(&mut self, node: &'d Node) -> Vec<TagOwner<'d>> {
        let Some(members) = node.as_object() else {
            self.problem("tagOwners", &node.span, "it is not an object");
            return Vec::new();
        };
        let mut owners = Vec::with_capacity(members.len());
        for member in members {
            let path = format!("tagOwners.{}", member.name);
            let before = self.problems.len();
            let mut list = self.strings(&path, &member.value);
            if self.problems.len() > before {
                list.push(("?", member.span.start));
            }
            owners.push(TagOwner {
                tag: self.names.tag(&member.name),
                at: member.span.start,
                owners: list,
            });
        }
        owners
    }

    fn approvers(&mut self, node: &'d Node) -> Vec<Approver<'d>> {
        let mut found = Vec::new();
        for member in node.as_object().unwrap_or_default() {
            let path = format!("autoApprovers.{}", member.name);
            let lists: Vec<(String, &'d Node)> = match &member.value.value {
                Value::Object(inner) => inner
                    .iter()
                    .map(|m| (format!("{path}.{}", m.name), &m.value))
                    .collect(),
                _ => vec![(path, &member.value)],
            };
            for (path, list) in lists {
                found.push(Approver {
                    who: self.selection(&path, list),
                    at: list.span.start,
                    path,
                });
            }
        }
        found
    }

    fn attributes(&mut self, node: &'d Node) -> Vec<Attribute<'d>> {
        let mut found = Vec::new();
        for (path, element) in self.elements("nodeAttrs", node) {
            let target = match element.get("target") {
                Some(list) => self.selection(&format!("{path}.target"), list),
                None => Selection::default(),
            };
            let attr = element.get("attr").map_or_else(Vec::new, |list| {
                self.strings(&format!("{path}.attr"), list)
                    .into_iter()
                    .map(|(text, _)| text)
                    .collect()
            });
            let connectors = self.connectors(&path, element);
            found.push(Attribute {
                at: element.span.start,
                target,
                attr,
                connectors,
                path,
            });
        }
        found
    }

    /// The devices that draw the traffic to some domains to themselves, as app connectors.
    fn connectors(&mut self, path: &str, element: &'d Node) -> Selection<'d> {
        let mut all = Vec::new();
        let apps = element.get("app").and_then(Node::as_object);
        for app in apps.unwrap_or_default() {
            for connector in app.value.as_array().unwrap_or_default() {
                if let Some(list) = connector.get("connectors") {
                    let path = format!("{path}.app.{}", app.name);
                    all.extend(self.strings(&path, list).into_iter().map(|(text, _)| text));
                }
            }
        }
        Selection::read(all, &mut self.names)
    }

    fn tests(&mut self, node: &'d Node) -> Vec<Test<'d>> {
        let mut found = Vec::new();
        for (path, test) in self.elements("tests", node) {
            let Some(src) = self.test_source(&path, test) else {
                continue;
            };
            let accept = test.get("accept").or_else(|| test.get("allow"));
            let mut list = |node: Option<&'d Node>, name: &str| {
                node.map_or_else(Vec::new, |n| {
                    self.destinations(&format!("{path}.{name}"), n)
                })
            };
            let (accept, deny) = (list(accept, "accept"), list(test.get("deny"), "deny"));
            found.push(Test {
                at: test.span.start,
                src,
                proto: test.get("proto").and_then(Node::as_str),
                accept,
                deny,
                path,
            });
        }
        found
    }

    fn destinations(&mut self, path: &str, node: &'d Node) -> Vec<(&'d str, usize)> {
        let list = self.plain_strings(path, node);
        for (text, at) in &list {
            self.note_tag(split_ports(text).0, *at);
        }
        list
    }

    fn test_source(&mut self, path: &str, test: &'d Node) -> Option<&'d str> {
        let src = test.get("src").or_else(|| test.get("user"));
        let Some(text) = src.and_then(Node::as_str) else {
            self.problem(path, &test.span, "`src` is missing");
            return None;
        };
        self.note_tag(text, test.span.start);
        Some(text)
    }

    fn ssh_tests(&mut self, node: &'d Node) -> Vec<SshTest<'d>> {
        let mut found = Vec::new();
        for (path, test) in self.elements("sshTests", node) {
            let Some(src) = self.test_source(&path, test) else {
                continue;
            };
            let mut list = |name: &str| {
                test.get(name).map_or_else(Vec::new, |n| {
                    self.strings(&format!("{path}.{name}"), n)
                        .into_iter()
                        .map(|(text, _)| text)
                        .collect()
                })
            };
            let (dst, accept) = (list("dst"), list("accept"));
            let (check, deny) = (list("check"), list("deny"));
            found.push(SshTest {
                at: test.span.start,
                src,
                dst,
                accept,
                check,
                deny,
                path,
            });
        }
        found
    }
}

/// Takes `host:ports` apart, and `[1:2::3]:22`.
pub fn split_ports(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        // `tag:x` alone has no ports.
        Some((host, ports)) if !matches!(host, "tag" | "group" | "autogroup" | "ipset" | "svc") => {
            (host, Some(ports))
        }
        _ => (text, None),
    }
}
