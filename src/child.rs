//! Running the operator's own commands: the brain's mint command, `tailscale`.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// A command did not come to its own end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("cannot be started: {0}")]
    NotStarted(#[source] io::Error),
    #[error("did not end within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("could not be waited for: {0}")]
    NotWaitedFor(#[source] io::Error),
}

/// Runs a program without a shell, without standard input and without the operator's AWS credentials, which it does not
/// need. It is ended when it takes longer than `timeout`.
pub(crate) async fn run(
    program: &str,
    arguments: &[impl AsRef<str>],
    timeout: Duration,
) -> Result<Output, ChildError> {
    let child = Command::new(program)
        .args(arguments.iter().map(AsRef::as_ref))
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env_remove("AWS_SESSION_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ChildError::NotStarted)?;
    tokio::time::timeout(timeout, child.wait_with_output())
        .await
        .map_err(|_| ChildError::TimedOut(timeout))?
        .map_err(ChildError::NotWaitedFor)
}
