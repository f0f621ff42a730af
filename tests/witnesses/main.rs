//! The real `aws` command as witness of what an onboarding made, against moto and against the sandbox: the same checks on
//! both keep the sandbox honest. Needs `M8TRX_TEST_TOOLS`, a folder with `aws` and `moto_server`; `tests/run` sets it.

#[path = "../behaviour/common.rs"]
#[allow(dead_code)]
mod common;
mod fleet;
mod smoke;
mod status;
mod steps;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use common::{RunningSandbox, Surroundings, ended};
use serde_json::{Value, json};

const BOOTSTRAP_SH: &str = include_str!("../../embedded/cloud-init/bootstrap.sh");

fn tool(name: &str) -> PathBuf {
    let folder = std::env::var("M8TRX_TEST_TOOLS").expect("M8TRX_TEST_TOOLS is set by tests/run");
    PathBuf::from(folder).join(name)
}

/// What the `aws` command prints as JSON.
fn aws(surroundings: &Surroundings, arguments: &str) -> Value {
    let words = shell_words::split(arguments).unwrap();
    let ended = ended(
        surroundings
            .command(tool("aws"))
            .args(words)
            .args(["--output", "json"]),
    );
    ended.assert_code(0);
    ended.json()
}

/// `moto_server`, ended when dropped.
struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut child = Surroundings::new()
            .command(tool("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
            .env("MOTO_ENABLE_AMI_VALIDATION", "1")
            .env("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "moto_server ended");
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "moto_server does not listen"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What must be there after an onboarding of `cust_acme`, read back by the `aws` command.
fn assert_onboarded(surroundings: &Surroundings, brain_url: &str) {
    let by_path = aws(
        surroundings,
        "ssm get-parameters-by-path --path /m8trx --recursive --with-decryption",
    );
    let mut parameters: Vec<(String, String)> = by_path["Parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            (
                p["Name"].as_str().unwrap().to_owned(),
                p["Type"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    parameters.sort();
    let expected = [
        ("/m8trx/brain-url", "String"),
        ("/m8trx/cust_acme/brain-key", "SecureString"),
        ("/m8trx/cust_acme/tailscale-auth-key", "SecureString"),
    ]
    .map(|(name, kind)| (name.to_owned(), kind.to_owned()));
    assert_eq!(parameters, expected);
    let url = aws(surroundings, "ssm get-parameter --name /m8trx/brain-url");
    assert_eq!(url["Parameter"]["Value"], brain_url);
    let tags = aws(
        surroundings,
        "ssm list-tags-for-resource --resource-type Parameter --resource-id /m8trx/cust_acme/brain-key",
    );
    assert!(
        tags["TagList"]
            .as_array()
            .unwrap()
            .contains(&json!({"Key": "Customer", "Value": "cust_acme"})),
        "{tags}"
    );

    let role = aws(surroundings, "iam get-role --role-name m8trx-cust_acme");
    assert_eq!(
        role["Role"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"],
        "ec2.amazonaws.com"
    );
    let account = aws(surroundings, "sts get-caller-identity")["Account"]
        .as_str()
        .unwrap()
        .to_owned();
    let home = format!("{account}/{}", surroundings.variables["AWS_REGION"]);
    assert_eq!(
        role["Role"]["Tags"],
        json!([
            {"Key": "Customer", "Value": "cust_acme"},
            {"Key": "m8trx:home", "Value": home}
        ])
    );
    let policy = aws(
        surroundings,
        "iam get-role-policy --role-name m8trx-cust_acme --policy-name m8trx-parameters",
    );
    let statement = &policy["PolicyDocument"]["Statement"][0];
    let region = &surroundings.variables["AWS_REGION"];
    let arn = |name: &str| format!("arn:aws:ssm:{region}:{account}:parameter/m8trx/{name}");
    assert_eq!(statement["Action"], "ssm:GetParameter");
    assert_eq!(
        statement["Resource"],
        json!([
            arn("brain-url"),
            arn("cust_acme/brain-key"),
            arn("cust_acme/tailscale-auth-key")
        ])
    );
    let profile = aws(
        surroundings,
        "iam get-instance-profile --instance-profile-name m8trx-cust_acme",
    );
    assert_eq!(
        profile["InstanceProfile"]["Roles"][0]["RoleName"],
        "m8trx-cust_acme"
    );

    let reservations = aws(
        surroundings,
        "ec2 describe-instances --filters Name=tag:Customer,Values=cust_acme",
    );
    let hosts: Vec<&Value> = reservations["Reservations"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|r| r["Instances"].as_array().unwrap())
        .collect();
    assert_eq!(hosts.len(), 1, "{reservations}");
    let host = hosts[0];
    let options = &host["MetadataOptions"];
    assert_eq!(options["InstanceMetadataTags"], "enabled");
    assert_eq!(options["HttpTokens"], "required");
    assert_eq!(options["HttpPutResponseHopLimit"], 1);
    assert!(
        host["IamInstanceProfile"]["Arn"]
            .as_str()
            .unwrap()
            .ends_with(":instance-profile/m8trx-cust_acme")
    );
    let tags = host["Tags"].as_array().unwrap();
    for (key, value) in [("Customer", "cust_acme"), ("Name", "m8trx-cust_acme")] {
        assert!(
            tags.contains(&json!({"Key": key, "Value": value})),
            "{tags:?}"
        );
    }
    let id = host["InstanceId"].as_str().unwrap();
    let attribute = aws(
        surroundings,
        &format!("ec2 describe-instance-attribute --attribute userData --instance-id {id}"),
    );
    let user_data = base64::engine::general_purpose::STANDARD
        .decode(attribute["UserData"]["Value"].as_str().unwrap())
        .unwrap();
    assert_eq!(String::from_utf8(user_data).unwrap(), BOOTSTRAP_SH);
    let group = host["SecurityGroups"][0]["GroupId"].as_str().unwrap();
    let groups = aws(
        surroundings,
        &format!("ec2 describe-security-groups --group-ids {group}"),
    );
    assert_eq!(groups["SecurityGroups"][0]["GroupName"], "m8trx-cust_acme");
    assert_eq!(groups["SecurityGroups"][0]["IpPermissions"], json!([]));
    let volume = host["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
        .as_str()
        .unwrap();
    let volumes = aws(
        surroundings,
        &format!("ec2 describe-volumes --volume-ids {volume}"),
    );
    assert_eq!(volumes["Volumes"][0]["Encrypted"], true);
}

#[test]
fn what_onboarding_makes_in_moto() {
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
    let onboard = [
        "onboard",
        "cust_acme",
        "--yes",
        "--ami",
        &image,
        "--timeout",
        "1s",
        "--output",
        "json",
    ];

    let dry = surroundings.m8trx(&["onboard", "cust_acme", "--dry-run", "--ami", &image]);
    dry.assert_code(0);
    let before = aws(
        &surroundings,
        "ssm get-parameters-by-path --path /m8trx --recursive",
    );
    assert_eq!(before["Parameters"], json!([]));

    let first = surroundings.m8trx(&onboard);
    // No host beats in moto: everything up to the launch is there, and the wait ends in time.
    first.assert_code(6);
    let brain_url = &sandbox.environment["M8TRX_BRAIN_URL"];
    assert_onboarded(&surroundings, brain_url);
    surroundings.m8trx(&onboard).assert_code(6);
    assert_onboarded(&surroundings, brain_url);
}

#[test]
fn what_onboarding_makes_in_the_sandbox() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(0);
    assert_onboarded(&surroundings, &sandbox.environment["M8TRX_BRAIN_URL"]);
}

#[test]
fn drift_is_shown_and_mended() {
    for moto in [false, true] {
        let server = moto.then(Moto::start);
        let sandbox = RunningSandbox::up();
        let mut surroundings = Surroundings::of(&sandbox);
        let mut arguments = vec!["onboard".to_owned(), "cust_acme".to_owned()];
        if let Some(server) = &server {
            surroundings
                .set("AWS_ENDPOINT_URL", &server.url)
                .set("AWS_ACCESS_KEY_ID", "testing")
                .set("AWS_SECRET_ACCESS_KEY", "testing");
            let images = aws(
                &surroundings,
                "ec2 describe-images --owners 099720109477 --filters Name=architecture,Values=x86_64",
            );
            let image = images["Images"][0]["ImageId"].as_str().unwrap();
            arguments.extend(["--ami", image, "--timeout", "1s"].map(str::to_owned));
        }
        let run = |extra: &str| {
            let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
            all.push(extra);
            surroundings.m8trx(&all)
        };
        run("--yes");
        let broad = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}"#;
        let put = format!(
            "iam put-role-policy --role-name m8trx-cust_acme --policy-name m8trx-parameters --policy-document '{broad}'"
        );
        let leak = "iam attach-role-policy --role-name m8trx-cust_acme --policy-arn arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
        for command in [put.as_str(), leak] {
            let words = shell_words::split(command).unwrap();
            ended(surroundings.command(tool("aws")).args(words)).assert_code(0);
        }
        let plan = run("--dry-run");
        assert!(
            plan.assert_code(0).stdout.contains("~  iam-role"),
            "{plan:?}"
        );
        assert!(
            plan.stdout
                .contains("detach arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"),
            "{plan:?}"
        );
        run("--yes");
        assert_onboarded(&surroundings, &sandbox.environment["M8TRX_BRAIN_URL"]);
        let attached = aws(
            &surroundings,
            "iam list-attached-role-policies --role-name m8trx-cust_acme",
        );
        assert_eq!(attached["AttachedPolicies"], json!([]));
    }
}
