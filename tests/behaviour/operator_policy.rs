//! The policy of whoever runs the command: every command works with it, and without one of its permissions says which.
//!
//! The policy comes from the table in `src/aws/operations.rs`. Each command is run here in the ways that together make
//! every call it can make; what the sandbox's ledger has of them must be what the table says.

mod runs;

use std::collections::BTreeSet;
use std::path::Path;

use clap::CommandFactory as _;
use jiff::SignedDuration;
use m8trx::aws::operations::{COMMANDS, CommandCalls, Operation};
use m8trx::customer::CustomerId;
use m8trx::secret::ExposeSecret as _;
use m8trx_sandbox::{AuthKeySpec, Sandbox, SandboxOptions};
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::common::{Ended, M8TRX, Surroundings};
use crate::settled::settled;
use runs::{RUNS, connected};

/// Commands that need no permission of AWS.
const WITHOUT_PERMISSIONS: &[&str] = &[
    "user-data",
    "sandbox up",
    "drill",
    "iam operator-policy",
    "tailnet check",
    "tailnet lock sign",
    "config show",
    "completions",
    "man",
    "runs show",
    // It asks AWS what the answers come to, and goes on without.
    "init",
];

/// What commands do without: they show or do everything else, and say what they need for the rest.
const DONE_WITHOUT: &[(&str, &str)] = &[
    ("onboard", "ec2:TerminateInstances"),
    // The heartbeat is the proof.
    ("onboard", "ec2:GetConsoleOutput"),
    ("wait", "ec2:GetConsoleOutput"),
    ("smoke", "ec2:GetConsoleOutput"),
    ("status", "ssm:GetParameter"),
    ("status", "ssm:GetParameters"),
    ("status", "iam:GetAccountAuthorizationDetails"),
    ("tailnet policy", "iam:GetAccountAuthorizationDetails"),
    ("tailnet apply", "iam:GetAccountAuthorizationDetails"),
    ("tailnet doctor", "iam:GetAccountAuthorizationDetails"),
    ("tailnet policy", "ssm:GetParameter"),
    ("tailnet apply", "ssm:GetParameter"),
    ("tailnet doctor", "ssm:GetParameter"),
    ("diagnose", "ssm:GetParameter"),
    ("diagnose", "ec2:DescribeInstanceStatus"),
    ("tailnet policy", "ssm:GetParameter"),
    ("tailnet apply", "ssm:GetParameter"),
    ("tailnet doctor", "ssm:GetParameter"),
    ("tailnet devices", "ssm:GetParameter"),
];

/// Commands that look at everything and say what they may not: their code for that.
const REPORTED: [(&str, i32); 1] = [("doctor", 3)];

/// Commands that take long to check, each in a test of its own.
const ALONE: [&str; 4] = ["onboard", "smoke", "offboard", "launch"];

/// A sandbox in this process, whose operator can be restricted, and a home of the command's.
struct Trial {
    runtime: tokio::runtime::Runtime,
    sandbox: Option<Sandbox>,
    surroundings: Surroundings,
}

