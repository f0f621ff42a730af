//! The `m8trx` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    // The processes of a sandbox host are this program too; they must be single-threaded, so this comes before
    // anything else.
    if let Some(code) = m8trx_sandbox::host::run_if_reexecuted() {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    m8trx::cli::main()
}
