//! Commands of services: their lines, their environment, and starting them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, umask};

use super::protection::Protection;
use super::unit::Unit;
use crate::host::namespace::drop_dangerous_capabilities;

/// The search path that systemd gives services and looks programs up in.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Added to an error number that comes from the private mounts and not from executing the program: only a number comes back
/// from the forked child.
const FROM_NAMESPACE: i32 = 1 << 20;

/// One `Exec…=` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub words: Vec<String>,
    /// `-`: a failure does not count.
    pub ignore_failure: bool,
    /// `@`: the second word is what the program is called.
    called: bool,
    /// `:`: variables are left alone.
    literal: bool,
}

impl Line {
    pub fn parse(text: &str) -> Option<Line> {
        let words = text.trim_start_matches(['-', '@', ':', '+', '!']);
        let prefix = &text[..text.len() - words.len()];
        let words = split(words)?;
        (!words.is_empty()).then(|| Line {
            words,
            ignore_failure: prefix.contains('-'),
            called: prefix.contains('@'),
            literal: prefix.contains(':'),
        })
    }

    /// The program's path: as given, or found along the fixed path.
    pub fn program(&self) -> Option<String> {
        let name = self.words.first()?;
        if name.starts_with('/') {
            return Some(name.clone());
        }
        let candidates = PATH.split(':').map(|folder| format!("{folder}/{name}"));
        candidates.into_iter().find(|path| executable(path))
    }

    fn arguments(&self, environment: &BTreeMap<String, String>) -> Vec<String> {
        let skipped = if self.called { 2 } else { 1 };
        let words = self.words.iter().skip(skipped);
        if self.literal {
            return words.cloned().collect();
        }
        words.flat_map(|word| expand(word, environment)).collect()
    }
}

fn executable(path: &str) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Splits a line into words with systemd's quotes and escapes; `None` for an unbalanced quote.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => {
                let escaped = match characters.next()? {
                    'n' => '\n',
                    't' => '\t',
                    's' => ' ',
                    other => other,
                };
                word.get_or_insert_default().push(escaped);
            }
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// `$A` as a whole word becomes several words; `${A}` stays inside its word; `$$` is a dollar sign.
fn expand(word: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    let value = |name: &str| environment.get(name).cloned().unwrap_or_default();
    if let Some(name) = word.strip_prefix('$')
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return value(name).split_whitespace().map(str::to_owned).collect();
    }
    let mut expanded = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        {
            expanded.push_str(&value(name));
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    vec![expanded]
}

/// The environment systemd gives a service. The error names a file that could not be read.
pub(super) fn environment(
    unit: &Unit,
    invocation: &str,
) -> Result<BTreeMap<String, String>, String> {
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("INVOCATION_ID".to_owned(), invocation.to_owned()),
    ]);
    let pair = |text: &str| {
        text.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    for value in unit.all("Service", "Environment") {
        environment.extend(
            split(value)
                .unwrap_or_default()
                .iter()
                .filter_map(|word| pair(word)),
        );
    }
    for value in unit.all("Service", "EnvironmentFile") {
        let (path, optional) = value
            .strip_prefix('-')
            .map_or((value, false), |path| (path, true));
        match fs::read_to_string(path) {
            Ok(text) => environment.extend(read_environment(&text)),
            Err(_) if optional => {}
            Err(error) => {
                let code = io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(5));
                let text = code.to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                return Err(format!("Failed to load environment files: {text}"));
            }
        }
    }
    Ok(environment)
}

/// Lines `NAME=value`, with quotes, of an environment file.
fn read_environment(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some((name, value)) = line.split_once('=') {
            let value = value.trim();
            let quoted =
                |mark: char| value.len() > 1 && value.starts_with(mark) && value.ends_with(mark);
            let value = if quoted('"') || quoted('\'') {
                &value[1..value.len() - 1]
            } else {
                value
            };
            pairs.push((name.trim().to_owned(), value.to_owned()));
        }
    }
    pairs
}

/// Why a command did not start, with the status that systemd gives the service for it.
#[derive(Debug)]
pub(super) struct SpawnError {
    /// `203/EXEC` or `226/NAMESPACE`.
    pub status: i32,
    pub messages: Vec<String>,
}

