//! `m8trx user-data`

use clap::Args;

use crate::artifacts::BOOTSTRAP_SH;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Print the user-data of a customer host, to paste into the EC2 console or to give to Terraform's `file()`.
#[derive(Debug, Args)]
pub struct UserDataArgs {}

/// Prints bootstrap.sh as it is, in either output format: it is a file, not a result.
pub fn run(_args: &UserDataArgs, terminal: &Terminal) -> Result<(), Failure> {
    terminal
        .write(BOOTSTRAP_SH)
        .map_err(|e| Failure::words(Kind::Other, format!("stdout cannot be written to: {e}")))
}
