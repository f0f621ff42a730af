//! What a smoke run leaves, listed by the real `aws` command: nothing of its own, everything of others.

use serde_json::{Value, json};

use super::common::{RunningSandbox, Surroundings, ended};
use super::{Moto, aws, tool};

/// Everything that an onboarding could have made, whoever's it is.
pub(super) fn everything(surroundings: &Surroundings) -> Vec<(&'static str, Value)> {
    const LISTS: [(&str, &str); 6] = [
        (
            "hosts",
            r#"ec2 describe-instances --query "Reservations[].Instances[?State.Name!='terminated'][].InstanceId""#,
        ),
        (
            "volumes",
            r#"ec2 describe-volumes --query "Volumes[?State!='deleted'].VolumeId""#,
        ),
        (
            "security groups",
            r#"ec2 describe-security-groups --query "SecurityGroups[?GroupName!='default'].GroupName""#,
        ),
        (
            "parameters",
            "ssm get-parameters-by-path --path /m8trx --recursive --query Parameters[].Name",
        ),
        ("roles", "iam list-roles --query Roles[].RoleName"),
        (
            "instance profiles",
            "iam list-instance-profiles --query InstanceProfiles[].InstanceProfileName",
        ),
    ];
    std::thread::scope(|scope| {
        let asked: Vec<_> = LISTS
            .iter()
            .map(|(what, list)| (*what, scope.spawn(move || aws(surroundings, list))))
            .collect();
        asked
            .into_iter()
            .map(|(what, answer)| (what, answer.join().unwrap()))
            .collect()
    })
}

#[test]
fn killed_at_each_stage_and_cleaned_up_nothing_is_left() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let before = everything(&surroundings);
    for stage in [
        "brain-url: created: ",
        "brain-key: created: ",
        "tailscale-auth-key: created: ",
        "iam-role: created: ",
        "instance-profile: created: ",
        "security-group: created: ",
        "host: created: ",
        "first-heartbeat: arrived: ",
        "host: removed: ",
    ] {
        let mut run = surroundings.start(&["smoke", "--yes"]);
        let reached = run.read_until(|line| line.starts_with(stage));
        assert!(reached, "{stage}: {:?}", run.end());
        run.child.kill().unwrap();
        run.end();
        let cleanup = surroundings.m8trx(&["smoke", "--cleanup", "--yes", "--output", "json"]);
        assert_ne!(
            cleanup.assert_code(0).json()["removed"],
            json!([]),
            "{stage}"
        );
        assert_eq!(everything(&surroundings), before, "{stage}");
    }
}

#[test]
fn it_leaves_others_as_they_are() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_b4_smoke2", "--yes"])
        .assert_code(0);
    let before = everything(&surroundings);
    surroundings.m8trx(&["smoke", "--yes"]).assert_code(0);
    assert_eq!(everything(&surroundings), before);

    // A role of the very name, of another customer, even with the tag of a smoke run of that customer.
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ]});
    let create = format!(
        "iam create-role --role-name m8trx-cust_b4_smoke --assume-role-policy-document '{trust}' \
         --tags Key=Customer,Value=cust_other Key=m8trx-smoke,Value=cust_other/20260101T000000Z-00000000"
    );
    ended(
        surroundings
            .command(tool("aws"))
            .args(shell_words::split(&create).unwrap()),
    )
    .assert_code(0);
    let before = everything(&surroundings);
    let refused = surroundings.m8trx(&["smoke", "--yes"]);
    refused.assert_code(3);
    assert!(
        refused.stderr.contains("IAM role m8trx-cust_b4_smoke"),
        "{refused:?}"
    );
    let cleanup = surroundings.m8trx(&["smoke", "--cleanup", "--yes"]);
    assert!(
        cleanup
            .assert_code(0)
            .stdout
            .starts_with("nothing to remove"),
        "{cleanup:?}"
    );
    assert_eq!(everything(&surroundings), before);
}

/// A fresh mark of this customer on one thing does not make the others this run's.
#[test]
fn cleanup_takes_what_is_marked_and_leaves_the_rest_of_the_same_customer() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_b4_smoke", "--yes"])
        .assert_code(0);
    let before = everything(&surroundings);
    let tag = "ssm add-tags-to-resource --resource-type Parameter --resource-id /m8trx/cust_b4_smoke/tailscale-auth-key \
               --tags Key=m8trx-smoke,Value=cust_b4_smoke/20260101T000000Z-00000000";
    ended(
        surroundings
            .command(tool("aws"))
            .args(shell_words::split(tag).unwrap()),
    )
    .assert_code(0);
    surroundings
        .m8trx(&["smoke", "--cleanup", "--yes"])
        .assert_code(0);
    for ((what, now), (_, then)) in everything(&surroundings).into_iter().zip(before) {
        if what == "parameters" {
            let left = now.as_array().unwrap();
            assert_eq!(left.len(), 2, "{left:?}");
            assert!(!left.contains(&json!("/m8trx/cust_b4_smoke/tailscale-auth-key")));
        } else {
            assert_eq!(now, then, "{what}");
        }
    }
}

