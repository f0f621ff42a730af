//! Killed, faulted, raced: the commands that change something, each against a world that does not play along. Prints one
//! table and closes with the line that `tests/run` counts.
//!
//! Without arguments the short form; `--full` for every call of every command; other words choose rows by their names,
//! and `--show` prints what was wrong at length.

#![allow(clippy::print_stdout, missing_docs)]

mod cases;
#[allow(dead_code)]
#[path = "../behaviour/common.rs"]
mod common;
#[allow(dead_code)]
#[path = "../behaviour/fleet.rs"]
mod fleet;
mod proxy;
#[allow(dead_code)]
#[path = "../behaviour/settled.rs"]
mod settled;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cases::{Subject, Verdict};
use proxy::Fault;
use world::World;

use Subject::{
    MintKey, Offboard, Onboard, RotateBrainKey, RotateBrainKeyAtOnce, RotateTailscaleKey,
};

type Work = Box<dyn Fn(&World) -> Verdict + Send + Sync>;

/// One case: where it stands in the table, what it is, and how it is carried out.
struct Case {
    row: String,
    name: String,
    work: Work,
}

const KILLS: [Fault; 2] = [Fault::KillBefore, Fault::KillAfter];
const LIES: [Fault; 11] = [
    Fault::Lost,
    Fault::Failed,
    Fault::Cut,
    Fault::Page,
    Fault::Portal,
    Fault::Redirect,
    Fault::Unavailable,
    Fault::Throttled,
    Fault::Expired,
    Fault::Skewed,
    Fault::Late(Duration::from_millis(300)),
];

/// The faults at the calls of one command; every `stride`-th call.
fn at_each_call(world: &World, subject: Subject, faults: &[Fault], stride: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, call) in cases::changes(world, subject).into_iter().enumerate() {
        for (which, fault) in faults.iter().copied().enumerate() {
            if (at + which) % stride != 0 {
                continue;
            }
            let kind = if KILLS.contains(&fault) {
                "killed"
            } else {
                "lied to"
            };
            cases.push(Case {
                row: format!("{kind}: {}", subject.name()),
                name: format!("{} {}: {}", at + 1, call.what, fault.name()),
                work: Box::new(move |world| cases::faulted(world, subject, at + 1, fault)),
            });
        }
    }
    cases
}

fn all(world: &World, full: bool, wanted: &dyn Fn(&str) -> bool) -> Vec<Case> {
    let mut found = Vec::new();
    for (subject, stride) in [
        (MintKey, 1),
        (RotateBrainKey, 1),
        (RotateBrainKeyAtOnce, 1),
        (RotateTailscaleKey, 1),
        (Offboard, 3),
        (Onboard, 5),
    ] {
        let stride = if full { 1 } else { stride };
        if wanted(&format!("killed: {}", subject.name())) {
            found.extend(at_each_call(world, subject, &KILLS, stride));
        }
        let stride = if full { 1 } else { stride * 4 };
        if wanted(&format!("lied to: {}", subject.name())) {
            found.extend(at_each_call(world, subject, &LIES, stride));
        }
    }
    for (subject, short, long) in [
        (RotateBrainKey, 3, 60),
        (RotateTailscaleKey, 3, 60),
        (MintKey, 2, 40),
        (Onboard, 1, 40),
    ] {
        let row = format!("hostile: {}", subject.name());
        for seed in 1..=if full { long } else { short } {
            found.push(Case {
                row: row.clone(),
                name: format!("seed {seed}"),
                work: Box::new(move |world| cases::hostile(world, subject, seed)),
            });
        }
    }
    for (first, second) in [
        (RotateBrainKey, RotateBrainKey),
        (RotateBrainKeyAtOnce, RotateBrainKey),
        (RotateTailscaleKey, RotateTailscaleKey),
        (MintKey, MintKey),
    ] {
        let row = format!("at once: {} and {}", first.name(), second.name());
        for seed in 1..=if full { 20 } else { 4 } {
            found.push(Case {
                row: row.clone(),
                name: format!("seed {seed}"),
                work: Box::new(move |world| cases::race(world, first, second, seed)),
            });
        }
    }
    found.retain(|case| wanted(&case.row));
    found
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let (full, show) = (has("--full"), has("--show"));
    let words: Vec<&String> = arguments
        .iter()
        .filter(|word| !word.starts_with("--"))
        .collect();
    let wanted = |row: &str| words.is_empty() || words.iter().any(|word| row.contains(*word));
    let began = Instant::now();
    let world = World::new();
    let cases = all(&world, full, &wanted);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Verdict)>> = Mutex::default();
    let workers = 2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(8) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(at) else { return };
                    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        (case.work)(&world)
                    }));
                    let verdict = verdict.unwrap_or_else(|_| Verdict {
                        wrong: vec!["the case itself failed".to_owned()],
                        ..Verdict::default()
                    });
                    done.lock().unwrap().push((at, verdict));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, _)| *at);
    let bad = done
        .iter()
        .filter(|(_, verdict)| !verdict.is_good())
        .count();
    for (at, verdict) in &done {
        if verdict.is_good() {
            continue;
        }
        let case = &cases[*at];
        println!("FAILED {}: {}", case.row, case.name);
        for (what, lines) in [
            ("wrong", &verdict.wrong),
            ("orphan", &verdict.orphans),
            ("leak", &verdict.leaks),
        ] {
            for line in lines {
                let line: String = line.chars().take(if show { 5000 } else { 300 }).collect();
                println!("  {what}: {}", line.trim().replace('\n', "\n    "));
            }
        }
    }
    print_table(&cases, &done);
    println!("{} s", began.elapsed().as_secs());
    println!("{} passed, {bad} failed, 0 skipped", done.len() - bad);
    std::process::exit(i32::from(bad > 0 || done.is_empty()));
}

fn print_table(cases: &[Case], done: &[(usize, Verdict)]) {
    let mut rows: Vec<(&str, [usize; 4])> = Vec::new();
    for (at, verdict) in done {
        let row = cases[*at].row.as_str();
        if rows.last().is_none_or(|(name, _)| *name != row) {
            rows.push((row, [0; 4]));
        }
        let (_, counts) = rows.last_mut().unwrap();
        counts[0] += 1;
        counts[1] += usize::from(!verdict.wrong.is_empty());
        counts[2] += verdict.orphans.len();
        counts[3] += verdict.leaks.len();
    }
    println!(
        "{:<60} {:>6} {:>6} {:>8} {:>6}",
        "", "cases", "wrong", "orphans", "leaks"
    );
    let mut total = [0; 4];
    for (row, counts) in &rows {
        println!(
            "{row:<60} {:>6} {:>6} {:>8} {:>6}",
            counts[0], counts[1], counts[2], counts[3]
        );
        for (sum, count) in total.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    println!(
        "{:<60} {:>6} {:>6} {:>8} {:>6}",
        "all", total[0], total[1], total[2], total[3]
    );
}
