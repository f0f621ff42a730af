//! `m8trx tailnet apply`

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::check::{read, write_findings};
use super::customers::named_or_found;
use super::life::signs_of_life;
use super::{brain_port, client};
use crate::cli::Global;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::plan::journal;
use crate::tailnet::Tailnet;
use crate::tailnet::policy::change::{ChangeError, Contest, Proposal, Put, Wish};
use crate::tailnet::policy::check::Finding;
use crate::tailnet::policy::merge::owned_customers;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{OutputFormat, Terminal, text};

/// Put customers into the tailnet's policy file, and take others out of it.
///
/// Only what is theirs changes: every other rule, and every comment, stays as it is. The difference is shown, checked (see
/// `m8trx tailnet check`) and validated by Tailscale before anything is asked; the previous file is kept; and if somebody else
/// changes the file meanwhile, it starts again from theirs. A customer with a living host is not taken out: it would lose the
/// brain. Needs an OAuth client (see M8TRX_TAILSCALE_CLIENT_ID).
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The customers to put in; by default all that are found in AWS, by their parameters and hosts.
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<CustomerId>,
    /// A customer to take out; can be given more than once. Then none is looked for in AWS.
    #[arg(long, value_name = "CUSTOMER")]
    remove: Vec<CustomerId>,
    /// Put a whole file back instead, one that was kept before a change.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["customers", "remove"])]
    restore: Option<PathBuf>,
    /// Take customers out although they have living hosts, which lose the brain.
    #[arg(long)]
    force: bool,
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
    /// What was wrong before and still is: taking customers out cannot make it worse.
    violations: usize,
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
                count if self.violations > 0 => format!("{count} customers"),
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
            violations: proposal.report.violations.len(),
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
    let wish = Wish {
        add: if args.customers.is_empty() && (!args.remove.is_empty() || args.restore.is_some()) {
            Default::default()
        } else {
            named_or_found(&args.customers, false, target, terminal).await?
        },
        remove: args.remove.iter().cloned().collect(),
        mark: None,
        brain_port: Some(brain_port::stored(&target.settings, terminal).await),
        restore: args.restore.as_deref().map(kept_file).transpose()?,
    };
    let mut agreed: Option<String> = None;
    // Those of whom it was said that they have living hosts.
    let mut spared: BTreeSet<CustomerId> = BTreeSet::new();
    let mut contest = Contest::default();
    loop {
        terminal
            .interrupt
            .check("interrupted; nothing was changed")?;
        let proposal = tailnet.propose(&wish).await?;
        if !wish.only_removes() {
            proposal
                .isolates()
                .map_err(|_| refuse(&proposal, terminal))?;
        } else if agreed.is_none() && !proposal.report.holds() {
            terminal.warn(still_wrong(&proposal));
        }
        let taken_out: BTreeSet<CustomerId> = proposal
            .taken_out()
            .map_err(ChangeError::from)?
            .iter()
            .filter_map(|tag| CustomerId::from_tailscale_tag(tag))
            .filter(|customer| !spared.contains(customer))
            .collect();
        if !taken_out.is_empty() {
            spare_the_living(&taken_out, args, target, &tailnet, terminal).await?;
            spared.extend(taken_out);
        }
        if proposal.changes()
            && let Some(warnings) = tailnet.validate(&proposal).await?
            && agreed.is_none()
        {
            terminal.warn(format!("Tailscale warns of the policy file: {warnings}"));
        }
        if !proposal.changes() || args.dry_run {
            let applied = Applied::new(&proposal, args.dry_run, None);
            return terminal.result(&applied).map_err(stdout_failed);
        }
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
        contest.lost(&proposal.before).await?;
    }
}

/// A file that was kept, as `--restore` names it.
fn kept_file(path: &Path) -> Result<String, Failure> {
    let (name, document) = read(path)?;
    if owned_customers(&document).is_empty() && document.root.get("tagOwners").is_none() {
        return Err(Failure::words(
            Kind::Precondition,
            format!("{name} has no `tagOwners`, so it is no policy file that was kept before a change"),
        )
        .hint("kept files are ~/.local/state/m8trx/runs/…-policy.hujson; each change prints the name of its own"));
    }
    Ok(document.text)
}

/// What the check says of a file that is changed nevertheless, since taking customers out cannot make it worse.
fn still_wrong(proposal: &Proposal) -> String {
    let violations = &proposal.report.violations;
    let first = violations.first().map(ToString::to_string);
    let more = match violations.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    format!(
        "the policy file does not isolate customers, before as after: {}{more}; see m8trx tailnet check",
        first.unwrap_or_default()
    )
}

/// Refuses to take out customers whose hosts live: they would lose the brain. With `--force`, only says so.
async fn spare_the_living(
    customers: &BTreeSet<CustomerId>,
    args: &ApplyArgs,
    target: &Target,
    tailnet: &Tailnet,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let signs = match signs_of_life(customers, target, tailnet, terminal).await {
        Ok(signs) => signs,
        Err(failure) if args.force => {
            let why = failure.causes.join(": ");
            terminal.warn(format!(
                "whether hosts live that would lose the brain is not known: {why}"
            ));
            return Ok(());
        }
        Err(failure) => {
            return Err(failure.within(
                "whether hosts live that would lose the brain cannot be seen; nothing was changed",
            ));
        }
    };
    if signs.is_empty() {
        return Ok(());
    }
    if args.force {
        for (customer, sign) in &signs {
            terminal.warn(format!(
                "{customer} is taken out, and its host loses the brain: {sign}"
            ));
        }
        return Ok(());
    }
    let mut living: Vec<&str> = signs
        .iter()
        .map(|(customer, _)| customer.as_str())
        .collect();
    living.dedup();
    let mut failure = Failure::words(
        Kind::Precondition,
        format!(
            "{} would lose the brain: a living host; nothing was changed",
            living.join(", ")
        ),
    )
    .hint(format!(
        "m8trx offboard {} takes a customer out for good, its hosts first; --force takes it out of the policy file nevertheless",
        living[0]
    ));
    failure.evidence = signs
        .iter()
        .map(|(customer, sign)| format!("{customer}: {sign}"))
        .collect();
    Err(failure)
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