/// Starts one command of a service in a session of its own; its output goes to `stdout` and `stderr`.
pub(super) fn spawn(
    unit: &Unit,
    line: &Line,
    environment: &BTreeMap<String, String>,
    (stdout, stderr): (OwnedFd, OwnedFd),
) -> Result<i32, SpawnError> {
    let name = line.words.first().map_or("", String::as_str);
    let failed = |status: i32, step: &str, error: &io::Error, what: &str| {
        let text = error.to_string();
        let text = text
            .split(" (os error")
            .next()
            .unwrap_or_default()
            .to_owned();
        SpawnError {
            status,
            messages: vec![
                format!("{}: Failed to {what}: {text}", unit.name),
                format!(
                    "{}: Failed at step {step} spawning {name}: {text}",
                    unit.name
                ),
            ],
        }
    };
    let missing = || io::Error::from_raw_os_error(nix::libc::ENOENT);
    let locate = format!("locate executable {name}");
    let Some(program) = line.program() else {
        return Err(failed(203, "EXEC", &missing(), &locate));
    };
    if !Path::new(&program).exists() {
        return Err(failed(203, "EXEC", &missing(), &locate));
    }
    let protection = Protection::of(unit);
    let mask = unit
        .last("Service", "UMask")
        .and_then(|mask| u32::from_str_radix(mask, 8).ok())
        .unwrap_or(0o022);
    let folder = unit.last("Service", "WorkingDirectory").unwrap_or("/");
    let (folder, folder_optional) = folder
        .strip_prefix('-')
        .map_or((folder, false), |folder| (folder, true));
    let folder = if folder == "~" { "/root" } else { folder };
    if !Path::new(folder).is_dir() && !folder_optional {
        let error = io::Error::from_raw_os_error(nix::libc::ENOENT);
        let mut failure = failed(200, "CHDIR", &error, "");
        failure.messages[0] = format!(
            "{}: Changing to the requested working directory failed: No such file or directory",
            unit.name
        );
        return Err(failure);
    }
    let mut command = Command::new(&program);
    if line.called {
        command.arg0(line.words.get(1).unwrap_or(&program));
    }
    command
        .args(line.arguments(environment))
        .env_clear()
        .envs(environment)
        .current_dir(if Path::new(folder).is_dir() {
            folder
        } else {
            "/"
        })
        .stdin(Stdio::null())
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    // SAFETY: process 1 has one thread, so the forked child may allocate and make system calls as usual.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            umask(Mode::from_bits_truncate(mask));
            protection.apply().map_err(|error| {
                io::Error::from_raw_os_error(
                    error.raw_os_error().unwrap_or(nix::libc::EIO) + FROM_NAMESPACE,
                )
            })?;
            drop_dangerous_capabilities()
        });
    }
    match command.spawn() {
        Ok(child) => Ok(i32::try_from(child.id()).expect("a process id")),
        Err(error) => Err(match error.raw_os_error() {
            Some(number) if number >= FROM_NAMESPACE => {
                let error = io::Error::from_raw_os_error(number - FROM_NAMESPACE);
                failed(226, "NAMESPACE", &error, "set up mount namespacing")
            }
            _ => failed(203, "EXEC", &error, &format!("execute {program}")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_expands_like_systemd() {
        let line = Line::parse(r#"-/bin/sh -c "echo \"$A\" ${A}$$" $A ${A} 'x y'"#).unwrap();
        assert!(line.ignore_failure);
        let environment = BTreeMap::from([("A".to_owned(), "1 2".to_owned())]);
        assert_eq!(
            line.arguments(&environment),
            ["-c", "echo \"$A\" 1 2$", "1", "2", "1 2", "x y"]
        );
        assert_eq!(Line::parse("/bin/sh \"unbalanced"), None);
        assert_eq!(Line::parse(""), None);
        assert!(
            Line::parse("sh")
                .unwrap()
                .program()
                .is_some_and(|path| path.ends_with("/sh"))
        );
    }

    #[test]
    fn reads_environment_files() {
        let pairs = read_environment("# c\nBRAIN_URL=http://x\nQ=\"a b\"\n\nbroken\nS='$x'\n");
        let expected = [("BRAIN_URL", "http://x"), ("Q", "a b"), ("S", "$x")];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
