//! The one place that decides where commands go: to the real world, or to an embedded sandbox.

use std::time::Duration;

#[cfg(target_os = "linux")]
use m8trx_sandbox::{Fault, Sandbox, SandboxOptions};

use super::Global;
use crate::aws::Aws;
use crate::config::{Flags, Settings};
use crate::customer::CustomerId;
use crate::home;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// After so long without an answer, what is waited for is said.
const LONG: Duration = Duration::from_secs(4);

/// Settings, and the sandbox they point at, if any. The sandbox ends with it.
pub struct Target {
    /// The settings.
    pub settings: Settings,
    #[cfg(target_os = "linux")]
    sandbox: Option<Sandbox>,
}

impl Target {
    /// Resolves the settings; starts a sandbox first where one is asked for.
    ///
    /// # Errors
    /// Settings that cannot be used, and a sandbox where there can be none.
    #[cfg_attr(not(target_os = "linux"), expect(unused_variables))]
    pub async fn open(
        global: &Global,
        flags: &Flags,
        terminal: &Terminal,
    ) -> Result<Self, Failure> {
        if !global.sandbox {
            let settings = Settings::resolve(flags, &|name| std::env::var(name).ok())?;
            return Ok(Self {
                settings,
                #[cfg(target_os = "linux")]
                sandbox: None,
            });
        }
        #[cfg(target_os = "linux")]
        return Self::of_sandbox(with_faults(&global.faults, terminal), flags, terminal).await;
        #[cfg(not(target_os = "linux"))]
        Err(Failure::words(
            Kind::Precondition,
            "the sandbox makes hosts of Linux namespaces, and this is not Linux",
        )
        .hint("run it on a Linux machine or in a Linux container"))
    }

    /// A sandbox that behaves so.
    #[cfg(target_os = "linux")]
    pub async fn of_sandbox(
        options: SandboxOptions,
        flags: &Flags,
        terminal: &Terminal,
    ) -> Result<Self, Failure> {
        let sandbox = start_sandbox(options).await?;
        let environment = sandbox.environment();
        let settings = Settings::of_sandbox(flags, &|name| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.clone())
        })?;
        terminal.say(
            "Sandbox: AWS, brain, tailnet and host are embedded; nothing leaves this machine.",
        );
        Ok(Self {
            settings,
            sandbox: Some(sandbox),
        })
    }

    /// Whether this is the sandbox.
    pub fn is_sandbox(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.sandbox.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// The sandbox, if this is one.
    #[cfg(target_os = "linux")]
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    /// Connects to AWS and says as whom.
    pub async fn aws(&self, terminal: &Terminal) -> Result<Aws, Failure> {
        let connect = Aws::connect(&self.settings.aws);
        tokio::pin!(connect);
        let aws = tokio::select! {
            aws = &mut connect => aws,
            () = tokio::time::sleep(LONG) => {
                terminal.say("Waiting for AWS credentials: what gives them may be waiting for you (a browser, a push message, a security key)");
                connect.await
            }
        }?;
        if let Some(note) = self.settings.aws.note() {
            terminal.say(note);
        }
        terminal.say(format!(
            "AWS account {}, region {}, as {}",
            aws.account, aws.region, aws.identity
        ));
        Ok(aws)
    }

    /// [`Self::aws`] for a command that changes something of a customer: refused where the customer lives elsewhere.
    pub async fn aws_of(&self, customer: &CustomerId, terminal: &Terminal) -> Result<Aws, Failure> {
        let aws = self.aws(terminal).await?;
        home::check(&aws, customer).await?;
        Ok(aws)
    }

    /// Ends the sandbox, if there is one, and everything in it.
    pub async fn close(self) {
        #[cfg(target_os = "linux")]
        if let Some(sandbox) = self.sandbox {
            sandbox.stop().await;
        }
    }
}

#[cfg(target_os = "linux")]
/// A sandbox with these faults. Nobody wants to sit through a bootstrap that tries again for minutes.
pub fn with_faults(faults: &[Fault], terminal: &Terminal) -> SandboxOptions {
    if !faults.is_empty() {
        let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
        terminal.say(format!(
            "Faults: {}. The pauses of the host's bootstrap pass at once.",
            names.join(", ")
        ));
    }
    SandboxOptions {
        faults: faults.to_vec(),
        pauses_pass: !faults.is_empty(),
        ..SandboxOptions::default()
    }
}

#[cfg(target_os = "linux")]
/// Starts a sandbox in this process.
pub async fn start_sandbox(options: SandboxOptions) -> Result<Sandbox, Failure> {
    Sandbox::start(options)
        .await
        .map_err(|e| Failure::new(Kind::Precondition, &e).within("the sandbox cannot be started"))
}
