//! A sandbox that lasts over several commands.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::common::{M8TRX, RunningSandbox, Surroundings};

#[test]
fn it_prints_lines_a_shell_can_take() {
    let surroundings = Surroundings::new();
    let mut up = surroundings
        .command(M8TRX)
        .args(["sandbox", "up"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(up.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take(6)
        .collect();
    let script = format!("{}\ntest -n \"$AWS_ENDPOINT_URL\"", lines.join("\n"));
    assert!(
        lines.iter().all(|line| line.starts_with("export ")),
        "{lines:?}"
    );
    let taken = surroundings
        .command("bash")
        .args(["-c", &script])
        .status()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(up.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(taken.success());
    assert!(up.wait().unwrap().success());
}

/// Processes in namespaces other than this test's, whose binary is ours: hosts.
fn descendants_of(pid: u32) -> usize {
    let mut children: std::collections::HashMap<u32, Vec<u32>> = std::collections::HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut count = 0;
    let mut left = vec![pid];
    while let Some(next) = left.pop() {
        let below = children.remove(&next).unwrap_or_default();
        count += below.len();
        left.extend(below);
    }
    count
}

#[test]
fn its_hosts_end_with_it() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(0);
    assert!(descendants_of(sandbox.id()) >= 1);
    let stage = std::path::Path::new(&sandbox.environment["M8TRX_BRAIN_ADMIN_TOKEN_FILE"])
        .parent()
        .unwrap()
        .to_owned();
    assert!(stage.exists());
    let id = sandbox.id();
    drop(sandbox);
    assert_eq!(descendants_of(id), 0);
    assert!(!stage.exists(), "{}", stage.display());
}
