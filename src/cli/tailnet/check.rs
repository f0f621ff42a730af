//! `m8trx tailnet check`

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::{brain_port, client};
use crate::cli::Global;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::tailnet::policy::check::{Finding, Report, check};
use crate::tailnet::policy::hujson::{Document, MAX_BYTES, SyntaxError};
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Prove that a policy file isolates customers, whoever wrote it.
///
/// For every ordered pair of customers' tags no port may be reached; each customer must reach the brain, and the team each
/// customer by SSH; nobody but admins and tag:m8trx-operator may claim a customer's tag; and the file's own tests must hold.
/// What is not understood is taken for the worst, and told.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The policy file; `-` for standard input; by default the tailnet's own, which needs an OAuth client.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The most findings of one kind that people are shown; the JSON document has all.
const SHOWN: usize = 10;

/// A check as a result.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    schema: &'static str,
    file: String,
    holds: bool,
    #[serde(flatten)]
    report: Report,
}

impl Checked {
    pub(super) fn new(file: impl Into<String>, report: Report) -> Self {
        Self {
            schema: "m8trx.tailnet-check/1",
            file: file.into(),
            holds: report.holds(),
            report,
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, report, .. } = self;
        write_findings(f, file, "violation", &report.violations)?;
        write_findings(f, file, "note", &report.notes)?;
        let count = report.violations.len();
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            return write!(f, "{file} does not hold: {count} violation{plural}");
        }
        let tests = report.tests.passed;
        match report.customers {
            0 => write!(
                f,
                "{file} holds: it names no customer yet, and would let none reach another"
            ),
            1 => write!(
                f,
                "{file} holds: 1 customer reaches the brain and nothing else that matters; {tests} test assertions pass"
            ),
            customers => write!(
                f,
                "{file} holds: {customers} customers, {} pairs, none connected; {tests} test assertions pass",
                report.pairs
            ),
        }
    }
}

/// Findings for people, at most [`SHOWN`] of each kind.
pub(super) fn write_findings(
    f: &mut fmt::Formatter<'_>,
    file: &str,
    heading: &str,
    findings: &[Finding],
) -> fmt::Result {
    for group in findings.chunk_by(|a, b| a.kind == b.kind) {
        for finding in group.iter().take(SHOWN) {
            writeln!(
                f,
                "{heading}: {file}:{}:{}: {}: {}",
                finding.at.line,
                finding.at.column,
                finding.shown_rule(),
                finding.shown()
            )?;
        }
        if group.len() > SHOWN {
            writeln!(
                f,
                "{heading}: and {} more of this kind; --output json has them all",
                group.len() - SHOWN
            )?;
        }
    }
    Ok(())
}

/// Runs the command.
pub(super) async fn run(
    args: &CheckArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let target = Target::open(global, &global.flags(), terminal).await?;
    let examined = examine(args, &target, terminal).await;
    target.close().await;
    let (name, report) = examined?;
    let holds = report.holds();
    let checked = Checked::new(name, report);
    terminal.result(&checked).map_err(stdout_failed)?;
    if holds {
        return Ok(());
    }
    Err(does_not_hold(&checked).with_result())
}

/// The failure of a file that does not hold.
fn does_not_hold(checked: &Checked) -> Failure {
    use crate::tailnet::policy::check::Kind as Found;
    let cut_off: BTreeSet<String> = checked
        .report
        .violations
        .iter()
        .filter(|finding| {
            matches!(
                finding.kind,
                Found::BrainUnreachable | Found::SshUnreachable
            )
        })
        .filter_map(|finding| CustomerId::from_tailscale_tag(&finding.rule))
        .map(|customer| customer.to_string())
        .collect();
    let file = &checked.file;
    let only_cut_off = checked.report.violations.iter().all(|finding| {
        matches!(
            finding.kind,
            Found::BrainUnreachable | Found::SshUnreachable
        )
    });
    if only_cut_off && !cut_off.is_empty() {
        let cut_off: Vec<String> = cut_off.into_iter().collect();
        return Failure::words(
            Kind::Precondition,
            format!("{file} isolates customers, but does not let them reach what they must"),
        )
        .hint(format!(
            "put the rules they lack in: m8trx tailnet apply {}",
            cut_off.join(" ")
        ));
    }
    Failure::words(
        Kind::Precondition,
        format!("{file} does not isolate customers"),
    )
    .hint("narrow the rules named above: rules only ever add, so each of them opens what it opens whatever the others say")
}

async fn examine(
    args: &CheckArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(String, Report), Failure> {
    let settings = &target.settings;
    if let Some(file) = &args.file {
        let (name, document) = read(file)?;
        return Ok((
            name,
            check(&document, brain_port::configured(settings, terminal)),
        ));
    }
    let tailnet = client(settings)?;
    let file = tailnet.policy_file().await?;
    let document = Document::parse(file.text).map_err(|e| unreadable("of the tailnet", &e))?;
    let port = brain_port::stored(settings, terminal).await;
    let report = tailnet.check(&document, port).await?;
    Ok(("the tailnet's policy file".to_owned(), report))
}

pub(super) fn read(file: &Path) -> Result<(String, Document), Failure> {
    let name = if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let mut bytes = Vec::new();
    // One byte more than is taken, so that what is too large is seen without being read to its end.
    let limit = MAX_BYTES as u64 + 1;
    let result = if file == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    result.map_err(|e| {
        Failure::words(
            Kind::Precondition,
            format!("the policy file {name} cannot be read: {e}"),
        )
    })?;
    let document = Document::parse_bytes(bytes).map_err(|e| unreadable(&name, &e))?;
    Ok((name, document))
}

/// The failure of a file that is not HuJSON.
pub(super) fn unreadable(name: &str, error: &SyntaxError) -> Failure {
    Failure::new(Kind::Precondition, error)
        .within(format!("the policy file {name} cannot be read"))
        .hint("a policy file is HuJSON: JSON with comments and trailing commas")
}
