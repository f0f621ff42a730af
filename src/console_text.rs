//! A console as lines: any bytes, binary, half lines, colours, cut anywhere. Says of each line who wrote it.

use std::time::Duration;

/// The prefix of every line `bootstrap.sh` writes about itself.
pub const PREFIX: &str = "m8trx-bootstrap: ";
/// A longer line is cut: nothing that decides stands behind that many bytes, and a console may be one endless line.
const LONGEST_LINE: usize = 8 * 1024;
/// What a terminal shows of who speaks: systemd's own lines about its units.
const OF_UNITS: [&str; 14] = [
    "[  OK  ]",
    "[FAILED]",
    "OK  ]",
    "[DEPEND]",
    "[ TIME ]",
    "[ INFO ]",
    "[ SKIP ]",
    "[*",
    "[ *",
    "A start job is running",
    "A stop job is running",
    "Starting ",
    "Stopping ",
    "ci-info:",
];

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The bootstrap, about itself.
    Bootstrap,
    /// A command of the bootstrap, or whatever else writes without a name.
    Command,
    /// cloud-init, about itself.
    CloudInit,
    /// The kernel, systemd, another unit.
    System,
}

/// A line of a console, without what was put before it, secrets masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who wrote it.
    pub speaker: Speaker,
    /// What it says; of the bootstrap's own lines, what follows the prefix.
    pub text: String,
    /// The kernel's time, since the boot.
    pub stamp: Option<Duration>,
    /// Whether something stood before it that says who wrote it.
    named: bool,
}

impl Line {
    /// A line that says what was found out elsewhere.
    pub fn fact(text: impl Into<String>) -> Self {
        Self {
            speaker: Speaker::Command,
            text: text.into(),
            stamp: None,
            named: true,
        }
    }

    /// Whether its form is that of a console, whatever it says.
    pub fn is_of_a_console(&self) -> bool {
        const BEGINNINGS: [&str; 8] = [
            "Linux version ",
            "SeaBIOS",
            "GRUB",
            "Booting from ",
            "(initramfs)",
            "systemd[1]: ",
            "[",
            "OK  ]",
        ];
        let is_of_units = self.speaker == Speaker::System && self.text.contains(']');
        self.named
            || matches!(self.speaker, Speaker::Bootstrap | Speaker::CloudInit)
            || (is_of_units || !self.text.starts_with('['))
                && BEGINNINGS.iter().any(|start| self.text.starts_with(start))
            || self.text.ends_with(" login:")
    }

    /// As it is shown.
    pub fn shown(&self) -> String {
        match self.speaker {
            Speaker::Bootstrap => format!("{PREFIX}{}", self.text),
            _ => self.text.clone(),
        }
    }

    fn read(line: &str) -> Self {
        let (mut rest, mut speaker, mut stamp, mut named) = (line.trim(), None, None, false);
        // What follows a prompt for a name is no answer to it.
        let after_prompt = |text: &'_ str| {
            let after = text.split_once(" login: ")?.1.trim_start();
            after.starts_with('[').then(|| text.len() - after.len())
        };
        if let Some(at) = after_prompt(rest) {
            rest = &rest[at..];
        }
        if let Some((who, after)) = journal_prefix(rest) {
            (rest, named) = (after, true);
            speaker = Some(match who {
                "cloud-init" => Speaker::Command,
                _ => Speaker::System,
            });
            if let Some(at) = after_prompt(rest) {
                rest = &rest[at..];
            }
        }
        if let Some((seconds, after)) = kernel_stamp(rest) {
            (rest, stamp, named) = (after.trim_start(), Some(seconds), true);
            speaker = Some(speaker.unwrap_or(Speaker::System));
        }
        if let Some(after) = rest.strip_prefix("cloud-init[")
            && let Some((pid, after)) = after.split_once("]: ")
            && pid.bytes().all(|b| b.is_ascii_digit())
        {
            (rest, speaker, named) = (after, Some(Speaker::Command), true);
        }
        // Where it is quoted, in a script or a document, nobody speaks.
        let is_spoken = |before: &str| !before.contains(['"', '\'', '`', '(', '#']);
        if let Some((_, own)) = rest
            .split_once(PREFIX)
            .filter(|(before, _)| is_spoken(before))
        {
            return Self {
                speaker: Speaker::Bootstrap,
                text: own.trim_end().to_owned(),
                stamp,
                named,
            };
        }
        let rest = rest.trim_end();
        if rest.starts_with("Cloud-init v. ") || is_cloud_inits_log(rest) {
            speaker = Some(Speaker::CloudInit);
        } else if speaker.is_none() && OF_UNITS.iter().any(|start| rest.starts_with(start)) {
            speaker = Some(Speaker::System);
        }
        Self {
            speaker: speaker.unwrap_or(Speaker::Command),
            text: rest.to_owned(),
            stamp,
            named,
        }
    }
}

