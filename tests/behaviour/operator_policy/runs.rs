//! How each command is run, so that together it makes every call it can make.

use super::Trial;

/// One way to run a command.
pub struct Run {
    /// What there is before, made with every permission.
    pub given: fn(&Trial, &str),
    /// Its arguments.
    pub arguments: fn(&Trial, &str) -> Vec<String>,
    /// How it ends.
    pub code: i32,
}

fn words(text: &str) -> Vec<String> {
    shell_words::split(text).unwrap()
}

fn nothing(_: &Trial, _: &str) {}

pub fn connected(trial: &Trial, customer: &str) {
    trial.done(&["onboard", customer, "--yes"]);
}

/// As [`connected`], without a machine beneath the host: for what looks at a customer only.
fn settled(trial: &Trial, customer: &str) {
    trial.settle(customer, true);
}

/// The same, whose host never beats.
fn silent(trial: &Trial, customer: &str) {
    trial.settle(customer, false);
}

/// The customer's auth key, and its tag in the policy file.
fn with_auth_key(trial: &Trial, customer: &str) {
    let key = trial.auth_key_file(customer);
    let parameter = format!("{customer}/tailscale-auth-key");
    trial.done(&["params", "put", &parameter, "--file", &key, "--yes"]);
    trial.done(&["tailnet", "apply", customer, "--yes"]);
}

fn with_brain_key(trial: &Trial, customer: &str) {
    trial.done(&["mint-key", customer, "--store", "--yes"]);
}

/// Everything but the host.
fn prepared(trial: &Trial, customer: &str) {
    let url = trial.surroundings.variables["M8TRX_BRAIN_URL"].clone();
    trial.done(&["brain-url", "set", &url, "--yes"]);
    with_brain_key(trial, customer);
    with_auth_key(trial, customer);
    trial.done(&["iam", "apply", customer, "--yes"]);
}

/// A customer whose host has ended, and whose security group somebody opened.
fn opened(trial: &Trial, customer: &str) {
    connected(trial, customer);
    trial.cloud().terminate_host(customer);
    trial.cloud().open_group(&format!("m8trx-{customer}"));
}

fn stopped(trial: &Trial, customer: &str) {
    connected(trial, customer);
    trial.cloud().stop_host(customer);
}

fn spoiled(trial: &Trial, customer: &str) {
    connected(trial, customer);
    trial.cloud().spoil_role(&format!("m8trx-{customer}"));
}

/// A stored key that the brain minted, with its id, and that it refuses by now; and one that it knows in a file `key`.
fn outdated_key(trial: &Trial, customer: &str) {
    prepared(trial, customer);
    let minted = trial.done(&["mint-key", customer]);
    trial.surroundings.file("key", minted.stdout.trim());
    let file = trial.surroundings.file("outdated", "m8k_of_nobody");
    let parameter = format!("{customer}/brain-key");
    let file = file.to_str().unwrap();
    trial.done(&["params", "put", &parameter, "--file", file, "--yes"]);
}

/// No brain URL: a smoke run has to store it, and removes it again.
fn without_url(trial: &Trial, _: &str) {
    trial.done(&["params", "delete", "brain-url", "--yes"]);
}

/// A smoke run that was kept, whose brain URL another customer uses by now, and whose role somebody gave a policy.
fn kept(trial: &Trial, customer: &str) {
    without_url(trial, customer);
    trial.done(&["smoke", "--customer", customer, "--keep", "--yes"]);
    trial.cloud().attach_leak(&format!("m8trx-{customer}"));
    let file = trial.surroundings.file("outdated", "m8k_of_nobody");
    let file = file.to_str().unwrap();
    trial.done(&[
        "params",
        "put",
        "cust_other/brain-key",
        "--file",
        file,
        "--yes",
    ]);
}

/// A customer whose role and parameters are there, and whose role does not say where it lives.
fn unplaced(trial: &Trial, customer: &str) {
    prepared(trial, customer);
    trial
        .cloud()
        .untag_role(&format!("m8trx-{customer}"), "m8trx:home");
}

