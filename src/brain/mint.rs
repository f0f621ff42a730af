//! Minting a brain key with the brain's own script.

use std::time::Duration;

use super::BrainError;
use crate::child;
use crate::customer::CustomerId;
use crate::secret::{BrainKey, mask};

/// The brain's own script, run where the brain is checked out.
pub const DEFAULT_MINT_COMMAND: [&str; 2] = ["node", "bin/mint-key.js"];

/// How long the command may take.
const MINT_TIMEOUT: Duration = Duration::from_secs(60);

/// The argv that mints a key for a customer.
///
/// `{customer}` and `{label}` in a word stand for these; where no word holds them, both are added at the end, as
/// `node bin/mint-key.js <customer id> <label>` wants them. No shell ever sees them.
pub fn argv(command: &[String], customer: &CustomerId, label: &str) -> Vec<String> {
    let has_places = command
        .iter()
        .any(|word| word.contains("{customer}") || word.contains("{label}"));
    let mut words: Vec<String> = command
        .iter()
        .map(|word| {
            word.replace("{customer}", customer.as_str())
                .replace("{label}", label)
        })
        .collect();
    if !has_places {
        words.push(customer.to_string());
        words.push(label.to_owned());
    }
    words
}

/// The command as it may be shown: its words may hold a token, so only the program is named, and the brain's own script.
pub fn shown(command: &[String]) -> String {
    match command {
        [program] => shell_words::quote(program).into_owned(),
        [program, script, ..] if [program.as_str(), script] == DEFAULT_MINT_COMMAND => {
            DEFAULT_MINT_COMMAND.join(" ")
        }
        [program, ..] => format!("{} …", shell_words::quote(program)),
        [] => String::new(),
    }
}

/// Runs the command and takes the key from its standard output: the last line that is not empty.
pub async fn run(
    command: &[String],
    customer: &CustomerId,
    label: &str,
) -> Result<BrainKey, BrainError> {
    let words = argv(command, customer, label);
    let failed = |reason: String| BrainError::Mint {
        command: shown(&words),
        reason,
    };
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| failed("has no words".to_owned()))?;
    let output = child::run(program, arguments, MINT_TIMEOUT)
        .await
        .map_err(|e| failed(e.to_string()))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let key_line = printed.lines().rev().find(|line| !line.trim().is_empty());
    if !output.status.success() {
        // What it printed before it failed may hold a key.
        let mut secrets: Vec<&str> = printed.split_whitespace().collect();
        // And its own words a token.
        let given = words[1..].iter().flat_map(|word| word.split_whitespace());
        secrets.extend(given.filter(|word| !label.contains(word) && *word != customer.as_str()));
        secrets.retain(|word| word.len() >= 8);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
        let said = last.map_or(String::new(), |line| {
            format!(": {}", mask(line.trim(), &secrets))
        });
        return Err(failed(match output.status.code() {
            Some(code) => format!("ended with exit code {code}{said}"),
            None => format!("was ended by a signal{said}"),
        }));
    }
    let line = key_line.ok_or_else(|| failed("printed no key".to_owned()))?;
    BrainKey::parse(line).map_err(|e| failed(format!("printed something else than a key: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        shell_words::split(text).unwrap()
    }

    fn acme() -> CustomerId {
        "cust_acme".parse().unwrap()
    }

    #[test]
    fn id_and_label_are_added_unless_the_command_places_them() {
        assert_eq!(
            argv(&words("node bin/mint-key.js"), &acme(), "a label"),
            ["node", "bin/mint-key.js", "cust_acme", "a label"]
        );
        assert_eq!(
            argv(
                &words("ssh brain mint '--for={customer}'"),
                &acme(),
                "a label"
            ),
            ["ssh", "brain", "mint", "--for=cust_acme"]
        );
    }

    async fn mint(script: &str) -> Result<String, String> {
        let command = ["bash", "-c", script, "mint"].map(str::to_owned);
        run(&command, &acme(), "label; touch /nowhere")
            .await
            .map(|key| key.expose().to_owned())
            .map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn the_last_line_is_the_key() {
        assert_eq!(
            mint("echo minting for $1; echo m8k_abc; echo")
                .await
                .unwrap(),
            "m8k_abc"
        );
    }

    #[tokio::test]
    async fn failures_are_told_without_the_key() {
        let error = mint("echo m8k_secret_1; echo cannot store m8k_secret_1 >&2; exit 3")
            .await
            .unwrap_err();
        assert!(error.contains("exit code 3: cannot store ****"), "{error}");
        assert!(mint("true").await.unwrap_err().contains("printed no key"));
        let error = mint("echo not a key").await.unwrap_err();
        assert!(error.contains("something else than a key"), "{error}");
        assert!(!error.contains("not a key\n"));
    }

    #[tokio::test]
    async fn the_command_does_not_get_the_operators_credentials() {
        // A variable that is set for the whole test process would race with other tests, so the child is asked what it has.
        let error = run(&["no-such-command-anywhere".to_owned()], &acme(), "label")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot be started"), "{error}");
        assert_eq!(
            mint("echo ${AWS_SECRET_ACCESS_KEY:-none}").await.unwrap(),
            "none"
        );
    }
}
