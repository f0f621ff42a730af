//! `m8trx tailnet doctor`

use std::fmt;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::customers::Found;
use super::{brain_port, check, client};
use crate::cli::Global;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::tailnet::doctor::{self, Diagnosis, Severity};
use crate::tailnet::lock;
use crate::tailnet::policy::hujson::Document;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Look for what endangers customers in the tailnet, or will fail soon.
///
/// Looks at the policy file, the devices and the keys through Tailscale's API, at the customers in AWS, and at Tailnet Lock
/// through this machine's `tailscale`. Changes nothing. Ends with 7 when there is a problem; advice alone is none.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// The result.
#[derive(Debug, Serialize)]
struct Examined {
    schema: &'static str,
    problems: usize,
    findings: Vec<Diagnosis>,
    /// What could not be looked at, and why.
    skipped: Vec<String>,
}

impl fmt::Display for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let heading = match finding.severity {
                Severity::Problem => "problem",
                Severity::Advice => "advice",
            };
            writeln!(f, "{heading}: {} [{}]", finding.what, finding.id)?;
            writeln!(f, "  why: {}", finding.why)?;
            writeln!(f, "  do:  {}", finding.todo)?;
        }
        match (self.problems, self.findings.len()) {
            (0, 0) => write!(f, "nothing is wrong with the tailnet"),
            (0, _) => write!(f, "no problem"),
            (1, _) => write!(f, "1 problem"),
            (count, _) => write!(f, "{count} problems"),
        }
    }
}

/// Runs the command.
pub(super) async fn run(
    _args: &DoctorArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = examine(&target, terminal).await;
    target.close().await;
    let examined = result?;
    terminal.result(&examined).map_err(stdout_failed)?;
    if examined.problems == 0 {
        return Ok(());
    }
    Err(Failure::words(
        Kind::NeedsPerson,
        "there are problems in the tailnet",
    ))
}

async fn examine(target: &Target, terminal: &Terminal) -> Result<Examined, Failure> {
    let tailnet = client(&target.settings)?;
    let file = tailnet.policy_file().await?;
    let policy = Document::parse(file.text).map_err(|e| check::unreadable("of the tailnet", &e))?;
    let (devices, keys) = futures::try_join!(tailnet.devices(), tailnet.auth_keys())?;
    let mut skipped = Vec::new();
    let mut brain_port = None;
    // Without credentials, the tailnet can be looked at nevertheless; a permission that is missing is told.
    let customers = match target.aws(terminal).await {
        Ok(aws) => {
            brain_port = brain_port::of_aws(&aws, terminal).await;
            Some(Found::read(&aws, terminal).await?.everywhere())
        }
        Err(failure) => {
            let why = failure.causes.join(": ");
            terminal.warn(format!(
                "the customers in AWS are not known, so tags that are missing or unused are not looked for: {why}"
            ));
            skipped.push(format!("customers in AWS: {why}"));
            None
        }
    };
    let findings = doctor::examine(&doctor::Tailnet {
        policy: &policy,
        brain_port: brain_port
            .unwrap_or_else(|| brain_port::configured(&target.settings, terminal)),
        devices: &devices,
        keys: &keys,
        lock: lock::state(&devices).await,
        customers: customers.as_ref(),
        now: Timestamp::now(),
    });
    let problems = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Problem)
        .count();
    Ok(Examined {
        schema: "m8trx.tailnet-doctor/1",
        problems,
        findings,
        skipped,
    })
}