impl Trial {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let options = SandboxOptions {
            iam_delay: Some(std::time::Duration::ZERO),
            ..SandboxOptions::default()
        };
        let started = Sandbox::start_from(options, Path::new(M8TRX));
        let sandbox = runtime.block_on(started).unwrap();
        let mut surroundings = Surroundings::new();
        for (name, value) in sandbox.environment() {
            surroundings.set(name, value);
        }
        Self {
            runtime,
            sandbox: Some(sandbox),
            surroundings,
        }
    }

    fn sandbox(&self) -> &Sandbox {
        self.sandbox.as_ref().unwrap()
    }

    fn cloud(&self) -> Cloud {
        Cloud::of(&self.surroundings.variables)
    }

    fn allow(&self, policy: &Value) {
        let policy = policy.to_string();
        self.sandbox().restrict_operator(&policy).unwrap();
    }

    fn allow_everything(&self) {
        let statement = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
        self.allow(&json!({"Version": "2012-10-17", "Statement": [statement]}));
    }

    /// A file with an auth key of the customer's, as an administrator makes it in the admin console.
    fn auth_key_file(&self, customer: &str) -> String {
        let customer: CustomerId = customer.parse().unwrap();
        let key = self.sandbox().mint_auth_key(AuthKeySpec {
            tags: [customer.tailscale_tag()].into(),
            ..AuthKeySpec::default()
        });
        let file = self.surroundings.file("auth-key", key.expose_secret());
        file.to_str().unwrap().to_owned()
    }

    /// A customer that was onboarded a minute ago, whose host has just beaten, or never; much quicker than to onboard it.
    fn settle(&self, customer: &str, beats: bool) {
        let customer = settled(
            customer,
            SignedDuration::from_mins(1),
            beats.then(|| SignedDuration::from_secs(1)),
        );
        self.sandbox().settle(&customer).unwrap();
    }

    /// Runs a command that must succeed.
    fn done(&self, arguments: &[&str]) -> Ended {
        let ended = self.surroundings.m8trx(arguments);
        ended.assert_code(0);
        ended
    }

    /// What the operator calls while something is done, and whether each was allowed.
    fn calls<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<(&'static str, String, bool)>) {
        let before = self.sandbox().calls().len();
        let result = work();
        let calls = self.sandbox().calls().split_off(before);
        let of_operator = calls.into_iter().filter(|call| {
            let identity = call.identity.as_deref().unwrap_or_default();
            identity.ends_with(":user/sandbox-operator")
        });
        let calls = of_operator.map(|call| (call.service, call.action, call.allowed));
        (result, calls.collect())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            self.runtime.block_on(sandbox.stop());
        }
    }
}

fn row(command: &str) -> &'static CommandCalls {
    let found = COMMANDS.iter().find(|row| row.command == command);
    found.unwrap_or_else(|| {
        panic!("COMMANDS in src/aws/operations.rs has no row for `{command}`: add one")
    })
}

fn policy_of(trial: &Trial, command: &str) -> Value {
    let printed = trial.done(&["iam", "operator-policy", "--command", command]);
    printed.json()
}

/// A policy without one of its actions.
fn without(policy: &Value, action: &str) -> Value {
    let mut less = policy.clone();
    let statements = less["Statement"].as_array_mut().unwrap();
    for statement in statements.iter_mut() {
        let actions = statement["Action"].as_array_mut().unwrap();
        actions.retain(|held| held != action);
    }
    statements.retain(|statement| statement["Action"] != json!([]));
    if statements.is_empty() {
        // IAM wants a statement.
        statements.push(json!({"Effect": "Deny", "Action": "s3:*", "Resource": "*"}));
    }
    less
}

/// The constant of a call in the table: `GET_PARAMETER` for `GetParameter`.
fn constant(action: &str) -> String {
    let mut name = String::new();
    for letter in action.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

struct Customers(u32);

impl Customers {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("cust_c{}", self.0)
    }
}

