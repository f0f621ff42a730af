//! The steps of onboarding as commands of their own, one after the other, with the real `aws` command as witness: against
//! moto and against the sandbox.

use serde_json::{Value, json};

use super::common::{Ended, RunningSandbox, Surroundings, ended};
use super::{Moto, assert_onboarded, aws, tool};

/// A place to run commands in: moto's or the sandbox's cloud, and the sandbox's brain.
struct Place {
    surroundings: Surroundings,
    sandbox: RunningSandbox,
    moto: Option<Moto>,
}

impl Place {
    fn new(in_moto: bool) -> Self {
        let sandbox = RunningSandbox::up();
        let mut surroundings = Surroundings::of(&sandbox);
        let moto = in_moto.then(Moto::start);
        if let Some(moto) = &moto {
            surroundings
                .set("AWS_ENDPOINT_URL", &moto.url)
                .set("AWS_ACCESS_KEY_ID", "testing")
                .set("AWS_SECRET_ACCESS_KEY", "testing");
        }
        Self {
            surroundings,
            sandbox,
            moto,
        }
    }

    fn m8trx(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        self.surroundings.m8trx(&all).assert_code(0).json()
    }

    fn aws(&self, arguments: &str) -> Value {
        aws(&self.surroundings, arguments)
    }

    /// An `aws` command that need not print JSON, nor succeed.
    fn aws_ended(&self, arguments: &str) -> Ended {
        let words = shell_words::split(arguments).unwrap();
        ended(self.surroundings.command(tool("aws")).args(words))
    }

    fn put(&self, parameter: &str, value: &str) -> Value {
        let file = self.surroundings.file("value", value);
        let file = file.to_str().unwrap();
        self.m8trx(&["params", "put", parameter, "--file", file, "--yes"])
    }
}

#[test]
fn step_by_step_as_onboarding_makes_it() {
    for in_moto in [true, false] {
        let place = Place::new(in_moto);
        let brain_url = place.sandbox.environment["M8TRX_BRAIN_URL"].clone();
        place.m8trx(&["brain-url", "set", &brain_url, "--yes"]);
        place.m8trx(&["tailnet", "apply", "cust_acme", "--yes"]);
        let key_file = place
            .sandbox
            .auth_key_file(&place.surroundings, "cust_acme");
        let key = std::fs::read_to_string(key_file).unwrap();
        place.put("cust_acme/tailscale-auth-key", key.trim());
        place.m8trx(&["mint-key", "cust_acme", "--store", "--yes"]);
        place.m8trx(&["iam", "apply", "cust_acme", "--yes"]);
        let mut launch = vec!["launch", "cust_acme", "--yes"];
        // moto has no parameter that names Ubuntu's image.
        let image = place.moto.as_ref().map(|_| {
            let images = place.aws(
                "ec2 describe-images --owners 099720109477 --filters Name=architecture,Values=x86_64",
            );
            images["Images"][0]["ImageId"].as_str().unwrap().to_owned()
        });
        if let Some(image) = &image {
            launch.extend(["--ami", image]);
        }
        let launched = place.m8trx(&launch);
        assert_eq!(launched["outcome"], "created");
        assert_onboarded(&place.surroundings, &brain_url);
        assert_eq!(place.m8trx(&launch)["outcome"], "unchanged");
        if in_moto {
            // The sandbox's hosts boot once.
            let id = launched["instance_id"].as_str().unwrap();
            place.aws(&format!("ec2 stop-instances --instance-ids {id}"));
            let started = place.m8trx(&launch);
            assert_eq!(
                (&started["outcome"], &started["instance_id"]),
                (&json!("updated"), &json!(id))
            );
            let state = place.aws(&format!(
                "ec2 describe-instances --instance-ids {id} --query Reservations[0].Instances[0].State.Name"
            ));
            assert_eq!(state, "running");
        }
    }
}