/// The console's lines, oldest first. A report of failure that a line of the kernel has cut in two is whole again.
pub fn lines(console: &[u8]) -> Vec<Line> {
    if let Some(output) = output_of_aws(console) {
        return lines(output.as_bytes());
    }
    let mut lines: Vec<Line> = Vec::new();
    for text in console_lines(console) {
        let mut rest = text.as_str();
        while !rest.trim().is_empty() {
            let (line, after) = rest.split_at(inner_stamp(rest).unwrap_or(rest.len()));
            rest = after;
            if line.trim().is_empty() {
                continue;
            }
            let line = Line::read(line);
            if let Some(cut) = cut_report(&lines, &line) {
                lines[cut].text.push_str(&line.text);
            } else {
                lines.push(line);
            }
        }
    }
    lines
}

/// The console within what `aws ec2 get-console-output` prints as JSON.
fn output_of_aws(console: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        output: String,
    }
    let begins = console.iter().find(|byte| !byte.is_ascii_whitespace());
    if begins != Some(&b'{') {
        return None;
    }
    let answer: Answer = serde_json::from_slice(console).ok()?;
    Some(answer.output)
}

/// The report of failure that this piece of a line belongs to: the last line but for those of the system between.
fn cut_report(lines: &[Line], piece: &Line) -> Option<usize> {
    if piece.named || piece.speaker != Speaker::Command {
        return None;
    }
    let of_system = |line: &&Line| line.speaker == Speaker::System && line.named;
    let between = lines.iter().rev().take_while(of_system).count();
    let at = lines.len().checked_sub(between + 1)?;
    let report = &lines[at];
    let is_report =
        report.speaker == Speaker::Bootstrap && report.named && report.text.starts_with("FAILED ");
    let goes_on =
        !report.text.contains("reason=") || piece.text.starts_with(|c: char| c.is_lowercase());
    (between > 0 && is_report && goes_on).then_some(at)
}

/// The lines of a console that say something, masked and without control characters, oldest first.
pub fn console_lines(console: &[u8]) -> impl Iterator<Item = String> + '_ {
    console
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .map(|line| &line[..line.len().min(LONGEST_LINE)])
        .map(|line| printable(&String::from_utf8_lossy(line)))
        .filter(|line| !line.trim().is_empty())
        .map(|line| crate::secret::mask(&line, &[]))
}

/// The last lines of a console, for a failure nobody recognises.
pub fn last_lines(console: &[u8], count: usize) -> Vec<String> {
    let lines = lines(console);
    let from = lines.len().saturating_sub(count);
    lines[from..].iter().map(Line::shown).collect()
}

/// The console up to its last line break: what comes after may be half a line that is still being written.
pub fn whole_lines(console: &[u8]) -> &[u8] {
    let end = console.iter().rposition(|byte| *byte == b'\n');
    &console[..end.map_or(0, |end| end + 1)]
}

