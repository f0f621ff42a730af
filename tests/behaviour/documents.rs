//! The documents say what the program does: the reference is made from it, and the commands in the other pages are taken.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use m8trx::cli::Cli;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The reference of a command and of those below it, without the options that all have.
fn reference(command: &mut clap::Command, path: &str, text: &mut String) {
    let _ = writeln!(text, "\n## {path}\n");
    let long = command.render_long_help().to_string();
    let own = long.split("\nGlobal options:").next().unwrap_or_default();
    let own: Vec<&str> = own.lines().map(str::trim_end).collect();
    let _ = writeln!(text, "```text\n{}\n```", own.join("\n").trim());
    for below in command.get_subcommands_mut() {
        let path = format!("{path} {}", below.get_name());
        reference(below, &path, text);
    }
}

#[test]
fn the_reference_of_commands_is_the_programs_own() {
    let mut root = Cli::command().term_width(100);
    root.build();
    let root_help = root.render_long_help().to_string();
    let (_, global) = root_help.split_once("\nGlobal options:").unwrap();
    let (global, _) = global.split_once("\nFirst steps:").unwrap();
    let mut text = String::from(
        "# Commands\n\nMade from the program: `M8TRX_WRITE_DOCS=1 tests/run behaviour` writes it anew.\n\n## Options of every command\n\n",
    );
    let global: Vec<&str> = global.lines().map(str::trim_end).collect();
    let _ = writeln!(
        text,
        "```text\n{}\n```",
        global.join("\n").trim_matches('\n')
    );
    reference(&mut root, "m8trx", &mut text);
    let file = docs().join("commands.md");
    if std::env::var_os("M8TRX_WRITE_DOCS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == text,
        "docs/commands.md is not what the program says; M8TRX_WRITE_DOCS=1 writes it anew"
    );
}

/// The commands in the pages' blocks.
fn commands(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block && line.starts_with("m8trx ") {
            let line = line.split(" > ").next().unwrap_or_default();
            found.push(line.split("   #").next().unwrap_or_default().to_owned());
        }
    }
    found
}

#[test]
fn every_command_in_the_documents_is_one() {
    let mut count = 0;
    for page in ["first-time.md", "operating.md", "security.md"] {
        let text = std::fs::read_to_string(docs().join(page)).unwrap();
        for line in commands(&text) {
            let words = shell_words::split(&line).unwrap();
            let taken = Cli::command().try_get_matches_from(&words);
            assert!(taken.is_ok(), "{page}: {line}: {}", taken.unwrap_err());
            count += 1;
        }
        // What is named within the text is a command too.
        for word in text.split("`m8trx ").skip(1) {
            let name = word.split([' ', '`']).next().unwrap();
            assert!(
                Cli::command()
                    .get_subcommands()
                    .any(|command| command.get_name() == name),
                "{page}: there is no `m8trx {name}`"
            );
        }
    }
    assert!(count > 20, "{count}");
}
