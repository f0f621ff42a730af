//! A customer's role and instance profile: shown, compared, and mended.

use serde_json::{Value, json};

use crate::cloud::{Cloud, LEAK};
use crate::common::{Ended, RunningSandbox, Surroundings};

struct Trial {
    sandbox: RunningSandbox,
    surroundings: Surroundings,
}

impl Trial {
    fn new() -> Self {
        let sandbox = RunningSandbox::up();
        let mut surroundings = Surroundings::of(&sandbox);
        // Role and profile do not concern the brain.
        surroundings.set("M8TRX_BRAIN_URL", "http://127.0.0.1:9");
        Self {
            sandbox,
            surroundings,
        }
    }

    fn iam(&self, command: &str, flags: &[&str]) -> Ended {
        let mut all = vec!["iam", command, "cust_a"];
        all.extend(flags);
        self.surroundings.m8trx(&all)
    }

    fn json(&self, command: &str, flags: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(flags);
        self.iam(command, &all).assert_code(0).json()
    }
}

#[test]
fn what_is_what_should_be_and_the_difference() {
    let trial = Trial::new();
    let before = trial.json("show", &[]);
    assert_eq!(before["schema"], "m8trx.iam-show/1");
    assert_eq!(
        before["is"],
        json!({"role": null, "instance_profile": null})
    );
    assert_eq!(before["changes"].as_array().unwrap().len(), 3);
    let dry = trial.json("apply", &["--dry-run"]);
    assert_eq!(
        (&dry["schema"], &dry["changes"]),
        (&json!("m8trx.plan/1"), &json!(2))
    );
    let waits_for: Vec<&Value> = dry["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["after"])
        .collect();
    assert_eq!(waits_for, [&json!([]), &json!(["iam-role"])]);
    trial.iam("apply", &[]).assert_code(2);
    assert_eq!(trial.sandbox.changes(), Vec::<String>::new());

    let applied = trial.json("apply", &["--yes"]);
    assert_eq!(applied["schema"], "m8trx.iam-apply/1");
    let outcomes: Vec<&Value> = applied["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["outcome"])
        .collect();
    assert_eq!(outcomes, ["created", "created"]);
    let after = trial.json("show", &[]);
    assert_eq!(after["is"], after["should_be"]);
    assert_eq!(after["is"], before["should_be"]);
    assert_eq!(after["changes"], json!([]));
    let policy = &after["is"]["role"]["inline_policies"]["m8trx-parameters"]["Statement"][0];
    assert_eq!(policy["Action"], "ssm:GetParameter");
    assert_eq!(policy["Resource"].as_array().unwrap().len(), 3);
    let changes = trial.sandbox.changes();
    let again = trial.iam("apply", &["--yes"]);
    assert!(
        again.assert_code(0).stdout.contains("nothing was changed"),
        "{again:?}"
    );
    assert_eq!(trial.sandbox.changes(), changes);
    assert_eq!(
        trial.iam("diff", &[]).assert_code(0).stdout,
        "m8trx-cust_a is as it should be\n"
    );
}

#[test]
fn drift_is_shown_line_by_line_and_mended() {
    let trial = Trial::new();
    trial.iam("apply", &["--yes"]).assert_code(0);
    Cloud::of(&trial.surroundings.variables).spoil_role("m8trx-cust_a");
    let diff = trial.iam("diff", &[]);
    for line in [
        "--- m8trx-cust_a is",
        "+++ it should be",
        "-              \"lambda.amazonaws.com\"",
        "+            \"Service\": \"ec2.amazonaws.com\"",
        "-              \"Action\": \"ssm:*\",",
        "+        \"Customer\": \"cust_a\"",
        "would: detach arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
    ] {
        // How IAM nests a single principal is its own affair.
        let wanted = line.trim_start_matches(['-', '+', ' ']);
        assert!(
            diff.assert_code(0).stdout.contains(wanted),
            "no {line} in {}",
            diff.stdout
        );
    }
    let document = trial.json("diff", &[]);
    assert_eq!(document["schema"], "m8trx.iam-diff/1");
    assert_eq!(document["differs"], true);
    assert_eq!(document["changes"].as_array().unwrap().len(), 5);
    assert_eq!(
        trial.json("show", &[])["is"]["role"]["attached_policies"],
        json!([LEAK])
    );
    trial.iam("apply", &["--yes"]).assert_code(0);
    let document = trial.json("diff", &[]);
    assert_eq!(
        (&document["differs"], &document["diff"]),
        (&json!(false), &json!(""))
    );
}

#[test]
fn a_role_of_another_customer_is_never_touched() {
    let trial = Trial::new();
    trial.iam("apply", &["--yes"]).assert_code(0);
    Cloud::of(&trial.surroundings.variables).tag_role("m8trx-cust_a", "cust_b");
    let changes = trial.sandbox.changes();
    for command in [
        trial.iam("apply", &["--yes"]),
        trial.iam("apply", &["--dry-run"]),
    ] {
        assert!(
            command
                .assert_code(3)
                .stderr
                .contains("another customer, cust_b"),
            "{command:?}"
        );
    }
    let shown = trial.json("show", &[]);
    assert!(
        shown["problems"][0]
            .as_str()
            .unwrap()
            .contains("another customer, cust_b")
    );
    assert_eq!(trial.json("diff", &[])["differs"], true);
    assert_eq!(trial.sandbox.changes(), changes);
}
