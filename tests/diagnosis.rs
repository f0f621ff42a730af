//! The diagnosis, held against consoles of real failures (`data/cases`) and against what happens to consoles.
//!
//! Each console stands in `expected.tsv` with what happened, what a senior operator would do, the causes that are right, and
//! words that the diagnosis must say and must not say, in its sentence or in what it says to do. A diagnosis is *right*
//! when its cause and its words are, *misleading* when only its cause is, *unknown* when it says that it does not know, and
//! *wrong* when it names another cause.
// The count is what `tests/run diagnosis` shows.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use m8trx::diagnosis::{Diagnosis, Situation, UNKNOWN, Verdict, judge};
use proptest::prelude::*;
use proptest::sample::Index;

/// What is said where a console does not say what happened.
const NOTHING_SAID: [&str; 6] = [
    UNKNOWN,
    "log-begins-late",
    "boot-unfinished",
    "bootstrap-unfinished",
    "no-console",
    "not-a-console",
];

struct Case {
    name: String,
    causes: Vec<String>,
    says: Vec<String>,
    does_not_say: Vec<String>,
    console: Vec<u8>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases")
}

fn cases() -> Vec<Case> {
    let table = std::fs::read_to_string(folder().join("expected.tsv")).unwrap();
    let words = |text: &str| {
        let words = text.split(',').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    table
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            assert_eq!(fields.len(), 6, "{line}");
            Case {
                name: fields[0].to_owned(),
                causes: words(fields[3]),
                says: words(fields[4]),
                does_not_say: words(fields[5]),
                console: std::fs::read(folder().join(fields[0])).unwrap(),
            }
        })
        .collect()
}

/// A saved console: nothing more will come.
fn diagnosed(console: &[u8]) -> Option<Diagnosis> {
    let situation = Situation {
        console,
        over: true,
        ..Situation::default()
    };
    match judge(&situation) {
        Verdict::Failed(diagnosis) => Some(*diagnosis),
        Verdict::Reports(_) => None,
        Verdict::Booting { log, .. } => panic!("nothing more comes: {}", log.describe()),
    }
}

fn cause(console: &[u8]) -> &'static str {
    diagnosed(console).map_or("healthy", |diagnosis| diagnosis.cause)
}

#[test]
fn the_given_cases() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let all = cases();
    for case in &all {
        let found = diagnosed(&case.console);
        let cause = found.as_ref().map_or("healthy", |found| found.cause);
        let said = found.as_ref().map_or(String::new(), |found| {
            let remedy: Vec<&str> = found.remedy.iter().map(|remedy| remedy.text()).collect();
            format!("{found}\n{}", remedy.join("\n"))
        });
        let missing: Vec<&String> = case
            .says
            .iter()
            .filter(|word| !said.contains(*word))
            .collect();
        let forbidden: Vec<&String> = case
            .does_not_say
            .iter()
            .filter(|word| said.contains(*word))
            .collect();
        let verdict = if !case.causes.iter().any(|right| right == cause) {
            if cause == UNKNOWN { "unknown" } else { "wrong" }
        } else if missing.is_empty() && forbidden.is_empty() {
            "right"
        } else {
            "misleading"
        };
        if verdict != "right" {
            println!(
                "{}: {verdict}: {cause}; not said: {missing:?}, said: {forbidden:?}\n{said}",
                case.name
            );
        }
        *counts.entry(verdict).or_default() += 1;
    }
    let count = |verdict: &str| counts.get(verdict).copied().unwrap_or(0);
    println!(
        "diagnosis cases: {} right, {} misleading, {} wrong, {} unknown of {}",
        count("right"),
        count("misleading"),
        count("wrong"),
        count("unknown"),
        all.len()
    );
    assert_eq!(all.len(), 67);
    assert_eq!(count("wrong"), 0);
    assert!(count("right") >= 64);
}

