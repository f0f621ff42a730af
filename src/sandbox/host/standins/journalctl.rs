//! `journalctl`: reads the journal that process 1 writes.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::{err, out};
use crate::host::systemd::journal::{self, Entry};

#[derive(Debug, PartialEq, Eq)]
struct Options {
    units: Vec<String>,
    identifiers: Vec<String>,
    lines: Option<usize>,
    output: String,
    priority: u8,
    follow: bool,
    reverse: bool,
    quiet: bool,
    pattern: Option<String>,
}

fn priority(text: &str) -> Option<u8> {
    let names = [
        "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
    ];
    let number = names
        .iter()
        .position(|name| *name == text)
        .or_else(|| text.parse().ok().filter(|number| *number < 8));
    number.and_then(|number| u8::try_from(number).ok())
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        units: Vec::new(),
        identifiers: Vec::new(),
        lines: None,
        output: "short".to_owned(),
        priority: 7,
        follow: false,
        reverse: false,
        quiet: false,
        pattern: None,
    };
    // Letters may be joined (`-xeu unit`), and a value may follow its letter directly (`-n20`).
    let mut words: Vec<String> = Vec::new();
    for argument in arguments {
        match argument
            .strip_prefix('-')
            .filter(|rest| !rest.starts_with('-') && rest.len() > 1)
        {
            Some(letters) => {
                let at = letters
                    .find(['u', 'n', 'o', 'p', 't', 'g', 'S', 'U'])
                    .unwrap_or(letters.len() - 1);
                words.extend(letters[..=at].chars().map(|letter| format!("-{letter}")));
                if at + 1 < letters.len() {
                    words.push(letters[at + 1..].to_owned());
                }
            }
            None => words.push(argument.clone()),
        }
    }
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => {
                (name.to_owned(), Some(value.to_owned()))
            }
            _ => (word, None),
        };
        let mut value = || inline.clone().or_else(|| words.next()).unwrap_or_default();
        match name.as_str() {
            "-u" | "--unit" => {
                let unit = value();
                options.units.push(if unit.contains('.') {
                    unit
                } else {
                    format!("{unit}.service")
                });
            }
            "-t" | "--identifier" => options.identifiers.push(value()),
            "-n" | "--lines" => {
                let lines = value();
                options.lines = if lines == "all" {
                    None
                } else {
                    Some(
                        lines
                            .parse()
                            .map_err(|_| format!("Failed to parse lines '{lines}'"))?,
                    )
                };
            }
            "-o" | "--output" => {
                options.output = value();
                if ![
                    "short",
                    "short-iso",
                    "short-precise",
                    "short-full",
                    "cat",
                    "json",
                ]
                .contains(&options.output.as_str())
                {
                    return Err(format!("Unknown output format '{}'.", options.output));
                }
            }
            "-p" | "--priority" => {
                let text = value();
                options.priority = priority(&text).ok_or(format!("Unknown log level {text}"))?;
            }
            "-g" | "--grep" => options.pattern = Some(value()),
            "-f" | "--follow" => options.follow = true,
            "-r" | "--reverse" => options.reverse = true,
            "-q" | "--quiet" => options.quiet = true,
            "-e" | "--pager-end" => options.lines = options.lines.or(Some(1000)),
            "-b" | "--boot" => {
                // The only boot there is may be named.
                words.next_if(|word| word == "0" || word == "-0");
            }
            "--no-pager" | "-x" | "--catalog" | "-a" | "--all" | "-l" | "--full"
            | "--no-hostname" | "--utc" | "--sync" | "--flush" | "--system" => {}
            _ if name.starts_with("_SYSTEMD_UNIT=") => options
                .units
                .push(name["_SYSTEMD_UNIT=".len()..].to_owned()),
            "--since" | "-S" | "--until" | "-U" | "-k" | "--vacuum-time" => {
                return Err(format!("journalctl: {name} is not in the sandbox"));
            }
            _ => return Err(format!("journalctl: unrecognized option '{name}'")),
        }
    }
    Ok(options)
}

impl Options {
    fn wants(&self, entry: &Entry) -> bool {
        let unit = self.units.is_empty()
            || entry
                .unit
                .as_ref()
                .is_some_and(|unit| self.units.contains(unit));
        let identifier =
            self.identifiers.is_empty() || self.identifiers.contains(&entry.identifier);
        let pattern = self
            .pattern
            .as_ref()
            .is_none_or(|pattern| entry.message.contains(pattern.as_str()));
        unit && identifier && pattern && entry.priority <= self.priority
    }

    fn show(&self, entry: &Entry) {
        out(match self.output.as_str() {
            "cat" => entry.message.clone(),
            "json" => serde_json::json!({
                "__REALTIME_TIMESTAMP": entry.time.as_microsecond().to_string(),
                "MESSAGE": entry.message,
                "PRIORITY": entry.priority.to_string(),
                "SYSLOG_IDENTIFIER": entry.identifier,
                "_PID": entry.pid.to_string(),
                "_SYSTEMD_UNIT": entry.unit,
            })
            .to_string(),
            "short" => short(entry),
            other => line(
                entry,
                if other == "short-full" {
                    "%a %Y-%m-%d %H:%M:%S UTC"
                } else {
                    "%Y-%m-%dT%H:%M:%S%z"
                },
            ),
        });
    }
}

/// A line as `journalctl` shows it by default.
pub(super) fn short(entry: &Entry) -> String {
    line(entry, "%b %d %H:%M:%S")
}

fn line(entry: &Entry, format: &str) -> String {
    let time = entry
        .time
        .to_zoned_datetime(TimeZone::UTC)
        .strftime(format)
        .to_string();
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!(
        "{time} {} {}[{}]: {}",
        host.to_string_lossy(),
        entry.identifier,
        entry.pid,
        entry.message
    )
}

/// Runs `journalctl`.
pub(super) fn run(arguments: &[String]) -> i32 {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(text) => {
            err(text);
            return 1;
        }
    };
    let mut seen = 0;
    loop {
        let entries = match journal::read(Path::new(journal::PATH)) {
            Ok(entries) => entries,
            Err(error) => {
                err(format!("Failed to open the journal: {error}"));
                return 1;
            }
        };
        let mut wanted: Vec<_> = entries
            .iter()
            .skip(seen)
            .filter(|entry| options.wants(entry))
            .collect();
        if seen == 0 {
            let lines = options
                .lines
                .or(options.follow.then_some(10))
                .unwrap_or(usize::MAX);
            wanted.drain(..wanted.len().saturating_sub(lines));
            if options.reverse {
                wanted.reverse();
            }
            if wanted.is_empty() && !options.quiet && !options.follow && options.output != "cat" {
                out("-- No entries --");
            }
        }
        for entry in wanted {
            options.show(entry);
        }
        if !options.follow {
            return 0;
        }
        seen = entries.len();
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_joined_letters_and_values() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let options = parse(&words(
            "-xeu m8trx-brain-heartbeat --no-pager -n20 -o cat -p err -b 0",
        ))
        .unwrap();
        assert_eq!(options.units, ["m8trx-brain-heartbeat.service"]);
        assert_eq!(options.lines, Some(20));
        assert_eq!(options.output, "cat");
        assert_eq!(options.priority, 3);
        assert_eq!(
            parse(&words("-o nonsense")).unwrap_err(),
            "Unknown output format 'nonsense'."
        );
        assert_eq!(
            parse(&words("--frob")).unwrap_err(),
            "journalctl: unrecognized option '--frob'"
        );
    }
}
