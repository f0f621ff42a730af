//! `m8trx drill`

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Global;
use super::execution::{observe, step_failure};
use super::inputs::{Given, give_tailscale_key};
use super::onboarding::{context, stdout_failed};
use super::target::Target;
use crate::bootstrap_log::BootstrapLog;
use crate::config::Flags;
use crate::console_text::whole_lines;
use crate::customer::CustomerId;
use crate::diagnosis::{FIRST_HEARTBEAT, INSTANCE, LAUNCH};
use crate::plan::runner::millis;
use crate::plan::{Events, RunReport};
use crate::steps;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, text};
use m8trx_sandbox::{Fault, Sandbox, SandboxOptions};

/// The customer of the drills.
const CUSTOMER: &str = "cust_drill";
/// A later diagnosis fails its drill. They take about one second; this leaves room for a busy machine.
const LATEST: Duration = Duration::from_secs(5);
/// How often the console is looked at for the line that a diagnosis is timed from.
const LOOK: Duration = Duration::from_millis(20);
/// How many drills go on at the same time: most of their time is waiting.
const AT_ONCE: usize = 4;
/// Drills of more than ten seconds.
const SLOW: [Fault; 3] = [
    Fault::SlowIam,
    Fault::TailscaleInstallUnreachable,
    Fault::Throttling,
];

/// Make an onboarding fail in every way the sandbox knows, and see that each failure is diagnosed.
///
/// Each drill has a sandbox of its own, in which the pauses of the host's bootstrap pass at once. `slow-iam` and
/// `throttling` must be overcome. Ends with 1 when something is not diagnosed as it should be, or later than 5 s after it
/// happened.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// What goes wrong [default: all].
    #[arg(value_parser = super::fault::fault(), value_name = "FAULT")]
    drilled: Vec<Fault>,
}

/// What a drill must come to: the cause, or none where the fault is overcome, and the exit code of `onboard`.
fn expected(fault: Fault) -> (Option<&'static str>, u8) {
    match fault {
        Fault::CustomerTagMissing => (Some("customer-tag-missing"), 5),
        Fault::MetadataTagsDisabled => (Some("metadata-tags-disabled"), 5),
        Fault::IamDenied => (Some("iam-denied"), 5),
        Fault::ParameterMissing => (Some("parameter-missing"), 5),
        Fault::TailscaleInstallUnreachable => (Some("no-route"), 5),
        Fault::TailscaleKeyRejected => (Some("tailscale-key-spent"), 5),
        Fault::TailscaleTagRefused => (Some("tailscale-tag-refused"), 5),
        Fault::AptFailed => (Some("mirror-down"), 5),
        Fault::SystemdFailed => (Some("systemd-failed"), 5),
        Fault::BrainUnreachable => (Some("brain-unreachable"), 5),
        Fault::BrainKeyRefused => (Some("brain-key-refused"), 5),
        Fault::NoHeartbeat => (Some("no-heartbeat"), 6),
        Fault::Capacity => (Some("capacity"), 4),
        Fault::InstanceTerminated => (Some("instance-terminated"), 5),
        Fault::SlowIam | Fault::Throttling => (None, 0),
    }
}

/// One drill.
#[derive(Debug, Serialize)]
struct Drill {
    fault: &'static str,
    /// What it was diagnosed as.
    cause: Option<&'static str>,
    expected_cause: Option<&'static str>,
    step: Option<String>,
    /// From the host's failing line, or from AWS's answer, to the diagnosis.
    diagnosis_ms: Option<u64>,
    exit_code: u8,
    expected_exit_code: u8,
    passed: bool,
    /// What is not as it should be.
    problem: Option<String>,
    elapsed_ms: u64,
}

/// The result.
#[derive(Debug, Serialize)]
struct Drilled {
    schema: &'static str,
    passed: bool,
    drills: Vec<Drill>,
    #[serde(skip)]
    columns: Option<u16>,
}

