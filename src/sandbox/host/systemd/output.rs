//! What services write: from their pipes into the journal, and to the console where they ask for it.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;

use super::journal::{INFO, split_priority};
use super::manager::Manager;
use super::unit::Unit;

/// Longer lines are split, as journald does (`LineMax=`).
const LONGEST_LINE: usize = 48 * 1024;

/// What a service writes, on its way into the journal.
#[derive(Debug)]
pub(super) struct Output {
    pub pipe: PipeReader,
    pub unit: String,
    pub identifier: String,
    pub pid: i32,
    /// `journal+console`.
    pub console: bool,
    pub prefixes: bool,
    pub rest: Vec<u8>,
}

impl Manager {
    /// Descriptors with output to read.
    pub fn output_pipes(&self) -> impl Iterator<Item = &PipeReader> {
        self.outputs.iter().map(|output| &output.pipe)
    }

    /// Reads what services have written.
    pub fn read_outputs(&mut self) {
        self.drain(|_| true);
    }

    pub(super) fn drain_outputs(&mut self, unit: &str) {
        self.drain(|output| output.unit == unit);
    }

    fn drain(&mut self, wanted: impl Fn(&Output) -> bool) {
        for mut output in std::mem::take(&mut self.outputs) {
            let open = !wanted(&output) || self.read_output(&mut output);
            if open {
                self.outputs.push(output);
            } else if !output.rest.is_empty() {
                let rest = std::mem::take(&mut output.rest);
                self.journal_line(&output, &rest);
            }
        }
    }

    /// Reads all there is; `false` at the end of the file.
    fn read_output(&mut self, output: &mut Output) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match output.pipe.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => output.rest.extend(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            while let Some(end) = output
                .rest
                .iter()
                .position(|byte| *byte == b'\n')
                .or((output.rest.len() > LONGEST_LINE).then_some(LONGEST_LINE))
            {
                let mut line: Vec<u8> = output.rest.drain(..=end).collect();
                line.pop_if(|byte| *byte == b'\n');
                self.journal_line(output, &line);
            }
        }
    }

    fn journal_line(&mut self, output: &Output, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let (priority, text) = if output.prefixes {
            split_priority(&text, INFO)
        } else {
            (INFO, &*text)
        };
        self.journal.add(
            Some(&output.unit),
            &output.identifier,
            output.pid,
            priority,
            text,
        );
        if output.console {
            let line = format!(
                "{} {}[{}]: {text}",
                self.uptime(),
                output.identifier,
                output.pid
            );
            self.show(&line);
        }
    }
}

pub(super) type Streams = ((OwnedFd, OwnedFd), Vec<(PipeReader, bool)>);

/// Where standard output and error go, with the pipes that lead to the journal.
pub(super) fn outputs(unit: &Unit) -> io::Result<Streams> {
    let mut pipes = Vec::new();
    let setting = |key: &str| unit.last("Service", key).unwrap_or("inherit").to_owned();
    let mut open = |setting: &str| -> io::Result<OwnedFd> {
        if let Some((how, path)) = setting.split_once(':')
            && path.starts_with('/')
        {
            let mut options = File::options();
            options
                .create(true)
                .write(true)
                .append(how == "append")
                .truncate(how == "truncate");
            return Ok(options.open(path)?.into());
        }
        if setting == "null" {
            return Ok(File::options().write(true).open("/dev/null")?.into());
        }
        let (read, write) = io::pipe()?;
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        pipes.push((
            read,
            matches!(setting, "journal+console" | "tty" | "kmsg+console"),
        ));
        Ok(write.into())
    };
    let stdout = setting("StandardOutput");
    let stderr = setting("StandardError");
    let out = open(&stdout)?;
    // Inheriting keeps the two in order, as one stream.
    let err = if stderr == "inherit" || stderr == stdout {
        out.try_clone()?
    } else {
        open(&stderr)?
    };
    Ok(((out, err), pipes))
}
