//! Properties that hold for every policy: what opens a way is found, and edits change nothing else.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::merge::{add_customer, add_customers, remove_customer};
use super::super::model::Policy;
use super::super::selection::Entity;
use super::super::truth::Truth;
use super::*;
use crate::customer::CustomerId;

const MORE: &str = r#""groups": {"group:eng": ["a@example.com"], "group:odd": ["tag:m8trx-cust-acme", "tag:m8trx-cust-bigco"]}, "hosts": {"everyone": "100.64.0.0/10", "one": "100.99.1.2", "office": "203.0.113.0/24"}, "ipsets": {"ipset:all": ["add everyone", "remove 100.64.0.1"]},"#;

/// Selectors that hold a customer or may.
fn reaching(name: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        Just(format!("tag:m8trx-cust-{name}")),
        select(vec![
            "*",
            "autogroup:tagged",
            "autogroup:danger-all",
            "100.64.0.0/10",
            "fd7a:115c:a1e0::/48",
            "0.0.0.0/0",
            "100.64.0.0-100.127.255.255",
            "everyone",
            "one",
            "ipset:all",
            "ipset:undefined",
            "group:odd",
            "autogroup:unheard-of",
            "host-of-nobody",
        ])
        .prop_map(str::to_owned),
    ]
}

const HARMLESS: [&str; 8] = [
    "group:eng",
    "a@example.com",
    "autogroup:member",
    "autogroup:admin",
    "autogroup:shared",
    "user:*@example.com",
    "tag:m8trx-team",
    "office",
];

