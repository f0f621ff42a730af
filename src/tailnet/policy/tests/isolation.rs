//! What a check says of single rules.

use super::super::check::check_policy;
use super::super::model::Policy;
use super::*;

const ACME: &str = "tag:m8trx-cust-acme";
const BIGCO: &str = "tag:m8trx-cust-bigco";

#[test]
fn rules_that_open_a_way_between_customers() {
    for (section, rule, more, port) in [
        (
            "grants",
            r#"{"src": ["*"], "dst": ["*"], "ip": ["*"]}"#,
            "",
            "tcp:22",
        ),
        (
            "acls",
            r#"{"action": "accept", "src": ["*"], "dst": ["*:*"]}"#,
            "",
            "tcp:22",
        ),
        (
            "ACLs",
            r#"{"Action": "accept", "Users": ["*"], "Ports": ["tag:m8trx-cust-acme:443"]}"#,
            "",
            "tcp:443",
        ),
        (
            "acls",
            r#"{"action": "accept", "src": ["autogroup:tagged"], "proto": "udp", "dst": ["100.64.0.0/10:53,5000-6000"]}"#,
            "",
            "udp:53",
        ),
        (
            "grants",
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["tag:m8trx-cust-bigco"], "ip": ["icmp:*"]}"#,
            "",
            "icmp",
        ),
        (
            "grants",
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["tag:m8trx-cust-bigco"], "app": {"example.com/cap/x": [{}]}}"#,
            "",
            "app",
        ),
        (
            "grants",
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["everyone"], "ip": ["443"], "srcPosture": ["posture:ok"]}"#,
            r#""hosts": {"everyone": "100.64.0.0/10"},"#,
            "tcp:443",
        ),
        (
            "grants",
            r#"{"src": ["ipset:some"], "dst": ["ipset:some"], "ip": ["443"]}"#,
            r#""ipsets": {"ipset:some": ["add ipset:more", "remove 100.64.0.1"], "ipset:more": ["fd7a:115c:a1e0::/48"]},"#,
            "tcp:443",
        ),
        (
            "grants",
            r#"{"src": ["printer"], "dst": ["tag:m8trx-cust-acme"], "ip": ["443"]}"#,
            r#""hosts": {"printer": "100.101.102.103"},"#,
            "tcp:443",
        ),
        (
            "grants",
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["10.20.0.0/16"], "ip": ["443"], "via": ["tag:m8trx-cust-bigco"]}"#,
            "",
            "tcp:443",
        ),
        (
            "grants",
            r#"{"src": ["group:odd"], "dst": ["tag:m8trx-cust-bigco"], "ip": ["443"]}"#,
            r#""groups": {"group:odd": ["tag:m8trx-cust-acme"]},"#,
            "tcp:443",
        ),
        (
            "grants",
            r#"{"src": ["autogroup:of-tomorrow"], "dst": ["autogroup:tagged"], "ip": ["443"]}"#,
            "",
            "tcp:443",
        ),
        (
            "ssh",
            r#"{"action": "accept", "src": ["autogroup:tagged"], "dst": ["tag:m8trx-cust-bigco"], "users": ["root"]}"#,
            "",
            "ssh",
        ),
    ] {
        let text = with_rule(section, rule, more);
        let report = checked(&text);
        let line = text.lines().position(|line| line.contains(rule)).unwrap() + 1;
        let found = report
            .violations
            .iter()
            .find(|finding| finding.kind == Kind::CustomersConnected && finding.at.line == line);
        let Some(found) = found else {
            panic!("{rule}: {:#?}", report.violations);
        };
        assert_eq!(found.port.as_deref(), Some(port), "{rule}: {found:?}");
        let source = found.source.as_deref().unwrap();
        assert!(source.starts_with("tag:m8trx-cust-"), "{found:?}");
        assert_ne!(found.source, found.destination);
        assert!(found.what.contains(source), "{found:?}");
    }
}

