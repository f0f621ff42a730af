//! `m8trx doctor`

mod brain;
mod cloud;
mod local;
mod tailscale;

use std::fmt;

use clap::Args;
pub(super) use local::is_program;
use serde::Serialize;

use super::Global;
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Check everything that onboarding needs, and change nothing.
///
/// One line each, with what to do about it: configuration, secret files, credentials, permissions, image, network, brain,
/// its database, how keys are made, Tailscale's client, the policy file, keys and devices, the clock, the state directory.
/// Ends with 3 when something fails; advice alone is no failure.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// As it should be.
    Ok,
    /// Onboarding works; this would be better otherwise.
    Advice,
    /// Onboarding fails, now or later.
    Failed,
    /// Not looked at, and why.
    Skipped,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    what: String,
    remedy: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, what: impl Into<String>) -> Self {
        Self {
            name,
            state,
            what: what.into(),
            remedy: None,
        }
    }

    fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(name, State::Ok, what)
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, State::Skipped, why)
    }

    fn advice(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..Self::new(name, State::Advice, what)
        }
    }

    fn wrong(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..Self::new(name, State::Failed, what)
        }
    }

    /// What a command would have failed with.
    fn failed(name: &'static str, failure: Failure) -> Self {
        Self {
            remedy: failure.hint,
            ..Self::new(name, State::Failed, failure.causes.join(": "))
        }
    }
}

/// The result.
#[derive(Debug, Serialize)]
struct Examined {
    schema: &'static str,
    account: Option<String>,
    region: Option<String>,
    ok: bool,
    failed: usize,
    checks: Vec<Check>,
}

impl fmt::Display for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max();
        let width = width.unwrap_or_default();
        for check in &self.checks {
            let state = match check.state {
                State::Ok => "ok",
                State::Advice => "advice",
                State::Failed => "FAILED",
                State::Skipped => "skipped",
            };
            writeln!(f, "{state:7}  {:width$}  {}", check.name, check.what)?;
            if let Some(remedy) = &check.remedy {
                writeln!(f, "{:7}  {:width$}  do: {remedy}", "", "")?;
            }
        }
        match self.failed {
            0 => write!(f, "everything that onboarding needs is there"),
            1 => write!(f, "1 thing fails"),
            count => write!(f, "{count} things fail"),
        }
    }
}

/// Runs the command.
pub async fn run(_args: &DoctorArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let flags = global.flags();
    let mut checks = Vec::new();
    if !global.sandbox {
        checks.extend(local::secret_files(&flags));
    }
    checks.push(local::state_directory());
    let (mut account, mut region) = (None, None);
    match Target::open(global, &flags, terminal).await {
        Err(failure) => {
            checks.insert(0, Check::failed("configuration", failure));
            checks.push(Check::skipped(
                "everything else",
                "the configuration cannot be used",
            ));
        }
        Ok(target) => {
            checks.insert(0, local::configuration(&target, &flags));
            let aws = cloud::connect(&target.settings, &mut checks).await;
            let customers = match &aws {
                Some(aws) => {
                    (account, region) = (Some(aws.account.clone()), Some(aws.region.clone()));
                    cloud::examine(aws, &target.settings, &mut checks).await
                }
                None => {
                    for name in ["permissions", "image", "network", "launch"] {
                        checks.push(Check::skipped(name, "there are no credentials"));
                    }
                    None
                }
            };
            brain::examine(aws.as_ref(), &target.settings, &mut checks).await;
            tailscale::examine(
                aws.as_ref(),
                terminal,
                &target.settings,
                customers.as_ref(),
                &mut checks,
            )
            .await;
            checks.extend(local::programs());
            target.close().await;
        }
    }
    let failed = checks
        .iter()
        .filter(|check| check.state == State::Failed)
        .count();
    let examined = Examined {
        schema: "m8trx.doctor/1",
        account,
        region,
        ok: failed == 0,
        failed,
        checks,
    };
    terminal.result(&examined).map_err(stdout_failed)?;
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::words(Kind::Precondition, "onboarding would fail").with_result())
}