#[test]
fn what_is_put_is_what_aws_reads() {
    for in_moto in [true, false] {
        let place = Place::new(in_moto);
        for (round, value) in [(1, "m8k_first"), (2, "m8k_second")] {
            assert_eq!(place.put("cust_acme/brain-key", value)["version"], round);
            let read =
                place.aws("ssm get-parameter --with-decryption --name /m8trx/cust_acme/brain-key");
            let read = &read["Parameter"];
            assert_eq!(
                (&read["Value"], &read["Type"]),
                (&json!(value), &json!("SecureString"))
            );
            assert_eq!(read["Version"], round);
            let tags = place.aws(
                "ssm list-tags-for-resource --resource-type Parameter --resource-id /m8trx/cust_acme/brain-key",
            );
            assert_eq!(
                tags["TagList"],
                json!([{"Key": "Customer", "Value": "cust_acme"}])
            );
        }
        for (name, kind) in [
            ("/m8trx/cust_b/brain-key", "SecureString"),
            ("/elsewhere", "String"),
        ] {
            place.aws(&format!(
                "ssm put-parameter --name {name} --type {kind} --value m8k_theirs"
            ));
        }
        let listed = place.m8trx(&["params", "list"]);
        let rows: Vec<(&Value, &Value, &Value)> = listed["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (&row["name"], &row["type"], &row["version"]))
            .collect();
        let described = place.aws(
            "ssm describe-parameters --parameter-filters Key=Path,Option=Recursive,Values=/m8trx --query \"sort_by(Parameters, &Name)\"",
        );
        let expected: Vec<(&Value, &Value, &Value)> = described
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (&row["Name"], &row["Type"], &row["Version"]))
            .collect();
        assert_eq!(rows, expected);
        assert_eq!(rows.len(), 2);

        place.m8trx(&["params", "delete", "cust_acme/brain-key", "--yes"]);
        let gone = place.aws_ended("ssm get-parameter --name /m8trx/cust_acme/brain-key");
        assert!(gone.stderr.contains("ParameterNotFound"), "{gone:?}");
        place.aws("ssm get-parameter --name /m8trx/cust_b/brain-key");
    }
}

#[test]
fn a_role_is_compared_and_mended() {
    for in_moto in [true, false] {
        let place = Place::new(in_moto);
        place.m8trx(&["iam", "apply", "cust_acme", "--yes"]);
        let differs = || place.m8trx(&["iam", "diff", "cust_acme"])["differs"].clone();
        assert_eq!(differs(), false);
        let broad = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}"#;
        for command in [
            format!("iam put-role-policy --role-name m8trx-cust_acme --policy-name m8trx-parameters --policy-document '{broad}'"),
            "iam attach-role-policy --role-name m8trx-cust_acme --policy-arn arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore".to_owned(),
            "iam untag-role --role-name m8trx-cust_acme --tag-keys Customer".to_owned(),
        ] {
            place.aws_ended(&command).assert_code(0);
        }
        assert_eq!(differs(), true);
        let shown = place.m8trx(&["iam", "show", "cust_acme"]);
        assert_eq!(shown["changes"].as_array().unwrap().len(), 3, "{shown}");
        place.m8trx(&["iam", "apply", "cust_acme", "--yes"]);
        assert_eq!(differs(), false);
        let attached = place.aws("iam list-attached-role-policies --role-name m8trx-cust_acme");
        assert_eq!(attached["AttachedPolicies"], json!([]));
        let read = place.aws(
            "iam get-role-policy --role-name m8trx-cust_acme --policy-name m8trx-parameters --query PolicyDocument",
        );
        let shown = place.m8trx(&["iam", "show", "cust_acme"]);
        assert_eq!(
            shown["is"]["role"]["inline_policies"]["m8trx-parameters"],
            read
        );
        assert_eq!(shown["is"], shown["should_be"]);
    }
}

/// IAM itself takes the operator's policy.
#[test]
fn the_operators_policy_is_a_policy() {
    for in_moto in [true, false] {
        let place = Place::new(in_moto);
        let policy = place.surroundings.m8trx(&["iam", "operator-policy"]);
        let file = place
            .surroundings
            .file("policy.json", &policy.assert_code(0).stdout);
        place.m8trx(&["iam", "apply", "cust_acme", "--yes"]);
        let taken = place.aws_ended(&format!(
            "iam put-role-policy --role-name m8trx-cust_acme --policy-name operator --policy-document file://{}",
            file.display()
        ));
        taken.assert_code(0);
    }
}