/// More failures in the words of the tools that met them, each below a line `== cause`, or causes where several are right.
#[test]
fn what_tools_say_is_understood() {
    let path = folder().parent().unwrap().join("failures.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut wrong = Vec::new();
    for record in text.split("== ").skip(1) {
        let (causes, console) = record.split_once('\n').unwrap();
        let found = cause(console.as_bytes());
        if !causes.split('|').any(|right| right == found) {
            wrong.push(format!("{found} instead of {causes}:\n{console}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each line that is shown stands on the console, or says what is not there; and the line that decided is among them.
#[test]
fn what_is_shown_stands_on_the_console() {
    for case in cases() {
        let Some(found) = diagnosed(&case.console) else {
            continue;
        };
        assert!(!found.evidence.is_empty(), "{}", case.name);
        assert!(
            found
                .evidence
                .iter()
                .all(|line| line.chars().count() <= 1000),
            "{}: {:#?}",
            case.name,
            found.evidence
        );
    }
}

#[test]
fn secrets_in_a_line_are_not_shown() {
    let console = "m8trx-bootstrap: step 3/7 tailscale\nm8trx-bootstrap: FAILED step=3 name=tailscale line=1 exit=1 reason=/m8trx/cust_acme/brain-key not read: Failed to connect to proxy URL: \"http://svc_user:s3cr3t@proxy.corp.example:3128\"\n";
    let found = diagnosed(console.as_bytes()).unwrap();
    assert_eq!(found.cause, "proxy-unreachable");
    assert!(!format!("{found:?}").contains("s3cr3t"), "{found:#?}");
    assert!(format!("{found:?}").contains("proxy.corp.example:3128"));
}

/// A console of one endless line is read fast.
#[test]
fn a_console_of_one_line_is_read_at_once() {
    let console = vec![b'x'; 16 * 1024 * 1024];
    let began = std::time::Instant::now();
    assert_eq!(cause(&console), "not-a-console");
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
}

/// Texts that are no consoles, though they are full of the words that consoles have.
#[test]
fn documents_are_no_consoles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        "README.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "embedded/cloud-init/bootstrap.sh",
        "embedded/cloud-init/README.md",
        "src/diagnosis/causes/host.rs",
    ] {
        let text = std::fs::read(root.join(file)).unwrap();
        let cause = cause(&text);
        assert!(NOTHING_SAID.contains(&cause), "{file}: {cause}");
    }
}

/// The consoles on which the bootstrap itself says how it failed.
fn failing() -> Vec<Case> {
    let mut cases = cases();
    let failed = |case: &Case| {
        let text = String::from_utf8_lossy(&case.console);
        text.contains("m8trx-bootstrap: FAILED ") && !case.causes.contains(&"healthy".to_owned())
    };
    cases.retain(failed);
    cases
}

/// What a healthy first boot prints too, or what another try has overcome: whole lines, for a step's beginning.
fn overcome(step: &str) -> Vec<&'static str> {
    let mut lines = vec![
        "[   10.100000] cloud-init[598]: m8trx-bootstrap: /m8trx/brain-url not read, again in 2 s:  An error occurred (AccessDeniedException) when calling the GetParameter operation: User: arn:aws:sts::123456789012:assumed-role/m8trx-cust_x/i-0 is not authorized to perform: ssm:GetParameter on resource: arn:aws:ssm:us-east-2:123456789012:parameter/m8trx/brain-url",
        "[   10.200000] cloud-init[598]: m8trx-bootstrap: /m8trx/cust_x/brain-key not read, again in 2 s:  Unable to locate credentials. You can configure credentials by running \"aws configure\".",
        "[FAILED] Failed to start snapd.service - Snap Daemon.",
        "[   10.300000] Out of memory: Killed process 991 (snapd) total-vm:1268884kB, anon-rss:41872kB",
        "[   10.400000] systemd[1]: tailscaled.service: Failed with result 'exit-code'.",
        "[   10.500000] audit: type=1400 apparmor=\"DENIED\" operation=\"open\" name=\"/proc/1/sched\"",
        "[   10.600000] cloud-init[598]: Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1719 (unattended-upgr)...",
    ];
    match step {
        "packages" | "identity" => lines.push(
            "[   10.700000] cloud-init[598]: E: Failed to fetch http://archive.ubuntu.com/x  503  Service Unavailable [IP: 91.189.91.81 80]\n[   10.800000] cloud-init[598]: m8trx-bootstrap: apt-get failed, again in 5 s: Failed to fetch http://archive.ubuntu.com/x  503  Service Unavailable",
        ),
        "tailscale" => lines.push(
            "[   10.700000] cloud-init[598]: Installing Tailscale for ubuntu jammy, using method apt\n[   10.800000] cloud-init[598]: curl: (6) Could not resolve host: pkgs.tailscale.com",
        ),
        _ => {}
    }
    lines
}

/// The place after the line that announces the step that failed, and the step.
fn failing_step(console: &[u8]) -> Option<(usize, String)> {
    let text = String::from_utf8_lossy(console);
    if text.len() != console.len() {
        return None;
    }
    let failed = text.rfind("m8trx-bootstrap: FAILED ")?;
    let at = text[..failed].rfind("m8trx-bootstrap: step ")?;
    let name = text[at..].split_whitespace().nth(3)?.to_owned();
    let end = at + text[at..].find('\n')? + 1;
    Some((end, name))
}

/// Where the first line that was shown begins.
fn first_shown(console: &[u8], found: &Diagnosis) -> Option<usize> {
    let places = found.evidence.iter().filter_map(|line| {
        let part: Vec<char> = line.trim().chars().take(60).collect();
        let part: String = part.into_iter().collect();
        let at = console
            .windows(part.len())
            .position(|window| window == part.as_bytes())?;
        Some(
            console[..at]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1),
        )
    });
    places.min()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = Vec::new();
    let mut n = 0_u32;
    while noise.len() < bytes {
        n += 1;
        noise.extend(
            format!(
                "[   12.{:06}] audit: type=1400 audit(1764057660.546:{n}): apparmor=\"STATUS\" operation=\"profile_load\" name=\"snap.lxd.{:x}\"\n",
                n % 1_000_000,
                n.wrapping_mul(7919)
            )
            .bytes(),
        );
    }
    noise
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_overcome_does_not_decide(which in any::<Index>(), chosen in proptest::collection::vec(any::<Index>(), 1..4)) {
        let cases = failing();
        let case = which.get(&cases);
        let Some((at, step)) = failing_step(&case.console) else { return Ok(()) };
        let lines = overcome(&step);
        let mut console = case.console[..at].to_vec();
        // What waits for a lock says nothing where nothing else is said of why a package failed.
        for line in &chosen {
            console.extend(line.get(&lines).bytes().chain([b'\n']));
        }
        console.extend(&case.console[at..]);
        prop_assert_eq!(cause(&console), cause(&case.console), "{}", case.name);
    }

    #[test]
    fn a_long_console_that_is_cut_keeps_its_diagnosis(which in any::<Index>(), cut in any::<Index>()) {
        let cases = cases();
        let case = which.get(&cases);
        let Some(found) = diagnosed(&case.console) else { return Ok(()) };
        let Some(first) = first_shown(&case.console, &found) else { return Ok(()) };
        if NOTHING_SAID.contains(&found.cause) || ["launch", "instance"].contains(&found.step.as_str()) {
            return Ok(());
        }
        let mut console = case.console[..first].to_vec();
        console.extend(noise(64 * 1024));
        let from = cut.index(console.len());
        console.extend(&case.console[first..]);
        prop_assert_eq!(cause(&console[from..]), found.cause, "{} from {}", case.name, from);
    }

    #[test]
    fn how_lines_are_written_does_not_matter(
        which in any::<Index>(),
        crlf in any::<bool>(),
        coloured in any::<bool>(),
        between in proptest::collection::vec(any::<Index>(), 0..6),
    ) {
        let cases = cases();
        let case = which.get(&cases);
        if case.console.is_empty() || case.name.starts_with("91-") { return Ok(()) }
        let mut lines: Vec<Vec<u8>> = case.console.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        let has_stamps = case.console.windows(9).any(|window| window == b"cloud-ini");
        for at in between.iter().filter(|_| has_stamps) {
            let at = at.index(lines.len());
            lines.insert(at, b"[   45.212377] IPv6: ADDRCONF(NETDEV_CHANGE): tailscale0: link becomes ready".to_vec());
        }
        if coloured {
            for line in &mut lines {
                if !line.is_empty() {
                    *line = [b"\x1b[0;32m", line.as_slice(), b"\x1b[0m"].concat();
                }
            }
        }
        let end: &[u8] = if crlf { b"\r\n" } else { b"\n" };
        let console = lines.join(end);
        prop_assert_eq!(cause(&console), cause(&case.console), "{}", case.name);
    }

    #[test]
    fn the_last_boot_counts(which in any::<Index>(), before in any::<Index>(), after in any::<bool>()) {
        let cases = failing();
        let case = which.get(&cases);
        let mut console = before.get(&cases).console.clone();
        console.push(b'\n');
        console.extend(&case.console);
        if after {
            console.extend(b"\n[    0.000000] Linux version 6.8.0-1031-aws\n[    2.240555] systemd[1]: Hostname set to <ubuntu>.\n[    9.9] cloud-init[598]: Cloud-init v. 24.4 running 'modules:final' at Thu, 26 Nov 2026 08:01:07 +0000. Up 9.90 seconds.\n[   10.1] cloud-init[598]: Cloud-init v. 24.4 finished at Thu, 26 Nov 2026 08:01:07 +0000. Datasource DataSourceEc2Local.  Up 10.1 seconds\n");
        }
        prop_assert_eq!(cause(&console), cause(&case.console), "{} after {}", case.name, before.get(&cases).name);
    }

    #[test]
    fn without_the_line_that_decides_nothing_is_known(which in any::<Index>(), cut in any::<Index>()) {
        let cases = cases();
        let case = which.get(&cases);
        let Some(found) = diagnosed(&case.console) else { return Ok(()) };
        let Some(first) = first_shown(&case.console, &found) else { return Ok(()) };
        let console = &case.console[cut.index(first + 1).min(first)..first];
        let left = cause(console);
        prop_assert!(
            NOTHING_SAID.contains(&left) || left == found.cause || left == "healthy",
            "{}: {left}",
            case.name
        );
    }

    #[test]
    fn any_text_is_no_console(text in "\\PC{0,400}", bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        for text in [text.as_bytes(), &bytes] {
            let found = cause(text);
            prop_assert!(NOTHING_SAID.contains(&found), "{found}");
        }
    }
}
