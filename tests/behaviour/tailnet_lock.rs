//! Tailnet Lock: nodes that are shut out are named and signed, and keys are signed before they are stored.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::json;

use crate::common::{RunningSandbox, Surroundings, files_below};
use crate::tailnet::Console;

const ONBOARD: [&str; 5] = ["onboard", "cust_acme", "--yes", "--output", "json"];

/// Stands in for the `tailscale` of a signing node, and checks what it is given.
const TAILSCALE: &str = r#"#!/bin/bash
set -euo pipefail
echo "$*" >> "$HOME/tailscale-calls"
refuse() { echo "$1" >&2; exit 1; }
env | grep -q 'AWS_SECRET_ACCESS_KEY' && refuse 'the operator of AWS is nobody here'
case "$*" in
  'status --json') echo "{\"BackendState\":\"Running\",\"Self\":{\"ID\":\"${NODE:-nLaptopCNTRL}\"}}" ;;
  'lock status --json') echo "{\"Enabled\":${LOCK:-true},\"PublicKey\":\"nlpub:00\",\"NodeKeySigned\":true}" ;;
  'lock sign nodekey:'*)
    [[ $3 =~ ^nodekey:[0-9a-f]{64}$ ]] || refuse 'bad node key'
    curl -qfsS --noproxy '*' -d "{\"node_key\":\"$3\"}" "$M8TRX_TAILSCALE_API_URL/_sandbox/sign" > "$HOME/signed" ;;
  'lock sign file:'*)
    file=${3#file:}
    [[ $(stat -c %a "$file") == 600 ]] || refuse 'the key file can be read by others'
    key=$(< "$file")
    [[ $key == tskey-auth-*-* && $key != *--TL* ]] || refuse 'no key to wrap'
    [[ ${WRAP:-good} == good ]] || refuse "signing failed for $key: this node is not trusted by network lock"
    echo "$key--TL$(printf 'sig%.0s' {1..10})+/-$(printf 'priv%.0s' {1..10})" ;;
  *) refuse "unknown: $*" ;;
esac
"#;

fn with_tailscale(sandbox: &RunningSandbox) -> Surroundings {
    let mut surroundings = Surroundings::of(sandbox);
    let path = surroundings.file("tailscale", TAILSCALE);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let home = surroundings.home.path().to_str().unwrap().to_owned();
    // Key files are written where the test can look.
    surroundings
        .set("PATH", format!("{home}:/usr/local/bin:/usr/bin:/bin"))
        .set("XDG_RUNTIME_DIR", home);
    surroundings
}

fn calls(surroundings: &Surroundings) -> String {
    std::fs::read_to_string(surroundings.home.path().join("tailscale-calls")).unwrap_or_default()
}

fn key_files(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut files = files_below(surroundings.home.path());
    files.retain(|file| file.to_string_lossy().contains("m8trx-key-"));
    files
}