/// Runs a command in all its ways with its own policy, compares what it called with its row, and tries it without each
/// permission, except for those in `known` that others have shown already.
fn check(command: &str, known: &BTreeSet<&str>) {
    let row = row(command);
    let trial = Trial::start();
    let mut customers = Customers(0);
    let mut made = BTreeSet::new();
    let mut tried: BTreeSet<&str> = known.clone();
    let (_, runs) = RUNS.iter().find(|(name, _)| *name == command).unwrap();
    for run in runs() {
        let go = |customer: &str, policy: &Value| {
            trial.allow_everything();
            (run.given)(&trial, customer);
            let arguments = (run.arguments)(&trial, customer);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            trial.allow(policy);
            let result = trial.calls(|| trial.surroundings.m8trx(&arguments));
            trial.allow_everything();
            result
        };
        trial.allow_everything();
        let policy = policy_of(&trial, command);
        let (ended, calls) = go(&customers.next(), &policy);
        for (service, action, allowed) in &calls {
            assert!(
                *allowed,
                "`m8trx {command}` calls {service}:{action}, and its policy does not allow it: add {} to the row of \
                 `{command}` in COMMANDS of src/aws/operations.rs, or to that constant the permission that the hint names\n{ended:?}",
                constant(action)
            );
        }
        ended.assert_code(run.code);
        let called: BTreeSet<(&str, String)> = calls
            .into_iter()
            .map(|(service, action, _)| (service, action))
            .collect();
        let used: Vec<Operation> = row
            .operations()
            .into_iter()
            .filter(|operation| called.contains(&(operation.service, operation.name.to_owned())))
            .collect();
        made.extend(called);
        for operation in used {
            for grant in operation.grants {
                let own = format!("{}:{}", operation.service, operation.name);
                if !tried.insert(grant.action) {
                    continue;
                }
                let (ended, _) = go(&customers.next(), &without(&policy, grant.action));
                if grant.action != own && ended.code == run.code {
                    // A permission that only some ways of this call need: another run must show it.
                    tried.remove(grant.action);
                    continue;
                }
                let done_without = DONE_WITHOUT.contains(&(command, grant.action));
                let reported = REPORTED.iter().find(|(name, _)| *name == command);
                let code = match reported {
                    Some((_, code)) => *code,
                    None if done_without => run.code,
                    None => 4,
                };
                assert_eq!(ended.code, code, "without {}: {ended:?}", grant.action);
                let needs = format!("needs {} on ", grant.action);
                // A command that goes on may say it in its result.
                let in_result = done_without || reported.is_some();
                let told =
                    ended.stderr.contains(&needs) || in_result && ended.stdout.contains(&needs);
                assert!(told, "no `{needs}`, without {}: {ended:?}", grant.action);
            }
        }
    }
    let named: BTreeSet<(&str, String)> = row
        .operations()
        .iter()
        .map(|operation| (operation.service, operation.name.to_owned()))
        .collect();
    let too_few: Vec<String> = made
        .difference(&named)
        .map(|(_, action)| constant(action))
        .collect();
    assert!(
        too_few.is_empty(),
        "`m8trx {command}` calls {too_few:?}: name them in its row of COMMANDS in src/aws/operations.rs"
    );
    let too_many: Vec<String> = named
        .difference(&made)
        .map(|(_, action)| constant(action))
        .collect();
    assert!(
        too_many.is_empty(),
        "no run of `m8trx {command}` here calls {too_many:?}: take them out of its row of COMMANDS in \
         src/aws/operations.rs, or add such a run to tests/behaviour/operator_policy/runs.rs"
    );
    let untried: Vec<_> = row
        .operations()
        .iter()
        .flat_map(|operation| operation.grants)
        .map(|grant| grant.action)
        .filter(|action| !tried.contains(action))
        .collect();
    assert!(
        untried.is_empty(),
        "`m8trx {command}` is allowed {untried:?}, and no run of it here needs them"
    );
}

#[test]
fn every_command_is_in_the_table_and_is_run() {
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
            let path = format!("{path} {}", below.get_name()).trim().to_owned();
            if below.has_subcommands() {
                leaves(below, &path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut commands = Vec::new();
    leaves(&m8trx::cli::Cli::command(), "", &mut commands);
    for command in &commands {
        if WITHOUT_PERMISSIONS.contains(&command.as_str()) {
            continue;
        }
        assert!(
            COMMANDS.iter().any(|row| row.command == command),
            "`m8trx {command}` has no row in COMMANDS of src/aws/operations.rs: add one with its calls, or name the command \
             in WITHOUT_PERMISSIONS here"
        );
        assert!(
            RUNS.iter().any(|(name, _)| name == command),
            "`m8trx {command}` is not run with its own policy: add it to RUNS in tests/behaviour/operator_policy/runs.rs"
        );
    }
    for row in COMMANDS {
        assert!(
            commands.iter().any(|command| command == row.command),
            "COMMANDS of src/aws/operations.rs names `{}`, which is no command",
            row.command
        );
    }
}

fn none() -> BTreeSet<&'static str> {
    BTreeSet::new()
}

/// What another command has shown, for those that do the same in the same way, and more.
fn shown_by(command: &str) -> BTreeSet<&'static str> {
    let operations = row(command).operations();
    let grants = operations.iter().flat_map(|operation| operation.grants);
    grants.map(|grant| grant.action).collect()
}