#[test]
fn rules_that_open_no_way_between_customers() {
    for (section, rule, more) in [
        (
            "grants",
            r#"{"src": ["group:sre"], "dst": ["*"], "ip": ["*"]}"#,
            r#""groups": {"group:sre": ["a@example.com"]},"#,
        ),
        (
            "grants",
            r#"{"src": ["autogroup:member"], "dst": ["autogroup:tagged"], "ip": ["*"]}"#,
            "",
        ),
        (
            "grants",
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["tag:m8trx-cust-acme"], "ip": ["*"]}"#,
            "",
        ),
        (
            "grants",
            r#"{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}"#,
            "",
        ),
        (
            "acls",
            r#"{"action": "accept", "src": ["autogroup:admin", "b@example.com"], "dst": ["*:*"]}"#,
            "",
        ),
        (
            "grants",
            r#"{"src": ["198.51.100.0/24"], "dst": ["tag:m8trx-cust-acme"], "ip": ["443"]}"#,
            "",
        ),
        (
            "grants",
            r#"{"src": ["tag:m8trx-team"], "dst": ["*"], "ip": ["*"]}"#,
            "",
        ),
    ] {
        let report = checked(&with_rule(section, rule, more));
        assert_eq!(report.violations, [], "{rule}");
    }
}

#[test]
fn what_customers_reach_besides_the_brain_is_told() {
    for (rule, expected) in [
        (
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["tag:m8trx-brain"], "ip": ["tcp:443"]}"#,
            "more of tag:m8trx-brain",
        ),
        (
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["autogroup:internet"], "ip": ["*"]}"#,
            "outside the tailnet",
        ),
        (
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["svc:web"], "ip": ["443"]}"#,
            "the service svc:web",
        ),
    ] {
        let report = checked(&with_rule("grants", rule, ""));
        assert_eq!(report.violations, [], "{rule}");
        assert!(
            report.notes[0].what.contains(expected),
            "{:?}",
            report.notes
        );
    }
    for (rule, kind) in [
        (
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["10.1.0.0/16"], "ip": ["443"]}"#,
            Kind::CustomersConnected,
        ),
        (
            r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["tag:m8trx-team"], "ip": ["443"]}"#,
            Kind::TeamExposed,
        ),
    ] {
        assert!(
            kinds(&checked(&with_rule("grants", rule, ""))).contains(&kind),
            "{rule}"
        );
    }
}

