//! `m8trx logs`

use std::process::Stdio;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::Global;
use super::diagnose::{Subject, find};
use super::onboarding::stdout_failed;
use super::reach::{Via, Way, way};
use super::target::Target;
use crate::aws::Aws;
use crate::aws::ec2::Instance;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{OutputFormat, Terminal, text};

/// How often the console is asked for while it is followed: EC2 writes it down only now and then.
const PACE: Duration = Duration::from_secs(5);
/// The longest line that is shown whole.
const LONGEST: usize = 4000;

/// Show the logs of a customer's host: bootstrap, cloud-init, heartbeat; its console where it cannot be reached.
///
/// They are read by Tailscale SSH or Session Manager, as `m8trx ssh` reaches a host. The console comes from EC2, which has
/// the last 64 KiB of it, also of a host that has ended within the last hour.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The customer id, or an instance id.
    #[arg(value_name = "CUSTOMER|INSTANCE")]
    subject: Subject,
    /// Which log; without it all but the console.
    #[arg(long, value_enum, value_name = "LOG")]
    source: Option<Source>,
    /// Go on with new lines until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// How many lines of each log, the newest.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    lines: u32,
    /// Only this way.
    #[arg(long, value_enum, value_name = "WAY")]
    via: Option<Via>,
}

/// The logs of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// /var/log/m8trx-bootstrap.log
    Bootstrap,
    /// /var/log/cloud-init-output.log
    CloudInit,
    /// journalctl -u m8trx-brain-heartbeat
    Heartbeat,
    /// What EC2 has of the host's console.
    Console,
}

#[derive(Debug, Serialize)]
struct Line<'l> {
    schema: &'static str,
    instance_id: &'l str,
    via: &'static str,
    line: &'l str,
}

/// Where lines go.
struct Writer<'w> {
    instance: &'w str,
    via: &'static str,
    terminal: &'w Terminal,
}

impl Writer<'_> {
    /// Writes a line; says whether somebody still reads.
    fn line(&self, line: &str) -> Result<bool, Failure> {
        // It may come from a host that is not ours any more: nothing in it reaches the terminal as a command.
        let line = text::foreign(line.trim_end_matches('\r'), LONGEST);
        let written = match self.terminal.output {
            OutputFormat::Human => self.terminal.write_on(&format!("{line}\n")),
            OutputFormat::Json => {
                let line = Line {
                    schema: "m8trx.logs/1",
                    instance_id: self.instance,
                    via: self.via,
                    line: &line,
                };
                let json = serde_json::to_string(&line)
                    .map_err(|e| Failure::words(Kind::Other, format!("a line is no JSON: {e}")))?;
                self.terminal.write_on(&format!("{json}\n"))
            }
        };
        written.map_err(stdout_failed)
    }
}

/// Runs the command.
pub async fn run(args: &LogsArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = show(args, &target, terminal).await;
    target.close().await;
    result
}

async fn show(args: &LogsArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let aws = target.aws(terminal).await?;
    let host = find(&aws, &args.subject).await?;
    if args.source != Some(Source::Console) {
        match way(&host, args.via, &aws, &target.settings).await {
            Ok(way) => {
                terminal.say(way.describe());
                if remote(args, &host, &way, terminal).await? {
                    return Ok(());
                }
                terminal.warn(format!("{} did not let us in", host.id));
            }
            // A log that was asked for by name is not on the console.
            Err(failure) if args.via.is_some() => return Err(failure),
            Err(failure) => terminal.warn(failure.causes.join(": ")),
        }
        terminal.say("Its console instead, as EC2 has it:");
    }
    console(args, &aws, &host, terminal).await
}

/// The shell line that shows the logs.
fn remote_line(args: &LogsArgs) -> String {
    const BOOTSTRAP: &str = "/var/log/m8trx-bootstrap.log";
    const CLOUD_INIT: &str = "/var/log/cloud-init-output.log";
    let count = args.lines;
    let journal = format!("journalctl -u m8trx-brain-heartbeat --no-pager -n {count}");
    let line = match (args.source, args.follow) {
        (Some(Source::Bootstrap), false) => format!("tail -n {count} {BOOTSTRAP}"),
        (Some(Source::Bootstrap), true) => format!("tail -n {count} -F {BOOTSTRAP}"),
        (Some(Source::CloudInit), false) => format!("tail -n {count} {CLOUD_INIT}"),
        (Some(Source::CloudInit), true) => format!("tail -n {count} -F {CLOUD_INIT}"),
        (Some(Source::Heartbeat), false) => journal,
        (Some(Source::Heartbeat), true) => format!("{journal} -f"),
        (_, false) => format!("tail -n {count} {CLOUD_INIT} {BOOTSTRAP}; {journal}"),
        (_, true) => format!("{journal} -f & exec tail -n {count} -F {CLOUD_INIT} {BOOTSTRAP}"),
    };
    format!("sudo sh -c {}", shell_words::quote(&line))
}