/// A list of selectors with harmless ones around.
fn list(reaching: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<String>> {
    let noise = subsequence(HARMLESS.to_vec(), 0..4);
    (reaching, noise, any::<prop::sample::Index>()).prop_map(|(selector, noise, index)| {
        let mut list: Vec<String> = noise.into_iter().map(str::to_owned).collect();
        list.insert(index.index(list.len() + 1), selector);
        list
    })
}

/// How a rule is written, from sources and destinations: its section and its text.
fn rule(form: usize, src: &[String], dst: &[String], ports: &str) -> (&'static str, String) {
    let quote = |list: &[String], suffix: &str| {
        let all: Vec<String> = list.iter().map(|s| format!("\"{s}{suffix}\"")).collect();
        format!("[{}]", all.join(", "))
    };
    let (from, to) = (quote(src, ""), quote(dst, ""));
    let with_ports = quote(dst, &format!(":{ports}"));
    match form {
        0 => (
            "grants",
            format!(r#"{{"src": {from}, "dst": {to}, "ip": ["{ports}"]}}"#),
        ),
        1 => (
            "grants",
            format!(
                r#"{{"dst": {to}, "ip": ["tcp:{ports}"], "src": {from}, "srcPosture": ["posture:x"]}}"#
            ),
        ),
        2 => (
            "grants",
            format!(r#"{{"src": {from}, "dst": {to}, "app": {{"example.com/cap": [{{}}]}}}}"#),
        ),
        3 => (
            "acls",
            format!(r#"{{"action": "accept", "src": {from}, "dst": {with_ports}}}"#),
        ),
        4 => (
            "ACLs",
            format!(r#"{{"Action": "accept", "Users": {from}, "Ports": {with_ports}}}"#),
        ),
        5 => (
            "acls",
            format!(
                r#"{{"action": "accept", "proto": "udp", "src": {from}, "dst": {with_ports}}}"#
            ),
        ),
        _ => (
            "ssh",
            format!(r#"{{"action": "accept", "src": {from}, "dst": {to}, "users": ["root"]}}"#),
        ),
    }
}

fn ports() -> impl Strategy<Value = &'static str> {
    select(vec!["*", "22", "1-65535", "443,8080"])
}

fn names() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set("[a-z][a-z0-9_]{0,6}", 1..9)
}

fn customers(names: &BTreeSet<String>) -> Vec<CustomerId> {
    names
        .iter()
        .map(|n| format!("cust_{n}").parse().unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// One rule that opens a way, of whatever form, anywhere in a file: always found, on its own line.
    #[test]
    fn a_rule_that_opens_a_way_is_always_found(
        src in list(reaching("acme")), dst in list(reaching("bigco")), form in 0usize..7, ports in ports(),
    ) {
        let (section, rule) = rule(form, &src, &dst, ports);
        let text = with_rule(section, &rule, MORE);
        let line = text.lines().position(|l| l.contains(&rule)).unwrap() + 1;
        let report = checked(&text);
        let found = report.violations.iter().find(|finding| {
            finding.kind == Kind::CustomersConnected && finding.at.line == line
        });
        prop_assert!(found.is_some(), "{}: {:#?}", rule, report.violations);
        let found = found.unwrap();
        prop_assert!(found.source.is_some() && found.source != found.destination && found.port.is_some());
    }

    /// A rule from people and the team to anything opens no way between customers, and none is claimed.
    #[test]
    fn a_rule_from_others_is_never_taken_for_a_way_between_customers(
        src in subsequence(HARMLESS.to_vec(), 1..5), dst in list(reaching("bigco")), form in 0usize..6, ports in ports(),
    ) {
        let src: Vec<String> = src.into_iter().map(str::to_owned).collect();
        let (section, rule) = rule(form, &src, &dst, ports);
        let report = checked(&with_rule(section, &rule, MORE));
        prop_assert!(!kinds(&report).contains(&Kind::CustomersConnected), "{}: {:#?}", rule, report.violations);
    }

    /// What is decided for all customers at once is what every single pair says.
    #[test]
    fn all_at_once_is_what_each_pair_says(
        src in subsequence(vec!["tag:m8trx-cust-acme", "tag:m8trx-cust-bigco", "tag:m8trx-cust-corp", "*", "one", "group:eng", "autogroup:tagged", "tag:m8trx-team"], 1..4),
        dst in subsequence(vec!["tag:m8trx-cust-acme", "tag:m8trx-cust-bigco", "tag:m8trx-cust-corp", "*", "one", "office", "tag:m8trx-brain"], 1..4),
        form in select(vec![0usize, 1, 3, 4, 5]), ports in ports(),
    ) {
        let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let (section, rule) = rule(form, &owned(src), &owned(dst), ports);
        let text = with_rule(section, &rule, MORE);
        let text = add_customer(&text, &"cust_corp".parse().unwrap(), 8080).unwrap();
        let document = Document::parse(text).unwrap();
        let policy = Policy::read(&document);
        let all = &policy.customers;
        prop_assert_eq!(all.len(), 3);
        let pair_is_open = |a: usize, b: usize| {
            [(6, 22), (6, 443), (17, 22), (17, 443), (1, 0)].iter().any(|(protocol, port)| {
                policy.reaches(&Entity::Tag(a), &Entity::Tag(b), *protocol, *port) > Truth::No
            })
        };
        let some_pair = all.iter().any(|a| all.iter().any(|b| a != b && pair_is_open(*a, *b)));
        let said = kinds(&check(&document, 8080)).contains(&Kind::CustomersConnected);
        prop_assert_eq!(some_pair, said, "{}", rule);
    }

    /// Files made for some customers, and files that customers were put into or taken out of, are byte for byte the same.
    #[test]
    fn putting_in_and_making_are_one(names in names(), more in "[a-z][a-z0-9_]{0,6}") {
        prop_assume!(!names.contains(&more));
        let before = generate::policy(&generate::tags(&customers(&names)), 8080);
        let all: BTreeSet<String> = names.iter().chain([&more]).cloned().collect();
        let after = generate::policy(&generate::tags(&customers(&all)), 8080);
        let more: CustomerId = format!("cust_{more}").parse().unwrap();
        prop_assert_eq!(&add_customer(&before, &more, 8080).unwrap(), &after);
        prop_assert_eq!(&add_customer(&after, &more, 8080).unwrap(), &after);
        prop_assert_eq!(&remove_customer(&after, &more).unwrap(), &before);
    }

    /// Every line of a hand-written file stays, in its order; and taking the customers out gives the file back that stood
    /// before, once the rules of ours are in it.
    #[test]
    fn a_hand_written_file_keeps_its_lines(names in names(), more in "[a-z][a-z0-9_]{0,6}", rules in prop::collection::vec((list(Just("tag:m8trx-team".to_owned())), list(reaching("acme")), 0usize..6), 0..4)) {
        prop_assume!(!names.contains(&more));
        let lines: String = rules
            .iter()
            .filter_map(|(src, dst, form)| {
                let (section, rule) = rule(*form, src, dst, "22");
                (section == "grants").then(|| format!("    // why\n    {rule}, // because\n"))
            })
            .collect();
        let text = format!("// head\n{{\n  \"grants\": [\n{lines}    // end\n  ],\n\n  \"hosts\": {{\"everyone\": \"100.64.0.0/10\"}},\n}} // tail\n");
        let first = add_customers(&text, &customers(&names), 8080).unwrap();
        let mut new = first.lines();
        for line in text.lines() {
            prop_assert!(new.any(|other| other == line), "{line} is lost in {first}");
        }
        let more: CustomerId = format!("cust_{more}").parse().unwrap();
        let second = add_customer(&first, &more, 8080).unwrap();
        prop_assert_eq!(&remove_customer(&second, &more).unwrap(), &first);
    }

    /// No text makes the parser or the check panic.
    #[test]
    fn no_text_is_a_danger(text in "[\\[\\]{}\",:/*a-z0-9 \n]{0,200}") {
        if let Ok(document) = Document::parse(text.as_str()) {
            check(&document, 8080);
            let _ = add_customer(&text, &"cust_acme".parse().unwrap(), 8080);
            let _ = remove_customer(&text, &"cust_acme".parse().unwrap());
        }
    }
}