#[test]
fn onboard_with_its_own_policy() {
    check("onboard", &none());
}

#[test]
fn smoke_with_its_own_policy() {
    // Onboarding does without this one, smoke does not.
    let mut shown = shown_by("onboard");
    shown.remove("ec2:TerminateInstances");
    check("smoke", &shown);
}

/// It removes as smoke does.
#[test]
fn offboard_with_its_own_policy() {
    check("offboard", &shown_by("smoke"));
}

#[test]
fn launch_with_its_own_policy() {
    check("launch", &none());
}

/// The commands that have no test of their own here, in two halves that run at the same time.
fn check_others(half: usize) {
    let others = RUNS.iter().filter(|(name, _)| !ALONE.contains(name));
    for (command, _) in others.skip(half).step_by(2) {
        check(command, &none());
    }
}

#[test]
fn every_other_command_with_its_own_policy() {
    check_others(0);
}

#[test]
fn every_second_other_command_with_its_own_policy() {
    check_others(1);
}

#[test]
fn the_whole_policy_reaches_no_further_than_this_projects_things() {
    let trial = Trial::start();
    connected(&trial, "cust_a");
    let cloud = trial.cloud();
    cloud.put_tagged("/other/secret", "theirs", "cust_a");
    let foreign_host = cloud.untag_host("cust_a");
    trial.allow(&trial.done(&["iam", "operator-policy"]).json());
    let refused = Some("AccessDeniedException".to_owned());
    assert_eq!(cloud.parameter_refusal("/other/secret"), refused);
    assert_eq!(cloud.parameter_refusal("/m8trx/cust_a/brain-key"), None);
    assert_eq!(cloud.role_refusal("admin"), Some("AccessDenied".to_owned()));
    assert_eq!(
        cloud.host_refusal(&foreign_host),
        Some("UnauthorizedOperation".to_owned())
    );
}

#[test]
fn it_is_printed_without_credentials_and_narrowed_on_request() {
    let alone = Surroundings::new();
    let offline = alone.m8trx(&["iam", "operator-policy"]);
    assert!(
        offline.assert_code(0).stderr.contains("--account"),
        "{offline:?}"
    );
    let policy = offline.json();
    assert_eq!(policy["Version"], "2012-10-17");
    assert!(
        offline.stdout.contains("arn:aws:ssm:*:*:parameter/m8trx/*"),
        "{offline:?}"
    );
    assert!(
        offline.stdout.trim_start().starts_with("{\n  \"Version\""),
        "{offline:?}"
    );

    let flags = ["--account", "210987654321", "--region", "cn-north-1"];
    let mut narrow = vec![
        "iam",
        "operator-policy",
        "--command",
        "params list",
        "--output",
        "json",
    ];
    narrow.extend(flags);
    let policy = alone.m8trx(&narrow).assert_code(0).json();
    assert_eq!(
        policy["Statement"],
        json!([
            {"Sid": "Lists", "Effect": "Allow", "Action": ["ssm:DescribeParameters"], "Resource": ["*"]},
            {"Sid": "Parameters", "Effect": "Allow", "Action": ["ssm:GetParameter"],
             "Resource": ["arn:aws-cn:ssm:cn-north-1:210987654321:parameter/m8trx/*"]},
        ])
    );
    let unknown = alone.m8trx(&["iam", "operator-policy", "--command", "offbord"]);
    assert!(
        unknown.assert_code(2).stderr.contains("these do: onboard"),
        "{unknown:?}"
    );
    alone
        .m8trx(&["iam", "operator-policy", "--account", "12"])
        .assert_code(2);
}
