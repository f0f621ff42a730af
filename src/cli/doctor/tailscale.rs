//! Tailscale: the OAuth client and what it may, the policy file, keys and devices.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Check, State};
use crate::aws::Aws;
use crate::cli::tailnet::brain_port;
use crate::config::Settings;
use crate::customer::CustomerId;
use crate::tailnet::policy::hujson::Document;
use crate::tailnet::policy::model::DEFAULT_BRAIN_PORT;
use crate::tailnet::{Tailnet, doctor, lock};
use crate::terminal::Terminal;

pub(super) async fn examine(
    aws: Option<&Aws>,
    terminal: &Terminal,
    settings: &Settings,
    customers: Option<&BTreeSet<CustomerId>>,
    checks: &mut Vec<Check>,
) {
    const CLIENT: &str = "tailscale-client";
    let Some(configured) = &settings.tailnet else {
        checks.push(Check::advice(
            CLIENT,
            "no OAuth client is configured: every auth key is asked for, and the policy file is not looked at",
            "make one at https://login.tailscale.com/admin/settings/oauth, then m8trx init",
        ));
        return;
    };
    let tailnet = Tailnet::new(configured.clone());
    if let Err(error) = tailnet.sign_in().await {
        checks.push(Check::failed(CLIENT, error.into()));
        return;
    }
    // Each is a scope of its own: all are told, not only the first.
    let (file, devices, keys) = tokio::join!(
        tailnet.policy_file(),
        tailnet.devices(),
        tailnet.auth_keys()
    );
    let mut refused = Vec::new();
    for (what, error) in [
        ("the policy file", file.as_ref().err()),
        ("devices", devices.as_ref().err()),
        ("auth keys", keys.as_ref().err()),
    ] {
        if let Some(error) = error {
            refused.push(Check {
                remedy: error.hint(),
                ..Check::new(
                    CLIENT,
                    State::Failed,
                    format!("it cannot read {what}: {error}"),
                )
            });
        }
    }
    if refused.is_empty() {
        checks.push(Check::ok(
            CLIENT,
            format!(
                "the OAuth client {} works: it reads the policy file, devices and auth keys",
                tailnet.client_ids().join(" and ")
            ),
        ));
    }
    checks.extend(refused);
    let (Ok(file), Ok(devices), Ok(keys)) = (file, devices, keys) else {
        return;
    };
    let policy = match Document::parse(file.text) {
        Ok(policy) => policy,
        Err(error) => {
            checks.push(Check::wrong(
                "tailnet",
                format!("the policy file cannot be read: {error}"),
                "correct it in the admin console, under Access controls",
            ));
            return;
        }
    };
    let stored = match aws {
        Some(aws) => brain_port::of_aws(aws, terminal).await,
        None => None,
    };
    let configured = || settings.brain.url.as_ref().map(|url| url.port());
    let findings = doctor::examine(&doctor::Tailnet {
        policy: &policy,
        brain_port: stored.or_else(configured).unwrap_or(DEFAULT_BRAIN_PORT),
        devices: &devices,
        keys: &keys,
        lock: lock::state(&devices).await,
        customers,
        now: Timestamp::now(),
    });
    if findings.is_empty() {
        checks.push(Check::ok(
            "tailnet",
            "the policy file, keys and devices are as they should be",
        ));
    }
    for finding in findings {
        let state = match finding.severity {
            doctor::Severity::Problem => State::Failed,
            doctor::Severity::Advice => State::Advice,
        };
        checks.push(Check {
            remedy: Some(finding.todo),
            ..Check::new(
                "tailnet",
                state,
                format!("{} [{}]", finding.what, finding.id),
            )
        });
    }
}
