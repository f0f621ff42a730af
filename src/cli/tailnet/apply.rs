//! `m8trx tailnet apply`

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::check::write_findings;
use super::client;
use super::customers::named_or_found;
use crate::cli::Global;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::plan::journal;
use crate::tailnet::Tailnet;
use crate::tailnet::policy::change::{ChangeError, MAX_ATTEMPTS, Proposal, Put, Wish};
use crate::tailnet::policy::check::Finding;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{OutputFormat, Terminal, text};

/// Put customers into the tailnet's policy file, and take others out of it.
///
/// Only what is theirs changes: every other rule, and every comment, stays as it is. The difference is shown, checked (see
/// `m8trx tailnet check`) and validated by Tailscale before anything is asked; the previous file is kept; and if somebody else
/// changes the file meanwhile, it starts again from theirs. Needs an OAuth client (see M8TRX_TAILSCALE_CLIENT_ID).
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The customers to put in; by default all that are found in AWS, by their parameters and hosts.
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<CustomerId>,
    /// A customer to take out; can be given more than once. Then none is looked for in AWS.
    #[arg(long, value_name = "CUSTOMER")]
    remove: Vec<CustomerId>,
    /// Show what would be changed, change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// The result.
#[derive(Debug, Serialize)]
struct Applied {
    schema: &'static str,
    changed: bool,
    dry_run: bool,
    customers: usize,
    pairs: u64,
    diff: String,
    previous: Option<PathBuf>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dry_run && self.diff.is_empty() {
            return write!(f, "the policy file would stay as it is");
        }
        if self.dry_run {
            let lines: Vec<String> = self.diff.lines().map(shown).collect();
            return f.write_str(&lines.join("\n"));
        }
        let Some(previous) = &self.previous else {
            return write!(f, "the policy file is as it should be; nothing was changed");
        };
        write!(
            f,
            "the policy file is replaced, for {}; the file before is kept as {}",
            match self.customers {
                1 => "1 customer".to_owned(),
                count => format!("{count} customers, none of which reaches another"),
            },
            previous.display()
        )
    }
}

impl Applied {
    fn new(proposal: &Proposal, dry_run: bool, previous: Option<PathBuf>) -> Self {
        Self {
            schema: "m8trx.tailnet-apply/1",
            changed: previous.is_some(),
            dry_run,
            customers: proposal.report.customers,
            pairs: proposal.report.pairs,
            diff: proposal.diff(),
            previous,
        }
    }
}

/// Runs the command.
pub(super) async fn run(
    args: &ApplyArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if !(terminal.interactive || args.dry_run || global.yes) {
        return Err(
            Failure::words(Kind::Usage, "there is no terminal to ask whether to go on").hint(
                "pass --yes to go on without being asked, or --dry-run to see the difference",
            ),
        );
    }
    if let Some(both) = args.customers.iter().find(|id| args.remove.contains(id)) {
        return Err(Failure::words(
            Kind::Usage,
            format!("{both} cannot be put in and taken out at once"),
        ));
    }
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = apply(args, &target, terminal).await;
    target.close().await;
    result
}

async fn apply(args: &ApplyArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let tailnet = client(&target.settings)?;
    let add = if args.customers.is_empty() && !args.remove.is_empty() {
        Default::default()
    } else {
        named_or_found(&args.customers, false, target, terminal).await?
    };
    let wish = Wish {
        add,
        remove: args.remove.iter().cloned().collect(),
        mark: None,
    };
    let mut agreed: Option<String> = None;
    for _ in 0..MAX_ATTEMPTS {
        terminal
            .interrupt
            .check("interrupted; nothing was changed")?;
        let proposal = tailnet.propose(&wish).await?;
        proposal
            .isolates()
            .map_err(|_| refuse(&proposal, terminal))?;
        if !proposal.changes() || args.dry_run {
            if proposal.changes() {
                tailnet.validate(&proposal).await?;
            }
            let applied = Applied::new(&proposal, args.dry_run, None);
            return terminal.result(&applied).map_err(stdout_failed);
        }
        tailnet.validate(&proposal).await?;
        let diff = proposal.diff();
        // What was agreed to is not asked again, as long as it is the same.
        if agreed.as_ref() != Some(&diff) {
            agree(&diff, terminal).await?;
            agreed = Some(diff);
        }
        terminal.interrupt.begin_run();
        if let Some(result) = put(&tailnet, &proposal).await? {
            return terminal.result(&result).map_err(stdout_failed);
        }
        terminal.warn(
            "the policy file was changed by somebody else meanwhile; starting again from theirs",
        );
    }
    Err(ChangeError::KeepsChanging.into())
}

async fn agree(diff: &str, terminal: &Terminal) -> Result<(), Failure> {
    terminal.say("");
    for line in diff.lines() {
        say_coloured(line, terminal);
    }
    terminal.agree("Replace the policy file?").await
}

async fn put(tailnet: &Tailnet, proposal: &Proposal) -> Result<Option<Applied>, Failure> {
    let keep_in = journal::default_directory(&|name| std::env::var(name).ok());
    Ok(match tailnet.put(proposal, keep_in.as_deref()).await? {
        Put::Done(kept) => Some(Applied::new(proposal, false, Some(kept))),
        Put::Changed => None,
    })
}

/// A line of the file as it may be shown: tabs stay, and nothing in it moves the terminal or hides what is agreed to.
fn shown(line: &str) -> String {
    let parts: Vec<String> = line
        .split('\t')
        .map(|part| text::foreign(part, usize::MAX))
        .collect();
    parts.join("\t")
}

fn say_coloured(line: &str, terminal: &Terminal) {
    let shown = shown(line);
    if line.starts_with("+++") || line.starts_with("---") {
        return terminal.say_painted(shown, |style| style.bold());
    }
    match line.as_bytes().first() {
        Some(b'+') => terminal.say_painted(shown, |style| style.green()),
        Some(b'-') => terminal.say_painted(shown, |style| style.red()),
        Some(b'@') => terminal.say_painted(shown, |style| style.cyan()),
        _ => terminal.say_whole(shown),
    }
}

/// Says what the check found, and that nothing was changed.
fn refuse(proposal: &Proposal, terminal: &Terminal) -> Failure {
    struct Lines<'f>(&'f [Finding]);
    impl fmt::Display for Lines<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_findings(f, "the policy file", "violation", self.0)
        }
    }
    let lines = Lines(&proposal.report.violations).to_string();
    let mut failure = Failure::words(
        Kind::Precondition,
        "the policy file would not isolate customers; nothing was changed",
    )
    .hint("narrow these rules in the admin console under Access controls: rules only ever add, so m8trx cannot close what they open");
    failure.evidence = lines.lines().map(str::to_owned).collect();
    if terminal.output == OutputFormat::Human && proposal.changes() {
        terminal.say("The lines below are those of the file as it would be (m8trx tailnet check shows the file as it is):");
    }
    failure
}