#[test]
fn a_file_without_rules_lets_everything_through() {
    let report = checked("{\"tagOwners\": {}}");
    assert!(kinds(&report).contains(&Kind::CustomersConnected));
    let report = checked("{\"acls\": []}");
    assert_eq!(report.violations, []);
    // What would connect the next customers is found before there are any.
    let report = checked(r#"{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}"#);
    assert!(
        report.violations[0]
            .what
            .contains("as soon as there are such customers")
    );
}

#[test]
fn who_may_take_a_customers_tag() {
    let made = generate::policy(&tags(&["acme", "bigco"]), 8080);
    let acme = format!("\"{ACME}\": [\"tag:m8trx-operator\"]");
    let operator = "\"tag:m8trx-operator\": [\"autogroup:admin\"]";
    for (from, to, words) in [
        (
            acme.as_str(),
            format!("\"{ACME}\": [\"tag:m8trx-operator\", \"autogroup:admin\"]"),
            None,
        ),
        (&acme, format!("\"{ACME}\": []"), None),
        (
            &acme,
            format!("\"{ACME}\": [\"group:eng\"]"),
            Some("group:eng (that is a@example.com)"),
        ),
        (
            &acme,
            format!("\"{ACME}\": [\"autogroup:member\"]"),
            Some("autogroup:member may give"),
        ),
        (
            &acme,
            format!("\"{ACME}\": [\"tag:m8trx-team\"]"),
            Some("tag:m8trx-team (that is autogroup:admin)"),
        ),
        (&acme, format!("\"{ACME}\": [\"{BIGCO}\"]"), Some(BIGCO)),
        (
            &acme,
            format!("\"{ACME}\": \"tag:m8trx-operator\""),
            Some("? may give"),
        ),
        (
            operator,
            "\"tag:m8trx-operator\": [\"b@example.com\"]".to_owned(),
            Some("every customer's tag"),
        ),
        (
            operator,
            format!("{operator}, \"tag:db\": [\"{ACME}\"]"),
            Some("may take tag:db for its own"),
        ),
    ] {
        let text = made.replacen(from, &to, 1).replacen(
            "{\n",
            "{\n\"groups\": {\"group:eng\": [\"a@example.com\"]},\n",
            1,
        );
        assert_ne!(text, made);
        let report = checked(&text);
        let claims: Vec<_> = report
            .violations
            .iter()
            .filter(|finding| finding.kind == Kind::TagClaimable)
            .collect();
        match words {
            None => assert_eq!(claims, [] as [&super::super::check::Finding; 0], "{to}"),
            Some(words) => {
                assert_eq!(claims.len(), 1, "{to}: {claims:#?}");
                assert!(claims[0].what.contains(words), "{to}: {claims:#?}");
                assert!(
                    text.lines()
                        .nth(claims[0].at.line - 1)
                        .unwrap()
                        .contains(&to)
                );
            }
        }
    }
}

#[test]
fn ways_that_must_be_open() {
    let made = generate::policy(&tags(&["acme", "bigco"]), 8080);
    let brain = format!("      \"src\": [\n        \"{ACME}\",\n");
    let no_brain = made.replacen(&brain, "      \"src\": [\n", 1);
    let report = checked(&no_brain);
    assert_eq!(
        kinds(&report),
        [Kind::BrainUnreachable, Kind::TestFails].into()
    );
    assert!(report.violations[0].what.contains(ACME));

    let no_ssh = made.replacen("\"action\": \"accept\"", "\"action\": \"check\"", 1);
    let report = checked(&no_ssh);
    assert_eq!(
        kinds(&report),
        [Kind::SshUnreachable, Kind::SshTestFails, Kind::Invalid].into()
    );
    let postured = made.replacen(
        "\"ip\": [\"*\"]",
        "\"ip\": [\"*\"], \"srcPosture\": [\"posture:x\"]",
        1,
    );
    assert_eq!(kinds(&checked(&postured)), [Kind::SshUnreachable].into());
    let closed = made.replacen("\"ip\": [\"*\"]", "\"ip\": [\"tcp:80\"]", 1);
    assert_eq!(
        kinds(&checked(&closed)),
        [Kind::SshUnreachable, Kind::TestFails].into()
    );
    let default_posture = made.replacen("{\n", "{\n\"defaultSrcPosture\": [\"posture:x\"],\n", 1);
    assert_eq!(
        kinds(&checked(&default_posture)),
        [Kind::BrainUnreachable, Kind::SshUnreachable].into()
    );
}

#[test]
fn the_files_own_tests_are_evaluated() {
    for (section, test, expected) in [
        (
            "tests",
            r#"{"src": "tag:m8trx-cust-acme", "accept": ["tag:m8trx-brain:9090"]}"#,
            Some(Kind::TestFails),
        ),
        (
            "tests",
            r#"{"src": "tag:m8trx-cust-acme", "proto": "udp", "accept": ["tag:m8trx-brain:8080"]}"#,
            Some(Kind::TestFails),
        ),
        (
            "tests",
            r#"{"src": "tag:m8trx-cust-acme", "proto": "icmp", "accept": ["tag:m8trx-brain:0"]}"#,
            None,
        ),
        (
            "tests",
            r#"{"src": "tag:m8trx-team", "deny": ["tag:m8trx-cust-acme:80"]}"#,
            Some(Kind::TestFails),
        ),
        (
            "tests",
            r#"{"src": "a@example.com", "deny": ["tag:m8trx-cust-acme:80"]}"#,
            None,
        ),
        (
            "tests",
            r#"{"src": "tag:m8trx-team", "accept": ["tag:m8trx-cust-acme:80-90"]}"#,
            Some(Kind::TestFails),
        ),
        (
            "sshTests",
            r#"{"src": "tag:m8trx-team", "dst": ["tag:m8trx-cust-acme"], "accept": ["admin"], "check": []}"#,
            None,
        ),
        (
            "sshTests",
            r#"{"src": "tag:m8trx-team", "dst": ["tag:m8trx-cust-acme"], "deny": ["root"]}"#,
            Some(Kind::SshTestFails),
        ),
        (
            "sshTests",
            r#"{"src": "tag:m8trx-team", "dst": ["tag:m8trx-cust-acme"], "check": ["root"]}"#,
            Some(Kind::SshTestFails),
        ),
        (
            "sshTests",
            r#"{"src": "tag:m8trx-team", "dst": ["tag:m8trx-brain"], "accept": ["root"]}"#,
            Some(Kind::SshTestFails),
        ),
    ] {
        let report = checked(&with_rule(section, test, ""));
        assert_eq!(
            kinds(&report),
            expected.into_iter().collect(),
            "{test}: {:?}",
            report.violations
        );
    }
}

#[test]
fn what_is_not_understood_is_told_and_proves_nothing() {
    for (section, rule, more, words) in [
        (
            "grants",
            r#"{"src": ["tag:m8trx-team"], "dst": ["tag:m8trx-brain"], "ip": ["*"], "widen": true}"#,
            "",
            "widen",
        ),
        (
            "grants",
            r#"{"src": "tag:m8trx-team", "dst": ["tag:m8trx-brain"], "ip": ["*"]}"#,
            "",
            "not a list",
        ),
        (
            "grants",
            r#"{"src": ["tag:m8trx-team"], "dst": ["tag:m8trx-brain"], "ip": ["warp:*"]}"#,
            "",
            "warp",
        ),
        (
            "acls",
            r#"{"action": "drop", "src": ["tag:m8trx-team"], "dst": ["tag:m8trx-brain:22"]}"#,
            "",
            "`action` is not",
        ),
        (
            "acls",
            r#"{"action": "accept", "src": ["tag:m8trx-team"], "users": ["*"], "dst": ["tag:m8trx-brain:22"]}"#,
            "",
            "both",
        ),
        ("grants", "7", "", "not an object"),
        (
            "grants",
            r#"{"src": [], "dst": [], "ip": []}"#,
            r#""permits": [],"#,
            "not known",
        ),
        (
            "grants",
            r#"{"src": [], "dst": [], "ip": []}"#,
            r#""Grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],"#,
            "second time",
        ),
    ] {
        let report = checked(&with_rule(section, rule, more));
        let found = report.violations.iter().any(|finding| {
            finding.kind == Kind::NotUnderstood
                && (finding.what.contains(words) || finding.rule.contains(words))
        });
        assert!(found, "{rule}: {:#?}", report.violations);
    }
}

#[test]
fn tags_nobody_owns_routes_and_funnel() {
    let rule = r#"{"src": ["tag:m8trx-team"], "dst": ["tag:m8trx-cust-new"], "ip": ["*"]}"#;
    let report = checked(&with_rule("grants", rule, ""));
    assert!(
        report.violations.iter().any(|finding| {
            finding.kind == Kind::Invalid && finding.rule == "tag:m8trx-cust-new"
        })
    );
    let rule = r#"{"src": ["tag:m8trx-cust-*"], "dst": ["tag:m8trx-team"], "ip": ["*"]}"#;
    let report = checked(&with_rule("grants", rule, ""));
    assert!(
        report
            .violations
            .iter()
            .any(|finding| finding.what.contains("is no tag"))
    );
    // Whoever may become the team or the brain, directly or through tags and groups, is inside every customer's wall.
    for (tag, owners, more, words) in [
        (
            "team",
            r#"["autogroup:member"]"#,
            "",
            "autogroup:member may give a device tag:m8trx-team",
        ),
        (
            "team",
            r#"["o@evil.com"]"#,
            "",
            "o@evil.com may give a device tag:m8trx-team",
        ),
        (
            "team",
            r#"["autogroup:it-admin"]"#,
            "",
            "autogroup:it-admin may give a device tag:m8trx-team",
        ),
        (
            "team",
            r#"["group:x"]"#,
            "",
            "group:x may give a device tag:m8trx-team",
        ),
        (
            "team",
            r#"["tag:ci"]"#,
            r#""tag:ci": ["autogroup:member"],"#,
            "tag:ci (that is autogroup:member) may give a device tag:m8trx-team",
        ),
        (
            "brain",
            r#"["tag:ci"]"#,
            r#""tag:ci": ["*"],"#,
            "tag:ci (that is *) may give a device tag:m8trx-brain",
        ),
        (
            "brain",
            r#"["autogroup:admin", "tag:m8trx-operator"]"#,
            "",
            "tag:m8trx-operator (that is autogroup:admin) may give a device tag:m8trx-brain",
        ),
    ] {
        let claimed = generate::policy(&tags(&["acme"]), 8080).replacen(
            &format!("\"tag:m8trx-{tag}\": [\"autogroup:admin\"]"),
            &format!("{more} \"tag:m8trx-{tag}\": {owners}"),
            1,
        );
        let report = checked(&claimed);
        assert_eq!(report.violations.len(), 1, "{:?}", report.violations);
        assert_eq!(report.violations[0].kind, Kind::TagClaimable);
        let what = &report.violations[0].what;
        assert!(what.contains(words), "{what}");
    }

    let rule = r#"{"src": [], "dst": [], "ip": []}"#;
    for (more, kind) in [
        (
            r#""autoApprovers": {"routes": {"10.0.0.0/8": ["tag:m8trx-cust-acme"]}},"#,
            Some(Kind::RoutesClaimable),
        ),
        (
            r#""autoApprovers": {"exitNode": ["autogroup:tagged"]},"#,
            Some(Kind::RoutesClaimable),
        ),
        (
            r#""autoApprovers": {"exitNode": ["tag:m8trx-team"]},"#,
            None,
        ),
        (
            r#""nodeAttrs": [{"target": ["autogroup:member"], "attr": ["funnel"]}],"#,
            None,
        ),
    ] {
        let report = checked(&with_rule("grants", rule, more));
        assert_eq!(kinds(&report), kind.into_iter().collect(), "{more}");
    }
    let funnel = r#""nodeAttrs": [{"target": ["*"], "attr": ["funnel"]}],"#;
    let report = checked(&with_rule("grants", rule, funnel));
    assert_eq!(report.notes[0].kind, Kind::Funnel);
}

/// What a rule opens beside other customers is named: as a violation, or as a note.
#[test]
fn no_way_is_silent() {
    let grant = |rule: &str| checked(&with_rule("grants", rule, ""));
    for destination in [
        "autogroup:admin",
        "autogroup:member",
        "autogroup:owner",
        "group:team",
        "op@x.com",
        "user:*@x.com",
    ] {
        let rule =
            format!(r#"{{"src": ["tag:m8trx-cust-acme"], "dst": ["{destination}"], "ip": ["*"]}}"#);
        let report = grant(&rule);
        assert_eq!(kinds(&report), [Kind::TeamExposed].into(), "{destination}");
        assert_eq!(
            report.violations[0].what,
            format!("tag:m8trx-cust-acme reaches people's own devices ({destination})")
        );
        let acl = format!(
            r#"{{"action": "accept", "src": ["tag:m8trx-cust-acme"], "dst": ["{destination}:22"]}}"#
        );
        assert_eq!(
            kinds(&checked(&with_rule("acls", &acl, ""))),
            [Kind::TeamExposed].into()
        );
    }
    let report = grant(r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["*"], "ip": ["*"]}"#);
    assert!(
        report.violations[0]
            .what
            .ends_with("it opens tag:m8trx-team, tag:m8trx-operator, people's own devices too"),
        "{:?}",
        report.violations
    );
    // Networks behind subnet routers, on both sides alike.
    for rule in [
        r#"{"src": ["10.0.0.0/8"], "dst": ["tag:m8trx-cust-acme"], "ip": ["tcp:22"]}"#,
        r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["10.0.0.0/8"], "ip": ["tcp:22"]}"#,
    ] {
        assert_eq!(
            kinds(&grant(rule)),
            [Kind::CustomersConnected].into(),
            "{rule}"
        );
    }
    let fd = r#"{"src": ["fd7a:115c:a1e0::1"], "dst": ["tag:m8trx-brain"], "ip": ["tcp:22"]}"#;
    assert_eq!(grant(fd).violations, []);
    // Routers.
    for (rule, more) in [
        (
            r#"{"src": ["tag:m8trx-team"], "dst": ["autogroup:internet"], "ip": ["*"], "via": ["tag:m8trx-cust-acme"]}"#,
            "",
        ),
        (
            r#"{"src": [], "dst": [], "ip": []}"#,
            r#""nodeAttrs": [{"target": ["*"], "app": {"tailscale.com/app-connectors": [{"name": "x", "connectors": ["tag:m8trx-cust-acme"], "domains": ["x.com"]}]}}],"#,
        ),
    ] {
        let report = checked(&with_rule("grants", rule, more));
        assert_eq!(
            kinds(&report),
            [Kind::RoutesClaimable].into(),
            "{rule} {more}"
        );
    }
    // SSH.
    let ssh = |dst: &str, more: &str| {
        let rule = format!(
            r#"{{"action": "accept", "src": ["tag:m8trx-cust-acme"], "dst": ["{dst}"], "users": ["root"]}}"#
        );
        let text = with_rule("ssh", &rule, "");
        checked(&text.replacen("\"tagOwners\": {", &format!("\"tagOwners\": {{ {more}"), 1))
    };
    assert!(kinds(&ssh("tag:m8trx-brain", "")).contains(&Kind::BrainExposed));
    let jump = ssh("tag:jump", r#""tag:jump": [],"#);
    assert_eq!(jump.violations, []);
    assert_eq!(
        jump.notes[0].what,
        "an SSH rule lets tag:m8trx-cust-acme into tag:jump"
    );
    // Two hops.
    let hop = r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["tag:jump"], "ip": ["tcp:22"]}, {"src": ["tag:jump"], "dst": ["tag:m8trx-cust-bigco"], "ip": ["tcp:22"]}"#;
    let text = with_rule("grants", hop, "").replacen(
        "\"tagOwners\": {",
        "\"tagOwners\": { \"tag:jump\": [],",
        1,
    );
    let report = checked(&text);
    assert_eq!(report.violations, []);
    let told: Vec<Kind> = report.notes.iter().map(|note| note.kind).collect();
    assert_eq!(told, [Kind::ReachesMore, Kind::TwoHops]);
    let brain = r#"{"src": ["tag:m8trx-brain"], "dst": ["tag:m8trx-cust-bigco"], "ip": ["*"]}"#;
    assert_eq!(grant(brain).notes[0].kind, Kind::TwoHops);
}

#[test]
fn tags_that_differ_by_case_and_sets_with_anything_inside() {
    let rule = r#"{"src": ["tag:M8TRX-cust-a"], "dst": ["tag:M8TRX-cust-b"], "ip": ["*"]}"#;
    let text = with_rule("grants", rule, "").replacen(
        "\"tagOwners\": {",
        "\"tagOwners\": { \"tag:M8TRX-cust-a\": [], \"tag:M8TRX-cust-b\": [],",
        1,
    );
    assert_eq!(kinds(&checked(&text)), [Kind::NotUnderstood].into());
    for inside in [
        "autogroup:tagged",
        "group:x",
        "svc:y",
        "a@x.com",
        "tag:m8trx-cust-acme",
    ] {
        let rule = r#"{"src": ["ipset:x"], "dst": ["ipset:x"], "ip": ["*"]}"#;
        let more = format!(r#""ipsets": {{"ipset:x": ["add {inside}"]}},"#);
        let report = checked(&with_rule("grants", rule, &more));
        assert!(
            kinds(&report).contains(&Kind::Invalid),
            "{inside}: {:?}",
            report.violations
        );
        if inside == "autogroup:tagged" {
            assert!(kinds(&report).contains(&Kind::CustomersConnected));
        }
    }
    let mapped =
        r#"{"src": ["tag:m8trx-cust-acme"], "dst": ["::ffff:100.64.0.0/106"], "ip": ["*"]}"#;
    let report = checked(&with_rule("grants", mapped, ""));
    assert!(
        kinds(&report).contains(&Kind::CustomersConnected),
        "{:?}",
        report.violations
    );
}

/// A rule with one address of the tailnet is about the device that has it, where the devices are known.
#[test]
fn single_addresses_are_settled_by_the_devices() {
    let to = |address: &str| {
        format!(r#"{{"src": ["tag:m8trx-cust-acme"], "dst": ["{address}"], "ip": ["tcp:8080"]}}"#)
    };
    let judged = |rule: &str| {
        let text = with_rule("grants", rule, "");
        let document = Document::parse(text).unwrap();
        let owner = |address: &str, owner: &str| (address.parse().unwrap(), vec![owner.to_owned()]);
        let owners = [
            owner("100.101.102.103", "tag:m8trx-brain"),
            owner("100.101.102.104", "op@x.com"),
            owner("100.101.102.105", "tag:m8trx-cust-bigco"),
        ];
        check_policy(Policy::read_with(&document, owners.into()), 8080)
    };
    for (address, offline, known) in [
        ("100.101.102.103", Some(Kind::CustomersConnected), None),
        (
            "100.101.102.104",
            Some(Kind::CustomersConnected),
            Some(Kind::TeamExposed),
        ),
        (
            "100.101.102.105",
            Some(Kind::CustomersConnected),
            Some(Kind::CustomersConnected),
        ),
        (
            "100.101.102.106",
            Some(Kind::CustomersConnected),
            Some(Kind::CustomersConnected),
        ),
        // MagicDNS, and what no device ever has.
        ("100.100.100.100", None, None),
        ("100.115.92.0/23", None, None),
    ] {
        let first = |report: &Report| report.violations.first().map(|finding| finding.kind);
        assert_eq!(
            first(&checked(&with_rule("grants", &to(address), ""))),
            offline,
            "{address}"
        );
        assert_eq!(first(&judged(&to(address))), known, "{address}");
    }
    let monitoring =
        r#"{"src": ["100.101.102.104"], "dst": ["tag:m8trx-cust-acme"], "ip": ["tcp:9100"]}"#;
    assert!(!checked(&with_rule("grants", monitoring, "")).holds());
    assert_eq!(judged(monitoring).violations, []);
}

/// What the service answers 400 to is called invalid before it is asked.
#[test]
fn what_the_service_refuses_is_invalid() {
    for (section, rule, more, words) in [
        (
            "grants",
            r#"{"src": ["*"], "dst": ["autogroup:self"], "ip": ["*"]}"#,
            "",
            "autogroup:self cannot be the destination of tagged",
        ),
        (
            "grants",
            r#"{"src": ["autogroup:self"], "dst": ["tag:m8trx-brain"], "ip": ["*"]}"#,
            "",
            "autogroup:self cannot be a source",
        ),
        (
            "grants",
            r#"{"src": ["op@x.com"], "dst": ["0.0.0.0/0"], "ip": ["*"]}"#,
            "",
            "cannot be destinations",
        ),
        (
            "grants",
            r#"{"src": ["op@x.com"], "dst": ["autogroup:danger-all"], "ip": ["*"]}"#,
            "",
            "danger-all cannot be a destination",
        ),
        (
            "grants",
            r#"{"src": ["op@x.com"], "dst": ["tag:m8trx-brain"]}"#,
            "",
            "neither `ip` nor `app`",
        ),
        (
            "grants",
            r#"{"src": ["op@x.com"], "dst": ["autogroup:internet"], "app": {"x.com/y": [{}]}}"#,
            "",
            "cannot be granted to autogroup:internet",
        ),
        (
            "grants",
            r#"{"src": ["op@x.com"], "dst": ["autogroup:internet"], "ip": ["*"], "via": ["op@x.com"]}"#,
            "",
            "something else than tags",
        ),
        (
            "grants",
            r#"{"src": ["op@x.com"], "dst": ["tag:m8trx-brain"], "ip": ["tcp:0"]}"#,
            "",
            "no port 0",
        ),
        (
            "acls",
            r#"{"action": "accept", "src": ["op@x.com"], "dst": ["tag:m8trx-brain:0"]}"#,
            "",
            "no port 0",
        ),
        (
            "ssh",
            r#"{"action": "accept", "src": ["op@x.com"], "dst": ["tag:m8trx-brain"]}"#,
            "",
            "`users` is missing",
        ),
        (
            "ssh",
            r#"{"action": "accept", "src": ["op@x.com"], "dst": ["tag:m8trx-brain"], "users": [""]}"#,
            "",
            "`users` is missing or holds an empty name",
        ),
        (
            "ssh",
            r#"{"action": "accept", "src": ["op@x.com"], "dst": ["10.0.0.0/8"], "users": ["x"]}"#,
            "",
            "`dst` holds a network",
        ),
        (
            "ssh",
            r#"{"action": "check", "checkPeriod": "169h", "src": ["op@x.com"], "dst": ["tag:m8trx-brain"], "users": ["x"]}"#,
            "",
            "checkPeriod",
        ),
        (
            "ssh",
            r#"{"action": "check", "checkPeriod": "-1h", "src": ["op@x.com"], "dst": ["tag:m8trx-brain"], "users": ["x"]}"#,
            "",
            "checkPeriod",
        ),
        (
            "grants",
            r#"{"src": [], "dst": [], "ip": []}"#,
            r#""groups": {"group:a": ["group:b"], "group:b": []},"#,
            "a group is in a group",
        ),
    ] {
        let report = checked(&with_rule(section, rule, more));
        assert!(
            report
                .violations
                .iter()
                .any(|finding| finding.kind == Kind::Invalid && finding.what.contains(words)),
            "{rule}: {:?}",
            report.violations
        );
    }
}

/// Membership that the file cannot know is undecided; a network is reached by no test.
#[test]
fn tests_count_as_tailscale_counts_them() {
    let with_tests = |tests: &str| {
        let rule = r#"{"src": ["autogroup:member"], "dst": ["tag:open"], "ip": ["*"]}"#;
        let text = with_rule("grants", rule, "");
        let text = text.replacen("\"tagOwners\": {", "\"tagOwners\": { \"tag:open\": [],", 1);
        let text = text.replacen("\"tests\": [", &format!("\"tests\": [ {tests},"), 1);
        checked(&text)
    };
    let stranger = with_tests(r#"{"src": "torvalds@github", "deny": ["tag:open:80"]}"#);
    assert_eq!(stranger.violations, []);
    assert_eq!(stranger.tests.undecided, 1);
    for destination in ["10.0.0.0/8:22", "100.64.0.16/32:22"] {
        let test = format!(r#"{{"src": "tag:m8trx-team", "accept": ["{destination}"]}}"#);
        assert_eq!(
            kinds(&with_tests(&test)),
            [Kind::TestFails].into(),
            "{destination}"
        );
    }
    let internet = with_tests(r#"{"src": "tag:m8trx-team", "accept": ["autogroup:internet:443"]}"#);
    assert_eq!(internet.tests.undecided, 1);
}