/// `POST`s JSON to the sandbox's brain.
fn post(sandbox: &RunningSandbox, path: &str, bearer: &str, body: &Value) -> Value {
    let answer = ended(
        std::process::Command::new("curl")
            .args(["-qfsS", "--noproxy", "*"])
            .args(["-H", "Content-Type: application/json"])
            .args(["-H", &format!("Authorization: Bearer {bearer}")])
            .args(["-d", &body.to_string()])
            .arg(format!("{}{path}", sandbox.environment["M8TRX_BRAIN_URL"])),
    );
    answer.assert_code(0);
    serde_json::from_str(&answer.stdout).unwrap_or(Value::Null)
}

#[test]
fn what_somebody_else_makes_meanwhile_is_told_and_stays() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let mut run = surroundings.start(&["smoke", "--yes", "--expect-tool-call"]);
    assert!(run.read_until(|line| line.starts_with("tool-call: waiting")));
    let image = aws(
        &surroundings,
        "ssm get-parameter --name /aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
    );
    let launched = aws(
        &surroundings,
        &format!(
            "ec2 run-instances --image-id {} --instance-type t3.small \
             --tag-specifications 'ResourceType=instance,Tags=[{{Key=Customer,Value=cust_b4_smoke}}]'",
            image["Parameter"]["Value"].as_str().unwrap()
        ),
    );
    let stranger = launched["Instances"][0]["InstanceId"].as_str().unwrap();
    // Now the run may come to its end.
    let token = std::fs::read_to_string(&sandbox.environment["M8TRX_BRAIN_ADMIN_TOKEN_FILE"]);
    let minted = post(
        &sandbox,
        "/v1/keys",
        token.unwrap().trim(),
        &json!({"customer_id": "cust_b4_smoke", "label": "an agent"}),
    );
    let event = json!({
        "event_type": "tool_call",
        "ts": jiff::Timestamp::now().to_string(),
        "payload": {"tool_name": "bash", "input_bytes": 1, "output_bytes": 2},
    });
    post(
        &sandbox,
        "/v1/events",
        minted["key"].as_str().unwrap(),
        &event,
    );
    let ended = run.end();
    ended.assert_code(3);
    assert!(ended.stderr.contains("it proves nothing"), "{ended:?}");
    assert!(
        ended.stderr.contains(&format!("| host {stranger}")),
        "{ended:?}"
    );
    let left = everything(&surroundings);
    assert_eq!(left[0], ("hosts", json!([stranger])));
    for (what, of_the_run) in &left[2..] {
        assert_eq!(*of_the_run, json!([]), "{what}");
    }
}

#[test]
fn in_moto_it_removes_all_that_it_made() {
    let moto = Moto::start();
    // moto boots nothing and is no brain: the brain is the sandbox's.
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    surroundings
        .set("AWS_ENDPOINT_URL", &moto.url)
        .set("AWS_ACCESS_KEY_ID", "testing")
        .set("AWS_SECRET_ACCESS_KEY", "testing")
        .set("AWS_REGION", "eu-central-1")
        .set("AWS_DEFAULT_REGION", "eu-central-1");
    let images = aws(
        &surroundings,
        "ec2 describe-images --owners 099720109477 --filters Name=architecture,Values=x86_64",
    );
    let image = images["Images"][0]["ImageId"].as_str().unwrap().to_owned();
    let before = everything(&surroundings);
    let smoke = ["smoke", "--yes", "--ami", &image, "--timeout", "1s"];
    // No host beats in moto: everything up to the launch is made, and removed after the wait.
    let run = surroundings.m8trx(&smoke);
    run.assert_code(6);
    assert!(run.stderr.contains("host: created: i-"), "{run:?}");
    assert_eq!(everything(&surroundings), before, "{run:?}");

    let mut run = surroundings.start(&smoke);
    assert!(run.read_until(|line| line.starts_with("host: created: ")));
    run.child.kill().unwrap();
    run.end();
    assert_ne!(everything(&surroundings), before);
    surroundings
        .m8trx(&["smoke", "--cleanup", "--yes"])
        .assert_code(0);
    assert_eq!(everything(&surroundings), before);
}
