//! `m8trx --version`

use std::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::onboarding::stdout_failed;
use crate::artifacts;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

#[derive(Debug, Serialize)]
struct Version {
    schema: &'static str,
    version: &'static str,
    /// Set by whoever builds a release.
    commit: Option<&'static str>,
    /// What runs on hosts, by its SHA-256.
    artefacts: Vec<Artefact>,
    #[serde(skip)]
    verbose: bool,
}

#[derive(Debug, Serialize)]
struct Artefact {
    name: &'static str,
    sha256: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m8trx {}", self.version)?;
        if !self.verbose {
            return Ok(());
        }
        write!(
            f,
            "\ncommit {}",
            self.commit
                .unwrap_or("unknown: not built by the release script")
        )?;
        for artefact in &self.artefacts {
            write!(f, "\nsha256 {}  {}", artefact.sha256, artefact.name)?;
        }
        Ok(())
    }
}

/// Prints it.
pub(super) fn run(verbose: bool, terminal: &Terminal) -> Result<(), Failure> {
    let digest = |(name, text): (&'static str, &str)| {
        let digest = Sha256::digest(text.as_bytes());
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Artefact { name, sha256 }
    };
    let version = Version {
        schema: "m8trx.version/1",
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("M8TRX_COMMIT"),
        artefacts: artifacts::ALL.map(digest).into(),
        verbose,
    };
    terminal.result(&version).map_err(stdout_failed)
}
