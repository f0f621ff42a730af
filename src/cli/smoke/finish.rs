//! What a smoke run comes to: the verdict, the JSON result, the report.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::super::execution::step_failure;
use super::result::{Beat, Called, Smoked, StepLine, stdout};
use super::{SmokeArgs, cleanup_command, unwritable};
use crate::customer::CustomerId;
use crate::diagnosis::Remedy;
use crate::inventory::{Inventory, Item};
use crate::plan::runner::millis;
use crate::plan::{Event, RunReport, StepError};
use crate::resource::Resource;
use crate::smoke::checks::Findings;
use crate::smoke::removal::Removed;
use crate::smoke::report::{self, Finding, Page, Verdict};
use crate::smoke::timeline::{self, Timeline};
use crate::steps::{Context, Mark};
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// A timeline that the listener of events writes and the report reads.
#[derive(Clone, Default)]
pub(super) struct Record(Arc<Mutex<Timeline>>);

impl Record {
    pub(super) fn event(&self, event: &Event) {
        let mut timeline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        timeline.event(Timestamp::now(), event);
    }

    fn read(&self) -> Timeline {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Everything that is known of a run by its end.
pub(super) struct Run {
    context: Arc<Context>,
    pub(super) mark: Mark,
    findings: Arc<Findings>,
    keep: bool,
    report_file: Option<PathBuf>,
    began: Timestamp,
    made: Record,
    unmade: Record,
    /// What became of the plan.
    pub(super) report: Option<RunReport>,
    /// What became of the removal.
    pub(super) removed: Option<Removed>,
    items: Vec<Item>,
    strangers: Vec<Item>,
}

impl Run {
    pub(super) fn new(
        args: &SmokeArgs,
        context: &Arc<Context>,
        mark: Mark,
        findings: Arc<Findings>,
    ) -> Self {
        Self {
            context: Arc::clone(context),
            mark,
            findings,
            keep: args.keep,
            report_file: args.report.clone(),
            began: Timestamp::now(),
            made: Record::default(),
            unmade: Record::default(),
            report: None,
            removed: None,
            items: Vec::new(),
            strangers: Vec::new(),
        }
    }

    pub(super) fn made(&self) -> Record {
        self.made.clone()
    }

    pub(super) fn unmade(&self) -> Record {
        self.unmade.clone()
    }

    /// Looks at what was made before it is removed: the console, and whether all of it is this run's.
    pub(super) async fn look(&mut self, terminal: &Terminal) {
        let context = &self.context;
        if let Some(host) = context.found.host.get() {
            match context.aws.console_output(&host.id).await {
                Ok(console) => self.findings.keep_console(console),
                Err(e) => terminal.warn(format!("the console was not read once more: {e}")),
            }
        }
        let (aws, tailnet) = (&context.aws, context.tailnet.as_ref());
        match Inventory::read_all(aws, tailnet, &context.customer).await {
            Ok(found) => {
                let owned = |items: Vec<&Item>| items.into_iter().cloned().collect();
                self.items = owned(found.made_by(&self.mark));
                self.strangers = owned(found.not_made_by(&self.mark));
            }
            Err(e) => terminal.warn(format!("what was made could not be listed: {e}")),
        }
    }

    /// What failed, first things first.
    fn failure(&mut self) -> Option<(Option<&'static str>, Failure)> {
        let customer = self.context.customer.clone();
        let removed_all = self
            .removed
            .as_ref()
            .is_some_and(|removed| removed.failure.is_none() && removed.left.is_empty());
        if let Some((step, error)) = self.report.as_mut().and_then(|r| r.failure.take()) {
            let failure = if matches!(error, StepError::Interrupted) {
                Failure::words(Kind::Interrupted, format!("interrupted at {step}"))
            } else {
                step_failure(error).within(format!("{step} failed"))
            };
            return Some((Some(step), self.after_removal(failure, removed_all)));
        }
        if !self.strangers.is_empty() {
            let mut failure = Failure::words(
                Kind::Precondition,
                format!("somebody else made things of {customer} while this run was going on, so it proves nothing"),
            )
            .hint("use a customer id that nothing else uses, as --customer");
            failure.evidence = self.strangers.iter().map(ToString::to_string).collect();
            return Some((None, failure));
        }
        let removed = self.removed.as_mut()?;
        Some((None, removal_failure(&customer, removed)?))
    }

    /// What to do, as it stands after the removal: there is a host to be reached with `--keep` only.
    fn after_removal(&self, failure: Failure, removed_all: bool) -> Failure {
        let customer = &self.context.customer;
        let cleanup = cleanup_command(customer);
        let before = failure.hint.clone();
        let failure = if self.keep {
            failure.how_to_reach_it()
        } else {
            failure
        };
        let after = if self.keep {
            format!("everything is kept; remove it with: {cleanup}")
        } else if !removed_all {
            format!("not everything could be removed; finish it with: {cleanup}")
        } else if failure.kind == Kind::HostFailed || failure.kind == Kind::NoHeartbeat {
            format!(
                "everything this run made is removed again; to look at a host that fails so: m8trx smoke --keep --customer {customer}"
            )
        } else {
            "everything this run made is removed again".to_owned()
        };
        failure.hint(match before {
            Some(before) => format!("{before}; {after}"),
            None => after,
        })
    }

    /// Writes the report and the result, or tells what failed.
    pub(super) fn finish(mut self, terminal: &Terminal) -> Result<(), Failure> {
        if let Some(removed) = &self.removed {
            for note in &removed.notes {
                terminal.warn(note);
            }
        }
        let failed = self.failure();
        let written = self.write_report(failed.as_ref(), terminal);
        if let Some((_, failure)) = failed {
            if let Err(e) = written {
                terminal.warn(e.causes.join(": "));
            }
            if self.keep {
                self.say_kept(terminal);
            }
            return Err(failure);
        }
        written?;
        if self.keep {
            self.say_kept(terminal);
        }
        let result = self.result().ok_or_else(|| {
            Failure::words(
                Kind::Other,
                "every step is done, and yet something it found is missing",
            )
        })?;
        stdout(terminal, &result)
    }

    fn say_kept(&self, terminal: &Terminal) {
        terminal.say("Kept for inspection:");
        for item in &self.items {
            terminal.say(format!("  {item}"));
        }
        terminal.say(format!(
            "Remove it with: {}",
            cleanup_command(&self.context.customer)
        ));
    }

    fn result(&self) -> Option<Smoked> {
        let (hostname, instance_hostname) = self.findings.hostname.get()?.clone();
        let heartbeat = self.context.found.heartbeat.get()?;
        let report = self.report.as_ref()?;
        Some(Smoked {
            schema: "m8trx.smoke/1",
            customer: self.context.customer.clone(),
            run: self.mark.value.clone(),
            instance_id: self.context.found.host.get()?.id.clone(),
            instance_hostname,
            heartbeat: Beat {
                hostname,
                ts: heartbeat.ts,
            },
            tool_call: self.findings.tool_call.get().map(|call| Called {
                tool_name: call.tool_name.clone(),
                ts: call.ts,
            }),
            steps: report
                .steps
                .iter()
                .map(|step| StepLine {
                    name: step.name,
                    outcome: step.outcome.word(),
                    elapsed_ms: millis(step.elapsed),
                })
                .collect(),
            removed: self
                .removed
                .as_ref()
                .map_or(Vec::new(), |r| r.removed.clone()),
            kept: if self.keep {
                self.items.clone()
            } else {
                Vec::new()
            },
            notes: self
                .removed
                .as_ref()
                .map_or(Vec::new(), |r| r.notes.clone()),
            elapsed_ms: since(self.began),
        })
    }

    fn write_report(
        &self,
        failed: Option<&(Option<&'static str>, Failure)>,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        let Some(file) = &self.report_file else {
            return Ok(());
        };
        let page = self.page(failed);
        report::write(file, &page).map_err(|e| unwritable(file, &e))?;
        terminal.say(format!("Report: {}", file.display()));
        Ok(())
    }

    fn page(&self, failed: Option<&(Option<&'static str>, Failure)>) -> Page {
        let context = &self.context;
        let made = self.made.read();
        let heartbeat = context.found.heartbeat.get();
        let known = timeline::Known {
            launched: made.end_of(Resource::Host.name()).unwrap_or(self.began),
            heartbeat: heartbeat.map(|beat| beat.ts),
            failed: made.end_of(Resource::FirstHeartbeat.name()),
        };
        let (host, placed) = timeline::of_console(&self.findings.console(), known);
        let gone = |item: &Item| match &self.removed {
            None => "kept",
            Some(removed) if removed.left.iter().any(|left| left.id == item.id) => "left behind",
            Some(_) => "removed",
        };
        let mut facts = vec![
            ("m8trx".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("Run".to_owned(), self.mark.value.clone()),
            (
                "bootstrap.sh".to_owned(),
                format!("SHA-256 {}", report::digest(crate::artifacts::BOOTSTRAP_SH)),
            ),
            ("AWS account".to_owned(), context.aws.account.clone()),
            ("Region".to_owned(), context.aws.region.clone()),
            ("As".to_owned(), context.aws.identity.clone()),
            ("Brain".to_owned(), context.brain.url().to_string()),
            ("Instance type".to_owned(), context.instance_type.clone()),
        ];
        if let Some(image) = context.found.known_image() {
            let name = image.name.clone().unwrap_or_default();
            facts.push(("Image".to_owned(), format!("{} {name}", image.id)));
        }
        if let Some((brain, ec2)) = self.findings.hostname.get() {
            facts.push(("Hostname at the brain".to_owned(), brain.clone()));
            facts.push(("Hostname in EC2".to_owned(), ec2.clone()));
        }
        if let Some(call) = self.findings.tool_call.get() {
            facts.push((
                "Tool call".to_owned(),
                format!("{} at {}", call.tool_name, call.ts),
            ));
        }
        let secrets = [
            context
                .found
                .brain_key
                .get()
                .map(|key| key.expose().to_owned()),
            context
                .tailscale_auth_key
                .get()
                .map(|key| key.expose().to_owned()),
        ];
        Page {
            verdict: match failed {
                None => Verdict::Passed,
                Some((_, failure)) if failure.kind == Kind::Interrupted => Verdict::Interrupted,
                Some(_) => Verdict::Failed,
            },
            customer: context.customer.to_string(),
            began: self.began,
            ended: Timestamp::now(),
            finding: failed.map(|(step, failure)| finding(*step, failure)),
            made: made.spans().to_vec(),
            host,
            placed,
            removed: self.unmade.read().spans().to_vec(),
            resources: self
                .items
                .iter()
                .map(|item| (item.kind.to_string(), item.id.clone(), gone(item)))
                .collect(),
            notes: self
                .removed
                .as_ref()
                .map_or(Vec::new(), |r| r.notes.clone()),
            facts,
            secrets: secrets.into_iter().flatten().map(Into::into).collect(),
        }
    }
}

/// A failure as the report shows it.
fn finding(step: Option<&str>, failure: &Failure) -> Finding {
    let diagnosis = failure.diagnosis.as_deref();
    let remedy = diagnosis.map(|diagnosis| diagnosis.remedy.clone());
    let hint = failure.hint.clone().map(Remedy::Do);
    Finding {
        step: diagnosis
            .map_or(step, |diagnosis| Some(&diagnosis.step))
            .map(str::to_owned),
        cause: diagnosis.map(|diagnosis| diagnosis.cause.to_owned()),
        what: failure.causes.join(": "),
        evidence: diagnosis
            .map_or(&failure.evidence, |diagnosis| &diagnosis.evidence)
            .clone(),
        remedy: remedy.into_iter().flatten().chain(hint).collect(),
    }
}

fn since(began: Timestamp) -> u64 {
    u64::try_from(Timestamp::now().duration_since(began).as_millis()).unwrap_or(0)
}

pub(super) fn removal_failure(customer: &CustomerId, removed: &mut Removed) -> Option<Failure> {
    let left: Vec<String> = removed.left.iter().map(ToString::to_string).collect();
    let mut failure = match removed.failure.take() {
        Some((step, error)) => step_failure(error).within(format!(
            "not everything that was made could be removed: {step} failed"
        )),
        None if left.is_empty() => return None,
        None => Failure::words(
            Kind::Other,
            "AWS or the tailnet still lists things that were removed".to_owned(),
        ),
    };
    failure.evidence.extend(left);
    let finish = format!("finish it with: {}", cleanup_command(customer));
    let hint = match failure.hint.take() {
        Some(first) => format!("{first}; then {finish}"),
        None => finish,
    };
    Some(failure.hint(hint))
}
