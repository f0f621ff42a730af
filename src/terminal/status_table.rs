//! How a fleet stands, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use jiff::SignedDuration;
use serde::Serialize;

use super::text::{age, foreign};
use crate::customer::BRAIN_URL_PARAMETER;
use crate::status::expiry::Stage;
use crate::status::{CustomerStatus, FleetStatus, HostStatus, ParameterStatus, Word};

/// With more customers than this, those that are well are counted and not listed.
const MOST_LISTED: usize = 40;
/// What so many customers share is said once.
const SAID_ONCE: usize = 4;

/// A fleet's status laid out for people.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct StatusDocument {
    status: FleetStatus,
    #[serde(skip)]
    width: Option<u16>,
    #[serde(skip)]
    all: bool,
}

impl StatusDocument {
    /// `all` lists every customer, however many there are.
    pub fn new(status: FleetStatus, all: bool) -> Self {
        Self {
            status,
            width: None,
            all,
        }
    }

    /// Lays the table out for a terminal of this many columns.
    pub fn with_width(mut self, columns: Option<u16>) -> Self {
        self.width = columns;
        self
    }

    /// How many things need a person: customers, things of no customer, and named customers that are not there.
    pub fn needs_person(&self) -> usize {
        let status = &self.status;
        status.summary.needs_person + status.problems.len() + status.not_found.len()
    }

    /// How many customers there are.
    pub fn customers(&self) -> usize {
        self.status.customers.len()
    }

    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = &self.status;
        write!(f, "Account {}, {}", status.account, status.region)?;
        let source = match status.brain.source {
            Some("database") => "read from its database",
            Some(_) => "asked over HTTP",
            None => "not asked",
        };
        match &status.brain.url {
            Some(url) => write!(f, "; brain {url}")?,
            None => write!(f, "; {BRAIN_URL_PARAMETER} holds no URL")?,
        }
        if let Some(modified) = status.brain.url_modified {
            let stored = age(status.at.duration_since(modified));
            write!(f, " (stored {stored} ago)")?;
        }
        writeln!(f, ", {source}")
    }

    fn table(&self, listed: &[&CustomerStatus]) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header([
                "CUSTOMER",
                "STATUS",
                "HOST",
                "STATE",
                "TYPE",
                "LAUNCHED",
                "HEARTBEAT",
                "SESSIONS/H",
                "TOOLS/H",
                "BRAIN KEY",
                "TAILSCALE KEY",
            ]);
        if let Some(width) = self.width {
            table.set_width(width);
        }
        for customer in listed {
            table.add_row(row(customer));
        }
        // What is copied must not be broken in two.
        for column in [0, 1, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table
    }

    /// What a person should see to, line by line; what many customers share is said once.
    fn problems(&self) -> Vec<String> {
        let status = &self.status;
        let mut same: BTreeMap<&str, Vec<&CustomerStatus>> = BTreeMap::new();
        for customer in &status.customers {
            for problem in &customer.problems {
                same.entry(&problem.what).or_default().push(customer);
            }
        }
        let mut lines: Vec<String> = status.problems.clone();
        for id in &status.not_found {
            lines.push(format!(
                "{id}: nothing of it is in account {}, {}",
                status.account, status.region
            ));
        }
        let mut told: Vec<&str> = Vec::new();
        for customer in &status.customers {
            for problem in &customer.problems {
                let who = same
                    .get(problem.what.as_str())
                    .map_or(&[][..], Vec::as_slice);
                if who.len() < SAID_ONCE {
                    let remedy = problem.remedy.as_ref();
                    let remedy = remedy.map_or(String::new(), |remedy| format!("\n    {remedy}"));
                    lines.push(format!("{}: {}{remedy}", customer.customer, problem.what));
                } else if !told.contains(&problem.what.as_str()) {
                    told.push(&problem.what);
                    let some: Vec<&str> = who.iter().take(3).map(|c| c.customer.as_str()).collect();
                    lines.push(format!(
                        "{} customers ({}, …): {}",
                        who.len(),
                        some.join(", "),
                        problem.what
                    ));
                }
            }
        }
        lines
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.status.notes.clone();
        let uncounted: Vec<&str> = self
            .status
            .customers
            .iter()
            .filter_map(|customer| customer.last_hour_problem.as_deref())
            .collect();
        if let Some(first) = uncounted.first() {
            notes.push(format!(
                "sessions and calls of tools of {} customers are not known: {first}",
                uncounted.len()
            ));
        }
        notes
    }

    fn sum(&self) -> String {
        let summary = &self.status.summary;
        let words: Vec<String> = Word::ALL
            .iter()
            .filter_map(|word| {
                let count = summary.by_status.get(word.name()).copied()?;
                (count > 0).then(|| format!("{count} {}", word.name()))
            })
            .collect();
        let customers = match summary.customers {
            1 => "1 customer".to_owned(),
            count => format!("{count} customers"),
        };
        let needs = match self.needs_person() {
            0 => "nothing needs a person".to_owned(),
            1 => "1 thing needs a person".to_owned(),
            count => format!("{count} things need a person"),
        };
        if words.is_empty() {
            return format!("{customers}; {needs}.");
        }
        format!("{customers}: {}; {needs}.", words.join(", "))
    }
}