/// Reads the logs on the host; `false` where it did not let us in.
async fn remote(
    args: &LogsArgs,
    host: &Instance,
    way: &Way,
    terminal: &Terminal,
) -> Result<bool, Failure> {
    let end = terminal.interrupt.watch();
    let command = way.command(&[remote_line(args)]);
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            Failure::words(
                Kind::Other,
                format!("the command that reads them cannot be started: {e}"),
            )
        })?;
    let Some(stdout) = child.stdout.take() else {
        return Ok(false);
    };
    let writer = Writer {
        instance: &host.id,
        via: way.word(),
        terminal,
    };
    let mut lines = BufReader::new(stdout).split(b'\n');
    let mut came = false;
    loop {
        let line = tokio::select! {
            () = end.requested() => return Ok(true),
            line = lines.next_segment() => line,
        };
        match line {
            Ok(Some(line)) => {
                came = true;
                if !writer.line(&String::from_utf8_lossy(&line))? {
                    return Ok(true);
                }
            }
            Ok(None) => break,
            Err(e) => {
                return Err(Failure::words(
                    Kind::Other,
                    format!("the log cannot be read: {e}"),
                ));
            }
        }
    }
    let ended = child.wait().await.map_err(|e| {
        Failure::words(
            Kind::Other,
            format!("the command that reads them could not be waited for: {e}"),
        )
    })?;
    Ok(came || ended.success())
}

async fn console(
    args: &LogsArgs,
    aws: &Aws,
    host: &Instance,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let end = terminal.interrupt.watch();
    let writer = Writer {
        instance: &host.id,
        via: "console",
        terminal,
    };
    let mut shown: Vec<String> = Vec::new();
    loop {
        let console = aws.console_output(&host.id).await?;
        let console = String::from_utf8_lossy(&console).into_owned();
        let mut lines: Vec<String> = console.lines().map(str::to_owned).collect();
        // A line that is still being written is shown when it is whole.
        if args.follow && !console.ends_with('\n') {
            lines.pop();
        }
        let fresh = if shown.is_empty() {
            lines.len().saturating_sub(args.lines as usize)
        } else {
            known(&shown, &lines)
        };
        for line in &lines[fresh..] {
            if !writer.line(line)? {
                return Ok(());
            }
        }
        if !args.follow {
            if lines.is_empty() {
                terminal.say(format!(
                    "EC2 has no console of {} yet; it comes a minute or two after the launch",
                    host.id
                ));
            }
            return Ok(());
        }
        if !lines.is_empty() {
            shown = lines;
        }
        tokio::select! {
            () = end.requested() => return Ok(()),
            () = tokio::time::sleep(PACE) => {}
        }
        if terminal.reader_has_gone() {
            return Ok(());
        }
    }
}

/// How many of the lines were shown already: EC2 drops the oldest, so the end of what was shown is looked for.
fn known(shown: &[String], lines: &[String]) -> usize {
    if lines.len() >= shown.len() && lines[..shown.len()] == *shown {
        return shown.len();
    }
    (1..=lines.len())
        .rev()
        .find(|end| {
            let overlap = (*end).min(shown.len()).min(8);
            lines[end - overlap..*end] == shown[shown.len() - overlap..]
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_shown_is_not_shown_again_also_when_the_oldest_lines_are_dropped() {
        let shown = lines("a b c d e f g h i j");
        assert_eq!(known(&shown, &lines("a b c d e f g h i j")), 10);
        assert_eq!(known(&shown, &lines("a b c d e f g h i j k l")), 10);
        assert_eq!(known(&shown, &lines("c d e f g h i j k l")), 8);
        assert_eq!(known(&shown, &lines("x y z")), 0);
    }
}
