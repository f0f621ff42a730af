//! Customers put into files and taken out of them.

use super::super::merge::{
    MergeError, add_customer, add_customers, add_customers_marked, is_marked, remark_at,
    remove_customer,
};
use super::super::removal::remove_tag;
use super::*;
use crate::customer::CustomerId;
use similar::TextDiff;

fn customer(name: &str) -> CustomerId {
    format!("cust_{name}").parse().unwrap()
}

/// A file as people write them: other rules, comments, two styles of lists.
const HAND_WRITTEN: &str = r#"// Ours since 2021. Ask in #network before you touch it.
{
	"groups": {"group:sre": ["ann@example.com", "bob@example.com"]}, // on call

	"tagOwners": {
		"tag:db": ["group:sre"], // postgres
		"tag:m8trx-brain": ["autogroup:network-admin"]
	},

	"acls": [
		// SRE everywhere
		{"action": "accept", "src": ["group:sre"], "dst": ["*:*"]},
		{
			"action": "accept",
			"src": ["autogroup:member"],
			"dst": ["tag:db:5432"] // not 22
		}
	],

	/* Nobody remembers why. */
	"randomizeClientPort": true
}
"#;

fn diff(before: &str, after: &str) -> String {
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(1)
        .to_string()
}

#[test]
fn a_customer_is_put_into_a_hand_written_file() {
    let after = add_customer(HAND_WRITTEN, &customer("acme"), 8080).unwrap();
    insta::assert_snapshot!(diff(HAND_WRITTEN, &after));
    assert_eq!(checked(&after).violations, []);
    assert_eq!(
        add_customer(&after, &customer("acme"), 8080).unwrap(),
        after
    );

    let two = add_customer(&after, &customer("bigco"), 8080).unwrap();
    assert_eq!(checked(&two).violations, []);
    insta::assert_snapshot!(diff(&after, &two));
    assert_eq!(remove_customer(&two, &customer("bigco")).unwrap(), after);
}

#[test]
fn a_customer_is_taken_out_wherever_it_is_named() {
    let text = r#"{
  "tagOwners": {
    "tag:m8trx-cust-acme": ["tag:m8trx-operator"], // our first
    "tag:m8trx-cust-acme-2": ["tag:m8trx-operator"],
    "tag:lab": ["tag:m8trx-cust-acme"],
  },
  "acls": [
    {"action": "accept", "src": ["tag:m8trx-cust-acme"], "dst": ["tag:m8trx-brain:8080"]}, // acme
    {"action": "accept", "src": ["tag:m8trx-cust-acme", "tag:m8trx-cust-acme-2"], "dst": ["tag:lab:22"]},
    {"action": "accept", "src": ["group:x"], "dst": ["tag:m8trx-cust-acme:22", "tag:lab:22"]}
  ],
  "grants": [
    {"src": ["tag:lab"], "dst": ["10.0.0.0/8"], "ip": ["*"], "via": ["tag:m8trx-cust-acme"]},
  ],
  "autoApprovers": {"exitNode": ["tag:m8trx-cust-acme"]},
  "tests": [
    {"src": "tag:m8trx-cust-acme", "deny": ["tag:lab:22"]},
    {"src": "tag:lab", "accept": ["tag:m8trx-cust-acme:22"], "deny": ["tag:m8trx-cust-acme-2:22"]},
    {"src": "tag:lab", "deny": ["tag:m8trx-cust-acme:22"]},
  ],
}
"#;
    let after = remove_customer(text, &customer("acme")).unwrap();
    insta::assert_snapshot!(after);
    assert_eq!(remove_customer(&after, &customer("acme")).unwrap(), after);
    assert_eq!(remove_customer(text, &customer("never")).unwrap(), text);
}

#[test]
fn coming_and_going_leaves_no_trace() {
    let first = add_customer(HAND_WRITTEN, &customer("acme"), 8080).unwrap();
    let left = remove_customer(&first, &customer("acme")).unwrap();
    assert!(!left.contains("acme"));
    let again = add_customer(&left, &customer("acme"), 8080).unwrap();
    assert_eq!(remove_customer(&again, &customer("acme")).unwrap(), left);
    assert_eq!(checked(&again).violations, []);
}

#[test]
fn a_mark_tells_who_put_a_customer_in() {
    let acme = customer("acme");
    let marked =
        add_customers_marked(HAND_WRITTEN, [&acme], 8080, Some("m8trx-smoke=x/1")).unwrap();
    assert!(
        is_marked(&marked, &acme, "m8trx-smoke=x/1").unwrap(),
        "{marked}"
    );
    assert!(!is_marked(&marked, &acme, "m8trx-smoke=x/2").unwrap());
    assert_eq!(
        remark_at(&marked, &acme).unwrap().as_deref(),
        Some("m8trx-smoke=x/1")
    );
    assert_eq!(remark_at(HAND_WRITTEN, &acme).unwrap(), None);
    assert!(!is_marked(HAND_WRITTEN, &acme, "m8trx-smoke=x/1").unwrap());
    // What is there already does not become another's.
    let again = add_customers_marked(&marked, [&acme], 8080, Some("m8trx-smoke=x/2")).unwrap();
    assert_eq!(again, marked);
    let gone = remove_customer(&marked, &acme).unwrap();
    assert!(!gone.contains("m8trx-smoke"), "{gone}");
}

#[test]
fn a_file_with_carriage_returns_keeps_them() {
    let text = HAND_WRITTEN.replace('\n', "\r\n");
    let after = add_customer(&text, &customer("acme"), 8080).unwrap();
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
    let plain = add_customer(HAND_WRITTEN, &customer("acme"), 8080).unwrap();
    assert_eq!(after.replace("\r\n", "\n"), plain);
}

#[test]
fn files_that_are_no_policy() {
    for (text, words) in [
        (
            "{\"grants\": {}}",
            "line 1, column 12: `grants` is not a list",
        ),
        ("{\"tagOwners\": []}", "`tagOwners` is not an object"),
        ("<html>", "line 1, column 1"),
        (
            "{\"a\": 1,\n \"a\": 2}",
            "line 2, column 2: a is there a second time",
        ),
    ] {
        let error = add_customer(text, &customer("acme"), 8080)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    let text = r#"{"custom": {"x": "tag:m8trx-cust-acme"}}"#;
    assert_eq!(
        remove_tag(text, "tag:m8trx-cust-acme").unwrap_err(),
        MergeError::StillMentioned {
            tag: "tag:m8trx-cust-acme".to_owned(),
            at: super::super::hujson::Position {
                line: 1,
                column: 18
            },
        }
    );
}

#[test]
fn nothing_becomes_a_whole_file() {
    let customers = [customer("bigco"), customer("acme")];
    let made = add_customers(" \n", &customers, 8080).unwrap();
    assert_eq!(made, generate::policy(&tags(&["acme", "bigco"]), 8080));
    assert_eq!(
        checked(&add_customers("{}", &customers, 8080).unwrap()).violations,
        []
    );
}