/// A customer whose role somebody gave a policy.
fn leaking(trial: &Trial, customer: &str) {
    connected(trial, customer);
    trial.cloud().attach_leak(&format!("m8trx-{customer}"));
}

fn onboard() -> Vec<Run> {
    vec![
        // First, because whether the console of a host that beats is read before is a matter of luck.
        Run {
            given: silent,
            arguments: |_, customer| words(&format!("onboard {customer} --yes --timeout 2s")),
            code: 6,
        },
        Run {
            given: nothing,
            arguments: |_, customer| words(&format!("onboard {customer} --yes")),
            code: 0,
        },
        Run {
            given: nothing,
            arguments: |trial, customer| {
                let subnet = trial.cloud().subnet();
                words(&format!("onboard {customer} --yes --subnet {subnet}"))
            },
            code: 0,
        },
        Run {
            given: spoiled,
            arguments: |_, customer| words(&format!("onboard {customer} --yes")),
            code: 0,
        },
        Run {
            given: opened,
            arguments: |_, customer| words(&format!("onboard {customer} --yes")),
            code: 0,
        },
        Run {
            given: outdated_key,
            arguments: |_, customer| {
                words(&format!("onboard {customer} --yes --brain-key-file key"))
            },
            code: 0,
        },
        // The sandbox's hosts boot once.
        Run {
            given: stopped,
            arguments: |_, customer| words(&format!("onboard {customer} --yes")),
            code: 4,
        },
        // No host beats so soon.
        Run {
            given: nothing,
            arguments: |_, customer| {
                words(&format!(
                    "onboard {customer} --yes --terminate-on-failure --timeout 1ms"
                ))
            },
            code: 6,
        },
    ]
}

fn smoke() -> Vec<Run> {
    vec![
        Run {
            given: unplaced,
            arguments: |_, customer| words(&format!("smoke --customer {customer} --cleanup --yes")),
            code: 0,
        },
        Run {
            given: without_url,
            arguments: |trial, customer| {
                let subnet = trial.cloud().subnet();
                words(&format!(
                    "smoke --customer {customer} --yes --subnet {subnet}"
                ))
            },
            code: 0,
        },
        Run {
            given: without_url,
            arguments: |_, customer| words(&format!("smoke --customer {customer} --yes")),
            code: 0,
        },
        Run {
            given: kept,
            arguments: |_, customer| words(&format!("smoke --customer {customer} --cleanup --yes")),
            code: 0,
        },
    ]
}

fn offboard() -> Vec<Run> {
    vec![
        Run {
            given: unplaced,
            arguments: |_, customer| words(&format!("offboard {customer} --dry-run")),
            code: 0,
        },
        Run {
            given: leaking,
            arguments: |_, customer| {
                words(&format!("offboard {customer} --yes --confirm {customer}"))
            },
            code: 0,
        },
    ]
}

fn rotate_tailscale_key() -> Vec<Run> {
    vec![
        Run {
            given: unplaced,
            arguments: |_, customer| words(&format!("rotate-tailscale-key {customer} --yes")),
            code: 0,
        },
        Run {
            given: with_auth_key,
            arguments: |_, _| words("rotate-tailscale-key --all --yes"),
            code: 0,
        },
    ]
}

fn rotate_brain_key() -> Vec<Run> {
    vec![
        Run {
            given: unplaced,
            arguments: |_, customer| words(&format!("rotate-brain-key {customer} --yes")),
            code: 0,
        },
        Run {
            given: with_brain_key,
            arguments: |_, customer| words(&format!("rotate-brain-key {customer} --yes")),
            code: 0,
        },
    ]
}

fn diagnose() -> Vec<Run> {
    // Of a host that says nothing, EC2's status checks are read as well.
    [settled, silent]
        .map(|given| Run {
            given,
            arguments: |_, customer| words(&format!("diagnose {customer}")),
            code: 0,
        })
        .into()
}