impl fmt::Display for Drilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["fault", "diagnosed as", "seconds", "exit code", ""]);
        if let Some(columns) = self.columns {
            table.set_width(columns);
        }
        for drill in &self.drills {
            let cause = match (drill.cause, drill.exit_code) {
                (Some(cause), _) => cause,
                (None, 0) => "nothing: it is overcome",
                (None, _) => "nothing",
            };
            let seconds = drill
                .diagnosis_ms
                .map_or("–".to_owned(), |ms| format!("{:.1}", ms as f64 / 1000.0));
            let verdict = drill.problem.as_deref().unwrap_or("as expected");
            table.add_row([
                drill.fault,
                cause,
                &seconds,
                &drill.exit_code.to_string(),
                verdict,
            ]);
        }
        for line in table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        let passed = self.drills.iter().filter(|drill| drill.passed).count();
        write!(f, "{passed} of {} drills as expected", self.drills.len())
    }
}

/// Runs the command.
pub async fn run(args: &DrillArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    if !global.faults.is_empty() {
        return Err(Failure::words(
            Kind::Usage,
            "a drill takes its faults as arguments, not by --fault",
        )
        .hint("m8trx drill FAULT…"));
    }
    let faults = match args.drilled.as_slice() {
        [] => Fault::ALL.to_vec(),
        some => some.to_vec(),
    };
    let mut order: Vec<(usize, Fault)> = faults.into_iter().enumerate().collect();
    // What takes longest is begun first, so that nothing waits for it at the end.
    order.sort_by_key(|(_, fault)| !SLOW.contains(fault));
    let mut drills: Vec<(usize, Drill)> = stream::iter(order)
        .map(async |(place, fault)| {
            let drill = drill(fault, terminal).await?;
            terminal.say(told(&drill));
            Ok::<_, Failure>((place, drill))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    drills.sort_by_key(|(place, _)| *place);
    let drills: Vec<Drill> = drills.into_iter().map(|(_, drill)| drill).collect();
    let result = Drilled {
        schema: "m8trx.drill/1",
        passed: drills.iter().all(|drill| drill.passed),
        drills,
        columns: terminal.columns(),
    };
    terminal.result(&result).map_err(stdout_failed)?;
    if result.passed {
        return Ok(());
    }
    let failed: Vec<&str> = result
        .drills
        .iter()
        .filter(|drill| !drill.passed)
        .map(|drill| drill.fault)
        .collect();
    let failure = Failure::words(
        Kind::Other,
        format!("not as expected: {}", failed.join(", ")),
    )
    .hint(format!(
        "see the whole of one: m8trx onboard {CUSTOMER} --yes --sandbox --fault {}",
        failed.first().unwrap_or(&"NAME")
    ));
    Err(failure.with_result())
}

fn told(drill: &Drill) -> String {
    let took = text::duration(Duration::from_millis(drill.elapsed_ms));
    let outcome = match (drill.cause, drill.exit_code) {
        (Some(cause), _) => format!("diagnosed as {cause}"),
        (None, 0) => "overcome".to_owned(),
        (None, _) => "not diagnosed".to_owned(),
    };
    format!("{}: {outcome}, after {took}", drill.fault)
}

async fn drill(fault: Fault, terminal: &Terminal) -> Result<Drill, Failure> {
    let began = Instant::now();
    let options = SandboxOptions {
        faults: vec![fault],
        pauses_pass: true,
        ..SandboxOptions::default()
    };
    let silent = terminal.muted();
    let target = Target::of_sandbox(options, &Flags::default(), &silent).await?;
    let seen = Seen::default();
    let result = match target.sandbox() {
        Some(sandbox) => tokio::select! {
            result = onboard(&target, &silent) => result,
            () = watch(sandbox, &seen) => unreachable!("the watch has no end"),
        },
        None => unreachable!("a drill has a sandbox"),
    };
    let ended = Timestamp::now();
    // The run may have ended before the watch looked again.
    if let Some(sandbox) = target.sandbox() {
        seen.look_at_all(sandbox);
    }
    let (cause, step, exit_code) = match result {
        Ok(report) => match report.failure.map(|(_, error)| step_failure(error)) {
            None => (None, None, 0),
            Some(failure) => {
                let code = failure.kind.exit_code();
                match failure.diagnosis {
                    Some(diagnosis) => (Some(diagnosis.cause), Some(diagnosis.step), code),
                    None => (None, Some(failure.causes.join(": ")), code),
                }
            }
        },
        // It failed before anything was launched; no fault should do that.
        Err(failure) => (
            None,
            Some(failure.causes.join(": ")),
            failure.kind.exit_code(),
        ),
    };
    let happened = match (&cause, step.as_deref(), target.sandbox()) {
        (Some(_), Some(LAUNCH | INSTANCE), Some(sandbox)) => last_launch(sandbox),
        (Some(_), Some(FIRST_HEARTBEAT), _) => seen.get().accepted,
        (Some(_), ..) => seen.get().failed,
        (None, ..) => None,
    };
    target.close().await;
    let late = happened.map(|at| Duration::try_from(ended.duration_since(at)).unwrap_or_default());
    let (expected_cause, expected_exit_code) = expected(fault);
    let problem = if cause != expected_cause {
        let step = step.as_deref().unwrap_or_default();
        Some(match (expected_cause, cause) {
            (Some(expected), _) => format!("expected: {expected}; {step}"),
            (None, _) => format!("expected to be overcome; {step}"),
        })
    } else if exit_code != expected_exit_code {
        Some(format!("expected exit code: {expected_exit_code}"))
    } else if cause.is_some() && late.is_none() {
        Some("nobody saw when it happened".to_owned())
    } else if late.is_some_and(|late| late > LATEST) {
        Some(format!("later than {} s", LATEST.as_secs()))
    } else {
        None
    };
    Ok(Drill {
        fault: fault.name(),
        cause,
        expected_cause,
        step,
        diagnosis_ms: late.map(millis),
        exit_code,
        expected_exit_code,
        passed: problem.is_none(),
        problem,
        elapsed_ms: millis(began.elapsed()),
    })
}

/// The onboarding that `m8trx onboard` does, without its display.
async fn onboard(target: &Target, terminal: &Terminal) -> Result<RunReport, Failure> {
    let customer: CustomerId = CUSTOMER
        .parse()
        .map_err(|e| Failure::new(Kind::Other, &e))?;
    let settings = &target.settings;
    let given = Given::read(settings)?;
    let aws = target.aws(terminal).await?;
    let context = Arc::new(context(&customer, None, aws, &given, settings, terminal).await?);
    let plan = steps::onboarding(&context).map_err(|e| Failure::new(Kind::Other, &e))?;
    let observed = observe(&plan).await?;
    give_tailscale_key(&context, &observed, given.tailscale_key, false, terminal).await?;
    let (events, _nobody) = Events::channel();
    Ok(plan
        .run(&observed, &events, &CancellationToken::new())
        .await)
}

/// When the console first said something that a diagnosis is timed from.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    failed: Option<Timestamp>,
    accepted: Option<Timestamp>,
}

#[derive(Default)]
struct Seen(Mutex<Moments>);

impl Seen {
    fn get(&self) -> Moments {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_at_all(&self, sandbox: &Sandbox) {
        for (_, console) in sandbox.consoles() {
            self.look(&console);
        }
    }

    fn look(&self, console: &[u8]) {
        let log = BootstrapLog::parse(whole_lines(console));
        let mut moments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.failure.is_some() {
            moments.failed.get_or_insert_with(Timestamp::now);
        }
        if log.first_heartbeat {
            moments.accepted.get_or_insert_with(Timestamp::now);
        }
    }
}

async fn watch(sandbox: &Sandbox, seen: &Seen) {
    loop {
        seen.look_at_all(sandbox);
        tokio::time::sleep(LOOK).await;
    }
}

/// When EC2 answered the last launch.
fn last_launch(sandbox: &Sandbox) -> Option<Timestamp> {
    let calls = sandbox.calls();
    let launches = calls.iter().filter(|call| call.action == "RunInstances");
    launches.map(|call| call.at).max()
}
