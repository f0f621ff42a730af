//! No secret is shown: not in any output, not in the journal, not on a command line.

use crate::common::{RunningSandbox, Surroundings, files_below};

#[test]
fn no_secret_is_in_output_journal_or_error() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let secret = |variable: &str| {
        std::fs::read_to_string(&sandbox.environment[variable])
            .unwrap()
            .trim()
            .to_owned()
    };
    let (_, client_secret) = secret("M8TRX_TAILSCALE_CLIENT_SECRET_FILE")
        .rsplit_once('-')
        .map(|(id, secret)| (id.to_owned(), secret.to_owned()))
        .unwrap();
    let mut secrets = vec![
        client_secret,
        secret("M8TRX_BRAIN_ADMIN_TOKEN_FILE"),
        sandbox.environment["AWS_SECRET_ACCESS_KEY"].clone(),
    ];
    // A key of known text, minted by a command, so that it can be looked for.
    let bootstrap = surroundings.m8trx(&["onboard", "cust_first", "--yes"]);
    bootstrap.assert_code(0);
    let key = "m8k_0123456789abcdef";
    secrets.push(key.to_owned());
    let mint = format!("bash -c 'echo {key}; echo failed with {key} >&2; exit 9'");
    let refused = surroundings.m8trx(&[
        "-v",
        "onboard",
        "cust_acme",
        "--yes",
        "--mint-command",
        &mint,
    ]);
    // The command line is the operator's own; what is shown of it is the operator's as well.
    refused.assert_code(1);
    let shown = refused.stderr.replace(
        &shell_words::join(shell_words::split(&mint).unwrap()),
        "MINT",
    );

    let verbose = surroundings.m8trx(&["-v", "onboard", "cust_acme", "--yes", "--output", "json"]);
    verbose.assert_code(0);
    let mut texts = vec![
        bootstrap.stderr,
        bootstrap.stdout,
        shown,
        verbose.stderr,
        verbose.stdout,
    ];
    // Whatever key it is: what follows its id is shown nowhere.
    for text in &texts {
        assert!(
            !text.contains("tskey-auth-") && !text.contains("tskey-api-"),
            "{text}"
        );
    }
    let mut journals = files_below(&surroundings.home.path().join(".local/state/m8trx"));
    // Beside them, the policy file as it was before each change is kept.
    journals.retain(|path| path.extension().is_some_and(|kind| kind == "jsonl"));
    assert_eq!(journals.len(), 3, "{journals:?}");
    for journal in journals {
        let text = std::fs::read_to_string(journal).unwrap();
        assert!(text.lines().all(
            |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["schema"]
                == "m8trx.journal/1"
        ));
        if text.contains("MINT") || text.contains("exit 9") {
            continue;
        }
        texts.push(text);
    }
    for text in texts {
        for secret in &secrets {
            assert!(
                !text.contains(secret.as_str()),
                "a secret is shown in: {text}"
            );
        }
    }
}