fn launch() -> Vec<Run> {
    vec![
        Run {
            given: prepared,
            arguments: |_, customer| words(&format!("launch {customer} --yes")),
            code: 0,
        },
        Run {
            given: prepared,
            arguments: |trial, customer| {
                let subnet = trial.cloud().subnet();
                words(&format!("launch {customer} --yes --subnet {subnet}"))
            },
            code: 0,
        },
        Run {
            given: opened,
            arguments: |_, customer| words(&format!("launch {customer} --yes")),
            code: 0,
        },
        Run {
            given: stopped,
            arguments: |_, customer| words(&format!("launch {customer} --yes")),
            code: 4,
        },
    ]
}

fn wait() -> Vec<Run> {
    vec![Run {
        given: settled,
        arguments: |_, customer| words(&format!("wait {customer} --next --timeout 1s")),
        code: 6,
    }]
}

fn mint_key() -> Vec<Run> {
    vec![
        Run {
            given: unplaced,
            arguments: |_, customer| words(&format!("mint-key {customer} --store --yes")),
            code: 0,
        },
        Run {
            given: prepared,
            arguments: |_, customer| words(&format!("mint-key {customer}")),
            code: 0,
        },
        Run {
            given: nothing,
            arguments: |_, customer| words(&format!("mint-key {customer} --store --yes")),
            code: 0,
        },
        Run {
            given: outdated_key,
            arguments: |_, customer| {
                let mut all = words(&format!("mint-key {customer} --store --yes --mint-command"));
                all.push("bash -c 'cat key # {customer}'".to_owned());
                all
            },
            code: 0,
        },
    ]
}

fn status() -> Vec<Run> {
    vec![Run {
        given: settled,
        arguments: |_, customer| words(&format!("status {customer}")),
        code: 0,
    }]
}

fn events() -> Vec<Run> {
    vec![Run {
        given: settled,
        arguments: |_, customer| words(&format!("events {customer}")),
        code: 0,
    }]
}

fn params_list() -> Vec<Run> {
    vec![Run {
        given: prepared,
        arguments: |_, customer| words(&format!("params list {customer} --reveal --yes")),
        code: 0,
    }]
}

fn params_show() -> Vec<Run> {
    vec![Run {
        given: prepared,
        arguments: |_, customer| words(&format!("params show {customer}/brain-key")),
        code: 0,
    }]
}

fn params_put() -> Vec<Run> {
    vec![
        Run {
            given: |trial, customer| {
                unplaced(trial, customer);
                trial.surroundings.file("key", "m8k_new");
            },
            arguments: |_, customer| {
                words(&format!("params put {customer}/brain-key --file key --yes"))
            },
            code: 0,
        },
        Run {
            given: |trial, _| drop(trial.surroundings.file("key", "m8k_new")),
            arguments: |_, customer| {
                words(&format!("params put {customer}/brain-key --file key --yes"))
            },
            code: 0,
        },
        Run {
            given: |trial, customer| {
                prepared(trial, customer);
                trial.surroundings.file("key", "m8k_new");
            },
            arguments: |_, customer| {
                words(&format!("params put {customer}/brain-key --file key --yes"))
            },
            code: 0,
        },
    ]
}

fn params_delete() -> Vec<Run> {
    vec![
        Run {
            given: with_brain_key,
            arguments: |_, customer| words(&format!("params delete {customer}/brain-key --yes")),
            code: 0,
        },
        Run {
            given: unplaced,
            arguments: |_, customer| words(&format!("params delete {customer}/brain-key --yes")),
            code: 0,
        },
        Run {
            given: prepared,
            arguments: |_, customer| words(&format!("params delete {customer}/brain-key --yes")),
            code: 0,
        },
    ]
}

fn iam_show() -> Vec<Run> {
    vec![Run {
        given: prepared,
        arguments: |_, customer| words(&format!("iam show {customer}")),
        code: 0,
    }]
}

