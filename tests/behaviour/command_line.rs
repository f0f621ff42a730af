//! Help, version, usage errors.

use crate::common::{Surroundings, binary_for_anyone};

#[test]
fn the_version_starts_no_thread() {
    let surroundings = Surroundings::new();
    let version = surroundings.m8trx(&["--version"]);
    assert_eq!(
        version.assert_code(0).stdout,
        format!("m8trx {}\n", env!("CARGO_PKG_VERSION"))
    );
    // Where no thread can be made, a runtime cannot start: `--version` does not mind, and a command that needs one does.
    let alone = |arguments: &[&str]| {
        let mut command = if nix::unistd::geteuid().is_root() {
            // The limit does not bind root.
            let mut command = surroundings.command("setpriv");
            command.args([
                "--reuid=65533",
                "--regid=65533",
                "--clear-groups",
                "prlimit",
                "--nproc=1",
            ]);
            command
        } else {
            let mut command = surroundings.command("prlimit");
            command.arg("--nproc=1");
            command
        };
        crate::common::ended(
            command
                .arg(binary_for_anyone(&surroundings))
                .args(arguments),
        )
    };
    alone(&["--version"]).assert_code(0);
    let needs_one = alone(&["onboard", "cust_acme", "--sandbox", "--yes"]);
    assert_ne!(needs_one.code, 0, "the limit does not hold: {needs_one:?}");
}

#[test]
fn ids_that_are_none_are_usage_errors() {
    let surroundings = Surroundings::new();
    let long = format!("cust_{}", "a".repeat(60));
    for id in [
        "acme",
        "cust_",
        "CUST_A",
        "cust_a-b",
        "cust_a/../b",
        "cust_a b",
        "cust_é",
        "",
        &long,
    ] {
        let ended = surroundings.m8trx(&["onboard", id, "--sandbox", "--yes"]);
        ended.assert_code(2);
        assert!(ended.stderr.contains("customer id"), "{id}: {ended:?}");
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn user_data_is_the_embedded_script_to_the_byte() {
    let ended = Surroundings::new().m8trx(&["user-data"]);
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/embedded/cloud-init/bootstrap.sh"
    );
    assert_eq!(
        ended.assert_code(0).stdout,
        std::fs::read_to_string(script).unwrap()
    );
}

#[test]
fn without_a_terminal_nothing_is_asked() {
    let ended = Surroundings::new().m8trx(&["onboard", "cust_acme", "--sandbox"]);
    ended.assert_code(2);
    assert!(ended.stderr.contains("--yes"), "{ended:?}");
}
