//! Running the operator's own commands: the brain's mint command, `tailscale`.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// More than any key or status needs.
const MOST_OUTPUT: u64 = 4 * 1024 * 1024;

/// A command did not come to its own end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("cannot be started: {0}")]
    NotStarted(#[source] io::Error),
    #[error("did not end within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("printed more than {} KiB", MOST_OUTPUT / 1024)]
    TooMuch,
    #[error("could not be waited for: {0}")]
    NotWaitedFor(#[source] io::Error),
}

/// What the operator's own command has no use for: credentials, and where secrets are kept.
const NOT_FOR_CHILDREN: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

fn is_secret(variable: &str) -> bool {
    NOT_FOR_CHILDREN.contains(&variable)
        || (variable.starts_with("M8TRX_") && variable.ends_with("_FILE"))
}

/// Runs a program without a shell, without standard input and without the operator's credentials, which it does not
/// need. It is ended when it takes longer than `timeout`, or prints more than a key or a status needs.
pub(crate) async fn run(
    program: &str,
    arguments: &[impl AsRef<str>],
    timeout: Duration,
) -> Result<Output, ChildError> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_secret) {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(arguments.iter().map(AsRef::as_ref))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ChildError::NotStarted)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let (stdout, stderr) = tokio::try_join!(all_of(stdout), all_of(stderr))?;
        let status = child.wait().await.map_err(ChildError::NotWaitedFor)?;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    };
    tokio::time::timeout(timeout, ended)
        .await
        .map_err(|_| ChildError::TimedOut(timeout))?
}

/// Everything a pipe gives, up to the most that is taken.
async fn all_of(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, ChildError> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let read = pipe.take(MOST_OUTPUT + 1).read_to_end(&mut bytes).await;
        let read = read.map_err(ChildError::NotWaitedFor)? as u64;
        if read > MOST_OUTPUT {
            return Err(ChildError::TooMuch);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_prints_for_ever_is_ended() {
        let began = std::time::Instant::now();
        let ended = run("yes", &["too much"], Duration::from_secs(60)).await;
        assert!(matches!(ended, Err(ChildError::TooMuch)), "{ended:?}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_a_child_does_not_get() {
        for secret in ["AWS_SESSION_TOKEN", "M8TRX_BRAIN_ADMIN_TOKEN_FILE"] {
            assert!(is_secret(secret), "{secret}");
        }
        for plain in ["PATH", "AWS_REGION", "M8TRX_BRAIN_URL"] {
            assert!(!is_secret(plain), "{plain}");
        }
    }
}