fn iam_diff() -> Vec<Run> {
    vec![Run {
        given: prepared,
        arguments: |_, customer| words(&format!("iam diff {customer}")),
        code: 0,
    }]
}

fn iam_apply() -> Vec<Run> {
    vec![
        Run {
            given: nothing,
            arguments: |_, customer| words(&format!("iam apply {customer} --yes")),
            code: 0,
        },
        Run {
            given: |trial, customer| {
                trial.done(&["iam", "apply", customer, "--yes"]);
                trial.cloud().spoil_role(&format!("m8trx-{customer}"));
            },
            arguments: |_, customer| words(&format!("iam apply {customer} --yes")),
            code: 0,
        },
    ]
}

fn brain_url_get() -> Vec<Run> {
    vec![Run {
        given: settled,
        arguments: |_, _| words("brain-url get --hosts"),
        code: 0,
    }]
}

fn brain_url_set() -> Vec<Run> {
    vec![Run {
        given: |trial, customer| {
            settled(trial, customer);
            trial.done(&["params", "delete", "brain-url", "--yes"]);
        },
        arguments: |trial, _| {
            let url = &trial.surroundings.variables["M8TRX_BRAIN_URL"];
            words(&format!("brain-url set {url} --yes"))
        },
        code: 0,
    }]
}

/// A command, and how it is run.
pub type Runs = (&'static str, fn() -> Vec<Run>);

/// Every command that needs permissions, in the ways that together make every call it can make.
pub const RUNS: &[Runs] = &[
    ("doctor", doctor),
    ("ssh", ssh),
    ("logs", logs),
    ("onboard", onboard),
    ("smoke", smoke),
    ("offboard", offboard),
    ("rotate-tailscale-key", rotate_tailscale_key),
    ("rotate-brain-key", rotate_brain_key),
    ("status", status),
    ("events", events),
    ("diagnose", diagnose),
    ("params list", params_list),
    ("params show", params_show),
    ("params put", params_put),
    ("params delete", params_delete),
    ("mint-key", mint_key),
    ("iam show", iam_show),
    ("iam diff", iam_diff),
    ("iam apply", iam_apply),
    ("launch", launch),
    ("wait", wait),
    ("brain-url get", brain_url_get),
    ("brain-url set", brain_url_set),
    ("tailnet policy", tailnet_policy),
    ("tailnet apply", tailnet_apply),
    ("tailnet doctor", tailnet_doctor),
    ("tailnet devices", tailnet_devices),
];

fn tailnet_policy() -> Vec<Run> {
    vec![Run {
        given: nothing,
        arguments: |_, _| words("tailnet policy"),
        code: 0,
    }]
}

fn tailnet_apply() -> Vec<Run> {
    vec![Run {
        given: nothing,
        arguments: |_, _| words("tailnet apply --yes"),
        code: 0,
    }]
}

fn tailnet_doctor() -> Vec<Run> {
    vec![Run {
        given: nothing,
        arguments: |_, _| words("tailnet doctor"),
        code: 0,
    }]
}

fn tailnet_devices() -> Vec<Run> {
    vec![Run {
        given: settled,
        arguments: |_, customer| words(&format!("tailnet devices {customer}")),
        code: 0,
    }]
}

fn doctor() -> Vec<Run> {
    vec![Run {
        given: |trial, customer| {
            settled(trial, customer);
            trial.done(&["tailnet", "apply", "--yes"]);
        },
        arguments: |_, _| words("doctor"),
        code: 0,
    }]
}

/// There is no way into a host of the sandbox from here, which is found after everything that AWS is asked.
fn ssh() -> Vec<Run> {
    vec![Run {
        given: settled,
        arguments: |_, customer| words(&format!("ssh {customer} --dry-run")),
        code: 3,
    }]
}

fn logs() -> Vec<Run> {
    vec![Run {
        given: settled,
        arguments: |_, customer| words(&format!("logs {customer}")),
        code: 0,
    }]
}