impl fmt::Display for StatusDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = &self.status;
        self.heading(f)?;
        let count_only = !self.all && status.customers.len() > MOST_LISTED;
        let listed: Vec<&CustomerStatus> = status
            .customers
            .iter()
            .filter(|customer| {
                !count_only || customer.needs_person || customer.status != Word::Healthy
            })
            .collect();
        if !listed.is_empty() {
            writeln!(f)?;
            for line in self.table(&listed).lines() {
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        let left_out = status.customers.len() - listed.len();
        if left_out > 0 {
            writeln!(
                f,
                "{left_out} healthy customers are not listed; --all lists them."
            )?;
        }
        let problems = self.problems();
        if !problems.is_empty() {
            writeln!(f, "\nNeeds a person:")?;
            for problem in problems {
                writeln!(f, "  {problem}")?;
            }
        }
        for note in self.notes() {
            writeln!(f, "\nNote: {note}")?;
        }
        writeln!(f)?;
        if status.customers.is_empty() && status.not_found.is_empty() {
            write!(
                f,
                "No customers: no parameters beneath /m8trx, no instance tagged Customer=cust_…"
            )
        } else {
            write!(f, "{}", self.sum())
        }
    }
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// One line for each host.
fn per_host(customer: &CustomerStatus, cell: impl Fn(&HostStatus) -> String) -> String {
    if customer.hosts.is_empty() {
        return "-".to_owned();
    }
    let cells: Vec<String> = customer.hosts.iter().map(cell).collect();
    cells.join("\n")
}

fn row(customer: &CustomerStatus) -> Vec<String> {
    let unknown = || "-".to_owned();
    let parameter = |stored: &Option<ParameterStatus>| match stored {
        None => "missing".to_owned(),
        Some(stored) => {
            let stored_ago = stored.age_s.map_or_else(unknown, |s| age(seconds(s)));
            if stored.kind == "SecureString" {
                stored_ago
            } else {
                format!("{stored_ago} {}", stored.kind)
            }
        }
    };
    let parameters = &customer.parameters;
    let mut auth_key = parameter(&parameters.tailscale_auth_key);
    if let Some(expiry) = &parameters.tailscale_auth_key_expiry {
        auth_key = match expiry.stage {
            Stage::Ended => format!("{auth_key}, ended"),
            Stage::Good | Stage::Soon => {
                format!("{auth_key}, {} left", age(seconds(expiry.left_s)))
            }
        };
    }
    let hour = customer.last_hour.as_ref();
    let sign = hour.map_or("", |hour| if hour.at_least { "+" } else { "" });
    vec![
        customer.customer.to_string(),
        customer.status.name().to_owned(),
        per_host(customer, |host| host.instance_id.clone()),
        per_host(customer, |host| host.state.clone()),
        per_host(customer, |host| {
            host.instance_type.clone().unwrap_or_else(unknown)
        }),
        per_host(customer, |host| {
            host.age_s
                .map_or_else(unknown, |s| format!("{} ago", age(seconds(s))))
        }),
        customer
            .heartbeat
            .as_ref()
            .map_or_else(unknown, |beat| format!("{} ago", age(seconds(beat.age_s)))),
        hour.map_or_else(unknown, |hour| match hour.sessions_failed {
            0 => format!("{}{sign}", hour.sessions_started),
            failed => format!("{}{sign}, {failed} failed", hour.sessions_started),
        }),
        hour.map_or_else(unknown, |hour| format!("{}{sign}", hour.tool_calls)),
        parameter(&parameters.brain_key),
        auth_key,
    ]
    .into_iter()
    .map(|cell| {
        let lines: Vec<String> = cell.split('\n').map(|line| foreign(line, 80)).collect();
        lines.join("\n")
    })
    .collect()
}
