//! How long `m8trx status` takes for a fleet, against the sandbox without latency, and how many calls it makes.
//!
//! `cargo bench --bench status [-- CUSTOMERS [LOOKS]]`, 1000 and 5 by default; `-- --serve CUSTOMERS` keeps the fleet running
//! and prints the environment that points at it. Fails unless the median is under three seconds for 1000 customers, and unless
//! ten times the customers take less than ten times as long.

use std::collections::BTreeMap;
use std::io::{Write as _, stdout};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use m8trx_sandbox::{Sandbox, SandboxOptions};
use settled::settled;

#[path = "../behaviour/settled.rs"]
mod settled;

const M8TRX: &str = env!("CARGO_BIN_EXE_m8trx");
const TARGET: Duration = Duration::from_secs(3);

/// A fleet of customers that are well, except that every hundredth beat last two hours ago.
fn fleet(runtime: &tokio::runtime::Runtime, customers: usize) -> Sandbox {
    let options = SandboxOptions::default();
    let sandbox = runtime
        .block_on(Sandbox::start_from(options, Path::new(M8TRX)))
        .unwrap();
    for number in 0..customers {
        let id = format!("cust_{number:04}");
        let silent = number % 100 == 99;
        sandbox
            .settle(&settled(
                &id,
                SignedDuration::from_hours(24 * (number % 70) as i64 + 1),
                Some(SignedDuration::from_mins(if silent { 120 } else { 2 })),
            ))
            .unwrap();
        let now = Timestamp::now();
        let ended = serde_json::json!({"status": "ok", "exit_code": 0, "duration_ms": 1200});
        let tool = serde_json::json!({"tool_name": "bash", "input_bytes": 10, "output_bytes": 100});
        sandbox.record_event(&id, "session.start", now, serde_json::json!({}));
        sandbox.record_event(&id, "session.end", now, ended);
        sandbox.record_event(&id, "tool_call", now, tool);
    }
    sandbox
}

fn status(sandbox: &Sandbox) -> Command {
    let mut command = Command::new(M8TRX);
    command
        .args(["status", "--output", "json"])
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(sandbox.environment())
        .stdin(Stdio::null());
    command
}

/// Seconds of processor time that ended children have taken (fields 16 and 17 of proc(5)'s stat, in hundredths).
fn children_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: f64 = fields
        .skip(13)
        .take(2)
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum();
    ticks / 100.0
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The median time of several looks, and the calls of one.
fn measure(
    runtime: &tokio::runtime::Runtime,
    customers: usize,
    looks: usize,
) -> (Duration, BTreeMap<String, usize>) {
    let sandbox = fleet(runtime, customers);
    let mut times = Vec::new();
    let mut calls = BTreeMap::new();
    for _ in 0..looks {
        let before = sandbox.calls().len();
        let began = Instant::now();
        let output = status(&sandbox).output().unwrap();
        times.push(began.elapsed());
        assert!(output.status.success(), "{output:?}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["summary"]["customers"], customers);
        let healthy = customers - customers / 100;
        assert_eq!(document["summary"]["by_status"]["healthy"], healthy);
        calls.clear();
        for call in &sandbox.calls()[before..] {
            *calls.entry(call.action.clone()).or_default() += 1;
        }
    }
    runtime.block_on(sandbox.stop());
    (median(times), calls)
}

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`, and `cargo test --all-targets` runs this without it: then there is nothing to measure.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let numbers: Vec<usize> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    let customers = numbers.first().copied().unwrap_or(1000);
    let looks = numbers.get(1).copied().unwrap_or(5).max(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut out = stdout();
    if arguments.iter().any(|argument| argument == "--serve") {
        let sandbox = fleet(&runtime, customers);
        for (name, value) in sandbox.environment() {
            writeln!(out, "export {name}={}", shell_words::quote(&value)).unwrap();
        }
        runtime.block_on(tokio::signal::ctrl_c()).unwrap();
        runtime.block_on(sandbox.stop());
        return ExitCode::SUCCESS;
    }
    let few = (customers / 10).max(1);
    let (short, _) = measure(&runtime, few, looks);
    let before = children_cpu();
    let (long, calls) = measure(&runtime, customers, looks);
    let cpu = (children_cpu() - before) / looks as f64;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    for (action, count) in &calls {
        writeln!(out, "{action:>32} {count}").unwrap();
    }
    let total: usize = calls.values().sum();
    let ratio = long.as_secs_f64() / short.as_secs_f64();
    writeln!(
        out,
        "{customers} customers: median of {looks} looks {:.2} s (at most {} s for 1000), {total} AWS calls, {:.2} a customer",
        long.as_secs_f64(),
        TARGET.as_secs(),
        total as f64 / customers as f64
    )
    .unwrap();
    writeln!(
        out,
        "each took {cpu:.2} s of processor time; load {}",
        load.split(' ').next().unwrap_or_default()
    )
    .unwrap();
    writeln!(
        out,
        "{few} customers: {:.2} s; ten times the customers take {ratio:.1} times as long",
        short.as_secs_f64()
    )
    .unwrap();
    let slow = customers >= 1000 && long >= TARGET;
    if slow || ratio >= 10.0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
