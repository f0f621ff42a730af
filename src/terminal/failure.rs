//! Errors as people and scripts see them: what happened, why, what to do, and an exit code.

use std::error::Error as StdError;

use serde::Serialize;

use super::text::{one_line, visible_json};
use super::{OutputFormat, Terminal};
use crate::diagnosis::{self, Confidence, Diagnosis, Remedy};

/// What kind of failure it is; each kind has a published exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None of the others.
    Other,
    /// The command line.
    Usage,
    /// Credentials, configuration or bad input.
    Precondition,
    /// AWS, the brain or Tailscale refused.
    Refused,
    /// The host failed to boot.
    HostFailed,
    /// No heartbeat in time, or no other event that was waited for.
    NoHeartbeat,
    /// Something needs a person, as `status --check` found.
    NeedsPerson,
    /// Some of several are done, others failed.
    Partial,
    /// Nothing was due, where the command line asks for a code of its own.
    NothingDue,
    /// The operator interrupted it.
    Interrupted,
}

impl Kind {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::Precondition => 3,
            Self::Refused => 4,
            Self::HostFailed => 5,
            Self::NoHeartbeat => 6,
            Self::NeedsPerson => 7,
            Self::Partial => 8,
            Self::NothingDue => 9,
            Self::Interrupted => 130,
        }
    }
}

/// The published exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    another failure
  2    usage
  3    a precondition does not hold (credentials, configuration, bad input)
  4    refused by AWS, the brain or Tailscale
  5    the host failed to boot
  6    no heartbeat in time, or no other event that was waited for
  7    something needs a person (status --check, tailnet doctor)
  8    some of several are done, others failed (rotate-tailscale-key)
  9    no key was due (rotate-tailscale-key --detailed-exit-code)
  130  interrupted (143 by SIGTERM, 129 by SIGHUP)";

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What happened, outermost first; each line adds to the one before.
    pub causes: Vec<String>,
    /// Lines that show it.
    pub evidence: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Why a host does not report, and what to do about it.
    pub diagnosis: Option<Box<Diagnosis>>,
    /// The result is on stdout already, and says that it is a failure.
    pub has_result: bool,
}

#[derive(Serialize)]
struct Document<'f> {
    schema: &'static str,
    error: &'f str,
    causes: &'f [String],
    evidence: &'f [String],
    hint: Option<&'f str>,
    exit_code: u8,
}

/// A failure with a diagnosis.
#[derive(Serialize)]
struct DiagnosisDocument<'f> {
    schema: &'static str,
    verdict: &'static str,
    customer: Option<&'f str>,
    instance_id: Option<&'f str>,
    region: Option<&'f str>,
    step: &'f str,
    cause: &'static str,
    confidence: Confidence,
    reports: Option<bool>,
    what: &'f str,
    or: &'f [String],
    evidence: &'f [String],
    remedy: &'f [Remedy],
    error: &'f str,
    causes: &'f [String],
    hint: Option<&'f str>,
    exit_code: u8,
}

impl Failure {
    /// A failure from an error and the causes it carries.
    pub fn new(kind: Kind, error: &(dyn StdError + 'static)) -> Self {
        let mut causes = vec![error.to_string()];
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !causes.iter().any(|known| known.contains(&text)) {
                causes.push(text);
            }
            next = cause.source();
        }
        Self {
            kind,
            causes,
            evidence: Vec::new(),
            hint: None,
            diagnosis: None,
            has_result: false,
        }
    }

