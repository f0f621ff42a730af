//! `m8trx completions` and `m8trx man`: made from the same description as the help.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::onboarding::stdout_failed;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Print completions for a shell.
///
/// bash: m8trx completions bash > ~/.local/share/bash-completion/completions/m8trx
/// zsh: m8trx completions zsh > ~/.zfunc/_m8trx (with ~/.zfunc in fpath, before compinit)
/// fish: m8trx completions fish > ~/.config/fish/completions/m8trx.fish
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the man page, or write the pages of all commands.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write every page into this directory: ~/.local/share/man/man1, for one.
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

/// Prints completions.
pub fn completions(args: &CompletionsArgs, terminal: &Terminal) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "m8trx", &mut text);
    terminal
        .write(&String::from_utf8_lossy(&text))
        .map_err(stdout_failed)
}

/// Prints or writes man pages.
pub fn man(args: &ManArgs, terminal: &Terminal) -> Result<(), Failure> {
    let Some(directory) = &args.dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut text)
            .map_err(stdout_failed)?;
        return terminal
            .write(&String::from_utf8_lossy(&text))
            .map_err(stdout_failed);
    };
    let failed = |e: std::io::Error| {
        Failure::words(
            Kind::Precondition,
            format!(
                "the pages cannot be written to {}: {e}",
                directory.display()
            ),
        )
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    terminal.say(format!("The pages are in {}", directory.display()));
    Ok(())
}