/// Drops escape sequences (ECMA-48 CSI and OSC) and control characters.
fn printable(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '\u{1b}' {
            if c == '\t' {
                text.push(' ');
            } else if !c.is_control() && c != '\u{fffd}' {
                text.push(c);
            }
            continue;
        }
        match characters.next() {
            Some('[') => {
                for c in characters.by_ref() {
                    if matches!(c, '\u{40}'..='\u{7e}') {
                        break;
                    }
                }
            }
            Some(']') => {
                for c in characters.by_ref() {
                    if c == '\u{7}' || c == '\u{1b}' {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    text
}

/// `[   12.345678] ` at the beginning.
fn kernel_stamp(text: &str) -> Option<(Duration, &str)> {
    let (stamp, after) = text.strip_prefix('[')?.split_once(']')?;
    let stamp = stamp.trim();
    let is_time = stamp.contains('.') && stamp.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = stamp.parse().ok().filter(|_| is_time)?;
    Some((Duration::try_from_secs_f64(seconds).ok()?, after))
}

/// Where another line's time begins within a line: the kernel does not wait for the end of a line.
fn inner_stamp(text: &str) -> Option<usize> {
    let mut from = 1;
    while let Some(at) = text.get(from..)?.find('[').map(|at| at + from) {
        if let Some((_, after)) = kernel_stamp(&text[at..])
            && after.starts_with(' ')
            && text[at..].len() - after.len() >= "[    0.000000]".len()
        {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// `Nov 25 08:02:17 host cloud-init[598]: ` or the same with a time of RFC 3339: who speaks, and what.
fn journal_prefix(text: &str) -> Option<(&str, &str)> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (head, rest) = text.split_once(": ")?;
    let mut words = head.split_whitespace().rev();
    let (who, _host, time) = (words.next()?, words.next()?, words.next()?);
    let is_time = match (words.next(), words.next(), words.next()) {
        (None, ..) => time.as_bytes().get(10) == Some(&b'T') && time.starts_with("20"),
        (Some(day), Some(month), None) => {
            time.contains(':') && day.len() <= 2 && MONTHS.contains(&month)
        }
        _ => false,
    };
    is_time.then(|| (who.split('[').next().unwrap_or(who), rest))
}

/// `2026-11-25 08:04:12,104 - subp.py[WARNING]: `
fn is_cloud_inits_log(text: &str) -> bool {
    let Some((time, rest)) = text.split_once(" - ") else {
        return false;
    };
    time.len() == "2026-11-25 08:04:12,104".len()
        && time.starts_with("20")
        && rest
            .split_once("]: ")
            .is_some_and(|(from, _)| from.contains(".py[") || from.contains("cloud"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> (Speaker, String) {
        let line = Line::read(line);
        (line.speaker, line.text)
    }

    #[test]
    fn who_speaks_is_seen_behind_whatever_stands_before_a_line() {
        use Speaker::{Bootstrap, CloudInit, Command, System};
        for (line, speaker, text) in [
            (
                "[   11.2] cloud-init[612]: m8trx-bootstrap: step 1/7 identity",
                Bootstrap,
                "step 1/7 identity",
            ),
            (
                "m8trx-bootstrap: step 1/7 identity",
                Bootstrap,
                "step 1/7 identity",
            ),
            (
                "Nov 25 08:02:18 ip-10-0-0-7 cloud-init[598]: E: no",
                Command,
                "E: no",
            ),
            (
                "2026-11-25T08:02:18.123456+00:00 ip-10-0-0-7 kernel: Out of memory",
                System,
                "Out of memory",
            ),
            (
                "Nov 25 08:02:18 ip-10-0-0-7 tailscaled[3]: dial tcp: i/o timeout",
                System,
                "dial tcp: i/o timeout",
            ),
            (
                "[   11.200000] EXT4-fs error (device nvme0n1p1)",
                System,
                "EXT4-fs error (device nvme0n1p1)",
            ),
            (
                "[FAILED] Failed to start snapd.service.",
                System,
                "[FAILED] Failed to start snapd.service.",
            ),
            (
                "E: Unable to locate package awscli",
                Command,
                "E: Unable to locate package awscli",
            ),
            (
                "ip-10-0-0-7 login: [    8.9] cloud-init[598]: Cloud-init v. 24.4 running 'modules:final'",
                CloudInit,
                "Cloud-init v. 24.4 running 'modules:final'",
            ),
            (
                "[   50.2] cloud-init[598]: 2026-11-25 08:04:12,104 - subp.py[WARNING]: Failed",
                CloudInit,
                "2026-11-25 08:04:12,104 - subp.py[WARNING]: Failed",
            ),
        ] {
            assert_eq!(read(line), (speaker, text.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_report_that_the_kernel_has_cut_in_two_is_whole_again() {
        let whole = "FAILED step=3 name=tailscale line=1 exit=1 reason=tailscale up failed: no";
        for console in [
            "[ 22.06] cloud-init[5]: m8trx-bootstrap: FAILED step=3 name=tailscale line=1 exit=1 rea\n[   45.212377] IPv6: link\nson=tailscale up failed: no\n",
            "[ 22.06] cloud-init[5]: m8trx-bootstrap: FAILED step=3 name=tailscale line=1 exit=1 reason=tailsc[   45.212377] IPv6: link\nale up failed: no\nUbuntu 22.04 LTS x ttyS0\n",
        ] {
            let lines = lines(console.as_bytes());
            assert_eq!(lines[0].text, whole);
            assert_eq!(lines[1].text, "IPv6: link");
        }
    }

    #[test]
    fn what_aws_prints_as_json_is_read_too() {
        let answer =
            r#"{"InstanceId": "i-0abc", "Output": "[ 1.0] one\r\n[ 2.0] cloud-init[5]: two\r\n"}"#;
        let texts: Vec<String> = lines(answer.as_bytes()).iter().map(Line::shown).collect();
        assert_eq!(texts, ["one", "two"]);
    }

    #[test]
    fn half_a_line_is_left_for_later() {
        assert_eq!(whole_lines(b"one\nm8trx-bootstrap: FAI"), b"one\n");
        assert_eq!(whole_lines(b"half"), b"");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            for line in lines(&bytes) {
                prop_assert!(!line.text.chars().any(char::is_control));
            }
        }
    }
}