    /// A failure in words.
    pub fn words(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            causes: vec![what.into()],
            evidence: Vec::new(),
            hint: None,
            diagnosis: None,
            has_result: false,
        }
    }

    /// Says why the host does not report.
    pub fn diagnosed(mut self, diagnosis: Diagnosis) -> Self {
        self.diagnosis = Some(Box::new(diagnosis));
        self
    }

    /// For a warning, where the command goes on: the causes and what to do, in one line.
    pub fn in_a_line(&self) -> String {
        let mut text = self.causes.join(": ");
        if let Some(hint) = &self.hint {
            text.push_str(&format!(" ({hint})"));
        }
        text
    }

    /// Says how to reach a host that failed, which is kept.
    pub fn how_to_reach_it(mut self) -> Self {
        if let Some(diagnosis) = &mut self.diagnosis {
            let advice = diagnosis.how_to_reach_it();
            diagnosis.remedy.extend(advice);
        }
        self
    }

    /// Says how to reach a host that failed, and how to go on with it or be rid of it.
    pub fn with_the_host_kept(self) -> Self {
        let mut failure = self.how_to_reach_it();
        if let Some(diagnosis) = &mut failure.diagnosis {
            let advice = diagnosis.how_to_go_on();
            diagnosis.remedy.extend(advice);
        }
        failure
    }

    /// The result is on stdout already: no document of the failure may follow it there.
    pub fn with_result(mut self) -> Self {
        self.has_result = true;
        self
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what to do, where something is known.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Puts what was being done before the causes.
    pub fn within(mut self, what: impl Into<String>) -> Self {
        self.causes.insert(0, what.into());
        self
    }

    /// The exit code; a command that a signal ended says which.
    pub fn exit_code(&self, terminal: &Terminal) -> u8 {
        match self.kind {
            Kind::Interrupted => terminal.interrupt.exit_code(),
            kind => kind.exit_code(),
        }
    }

    /// Writes it to stderr, and to stdout as a JSON document where results are JSON.
    pub fn show(&self, terminal: &Terminal) {
        // No failure: the result says it.
        if self.kind == Kind::NothingDue {
            return;
        }
        let Some((first, rest)) = self.causes.split_first() else {
            return;
        };
        let red = |style: console::Style| style.red().bold();
        terminal.say_under("error:", red, one_line(first));
        for cause in rest {
            terminal.say(format!("  because: {}", one_line(cause)));
        }
        let diagnosis = self.diagnosis.as_deref();
        for line in diagnosis.map_or(&self.evidence, |diagnosis| &diagnosis.evidence) {
            terminal.say(format!("  | {}", one_line(line)));
        }
        if let Some(diagnosis) = diagnosis {
            terminal.say_under("cause:", red, diagnosis.cause);
            say_remedy(&diagnosis.remedy, terminal);
        }
        if let Some(hint) = &self.hint {
            terminal.say_under("hint:", |style| style.cyan().bold(), hint);
        }
        // What needs a person, and what was done in part, stand in the command's own document.
        let has_result = self.has_result || self.kind == Kind::NeedsPerson;
        if terminal.output == OutputFormat::Json && !has_result {
            let exit_code = self.exit_code(terminal);
            let text = match diagnosis {
                Some(diagnosis) => self.diagnosis_document(diagnosis, first, rest, exit_code),
                None => self.document(first, rest, exit_code),
            };
            // Nothing more can be done for a stdout that cannot be written to; the exit code tells.
            let _ = text.map(|text| terminal.write(&format!("{}\n", visible_json(&text))));
        }
    }

    fn diagnosis_document(
        &self,
        diagnosis: &Diagnosis,
        error: &str,
        causes: &[String],
        exit_code: u8,
    ) -> serde_json::Result<String> {
        serde_json::to_string(&DiagnosisDocument {
            schema: diagnosis::SCHEMA,
            verdict: "failed",
            customer: diagnosis.customer.as_deref(),
            instance_id: diagnosis.instance_id.as_deref(),
            region: diagnosis.region.as_deref(),
            step: &diagnosis.step,
            cause: diagnosis.cause,
            confidence: diagnosis.confidence,
            reports: diagnosis.reports,
            what: &diagnosis.what,
            or: &diagnosis.or,
            evidence: &diagnosis.evidence,
            remedy: &diagnosis.remedy,
            error,
            causes,
            hint: self.hint.as_deref(),
            exit_code,
        })
    }

    fn document(
        &self,
        error: &str,
        causes: &[String],
        exit_code: u8,
    ) -> serde_json::Result<String> {
        serde_json::to_string(&Document {
            schema: "m8trx.error/1",
            error,
            causes,
            evidence: &self.evidence,
            hint: self.hint.as_deref(),
            exit_code,
        })
    }
}

/// What to do: sentences, and commands on lines of their own so that they can be pasted.
pub fn say_remedy(remedy: &[Remedy], terminal: &Terminal) {
    if remedy.is_empty() {
        return;
    }
    terminal.say_painted("What to do:", |style| style.cyan().bold());
    for remedy in remedy {
        match remedy {
            Remedy::Do(text) => terminal.say(format!("  {}", one_line(text))),
            Remedy::Run(command) => terminal.say_whole(format!("      {}", one_line(command))),
        }
    }
}