#[test]
fn a_node_that_is_shut_out_is_named_and_signed() {
    let sandbox = RunningSandbox::up();
    let console = Console::of(&sandbox);
    console.conduct(json!({"lock": true}));
    // A machine outside the tailnet cannot know of the lock before a device is shut out.
    let plain = Surroundings::of(&sandbox);
    let failed = plain.m8trx(&ONBOARD);
    failed.assert_code(4);
    for words in [
        "cannot reach the brain",
        "Tailnet Lock shuts its device n",
        "m8trx tailnet lock sign cust_acme",
    ] {
        assert!(failed.stderr.contains(words), "{words}: {failed:?}");
    }
    let devices = plain.m8trx(&["tailnet", "devices", "cust_acme"]);
    let shown = &devices.assert_code(0).stdout;
    assert!(
        shown.contains("locked out") && shown.contains("m8trx tailnet lock sign cust_acme"),
        "{shown}"
    );
    // From now on it is known that the lock is on: no key is made that could not be signed.
    let refused = plain.m8trx(&["onboard", "cust_other", "--yes"]);
    refused.assert_code(3);
    assert!(
        refused.stderr.contains("this machine cannot sign keys"),
        "{refused:?}"
    );
    assert_eq!(console.keys().len(), 1);
    let unsigned = plain.m8trx(&["tailnet", "lock", "sign", "cust_acme", "--yes"]);
    unsigned.assert_code(3);
    assert!(
        unsigned.stderr.contains("there is no `tailscale` command"),
        "{unsigned:?}"
    );
    let asking = plain.m8trx(&["tailnet", "lock", "sign", "cust_acme"]);
    asking.assert_code(2);
    assert!(asking.stderr.contains("--yes"), "{asking:?}");

    let signing = with_tailscale(&sandbox);
    let signed = signing.m8trx(&[
        "tailnet",
        "lock",
        "sign",
        "cust_acme",
        "--yes",
        "--output",
        "json",
    ]);
    let document = signed.assert_code(0).json();
    assert_eq!(document["schema"], "m8trx.tailnet-lock-sign/1");
    let node_key = document["signed"][0]["node_key"].as_str().unwrap();
    assert!(calls(&signing).contains(&format!("lock sign {node_key}\n")));
    assert!(
        signed.stderr.contains(node_key) && signed.stderr.contains("tag:m8trx-cust-acme"),
        "{signed:?}"
    );
    let again = signing.m8trx(&["tailnet", "lock", "sign", "cust_acme", "--yes"]);
    assert!(
        again.assert_code(0).stdout.contains("nothing to sign"),
        "{again:?}"
    );
    let devices = signing.m8trx(&["tailnet", "devices"]);
    assert!(
        devices.assert_code(0).stdout.contains("connected"),
        "{devices:?}"
    );
    let nobody = signing.m8trx(&["tailnet", "lock", "sign", "cust_nobody", "--yes"]);
    nobody.assert_code(3);
    assert!(
        nobody
            .stderr
            .contains("no device tagged tag:m8trx-cust-nobody"),
        "{nobody:?}"
    );
}

#[test]
fn a_key_is_signed_before_it_is_stored() {
    let sandbox = RunningSandbox::up();
    let console = Console::of(&sandbox);
    console.conduct(json!({"lock": true}));
    let mut surroundings = with_tailscale(&sandbox);
    // Refused first: the key that was minted for it is revoked, and its file is gone.
    surroundings.set("WRAP", "bad");
    let failed = surroundings.m8trx(&ONBOARD);
    failed.assert_code(3);
    assert!(
        failed.stderr.contains("this node is not trusted"),
        "{failed:?}"
    );
    assert!(!failed.stderr.contains("tskey-auth-k"), "{failed:?}");
    assert_eq!(console.keys(), Vec::<serde_json::Value>::new());

    // Only a signed key lets a host reach the brain, so its heartbeat proves that one was stored.
    surroundings.set("WRAP", "good");
    surroundings.m8trx(&ONBOARD).assert_code(0);
    assert_eq!(console.keys().len(), 1);
    let made = calls(&surroundings);
    assert!(
        made.contains("lock sign file:") && !made.contains("tskey-"),
        "{made}"
    );
    assert_eq!(key_files(&surroundings), Vec::<PathBuf>::new());
    // A stored key that is signed is known by its id like any other, and nothing is done to it.
    let again = surroundings.m8trx(&ONBOARD);
    again.assert_code(0);
    assert_eq!(console.count("POST", "/keys"), 2);
    assert_eq!(sandbox.count("PutParameter"), 3);

    // One that is not signed is replaced, and revoked.
    console.conduct(json!({"lock": false}));
    surroundings.set("LOCK", "false");
    let onboard = ["onboard", "cust_other", "--yes", "--output", "json"];
    surroundings.m8trx(&onboard).assert_code(0);
    let unsigned = console.keys_of("tag:m8trx-cust-other");
    console.conduct(json!({"lock": true}));
    surroundings.set("LOCK", "true");
    surroundings.m8trx(&onboard).assert_code(0);
    let signed = console.keys_of("tag:m8trx-cust-other");
    assert_eq!((unsigned.len(), signed.len()), (1, 1));
    assert_ne!(unsigned, signed);
}

#[test]
fn another_tailnets_tailscale_has_no_say() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = with_tailscale(&sandbox);
    surroundings.set("NODE", "nSomebodyElsesCNTRL");
    surroundings.m8trx(&ONBOARD).assert_code(0);
    assert_eq!(calls(&surroundings), "status --json\n");
    // And one that says that the lock is off is believed.
    surroundings
        .set("NODE", "nLaptopCNTRL")
        .set("LOCK", "false");
    surroundings
        .m8trx(&["onboard", "cust_other", "--yes"])
        .assert_code(0);
    assert!(!calls(&surroundings).contains("sign"));
}
