//! How a fleet stands, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use console::measure_text_width;
use jiff::SignedDuration;
use serde::Serialize;

use super::text::{age, foreign, some_of};
use crate::brain::activity::Hour;
use crate::home::Home;
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
            None => write!(f, "; no brain URL is known to be stored")?,
        }
        if let Some(modified) = status.brain.url_modified {
            let stored = age(status.at.duration_since(modified));
            write!(f, " (stored {stored} ago)")?;
        }
        writeln!(f, ", {source}")
    }

    /// One line for each host where that fits, else two.
    fn table(&self, listed: &[&CustomerStatus]) -> Vec<String> {
        let wide = lines(&table(
            &WIDE,
            listed.iter().map(|customer| wide_row(customer)),
        ));
        let widest = wide.iter().map(|line| measure_text_width(line)).max();
        match self.width {
            Some(width) if widest > Some(usize::from(width)) => {
                let mut narrow = table(&NARROW, listed.iter().map(|customer| narrow_row(customer)));
                narrow
                    .set_content_arrangement(ContentArrangement::Dynamic)
                    .set_width(width);
                // What is copied must not be broken in two.
                for column in [0, 2] {
                    if let Some(column) = narrow.column_mut(column) {
                        column.set_constraint(ColumnConstraint::ContentWidth);
                    }
                }
                lines(&narrow)
            }
            _ => wide,
        }
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

    /// Where the customers are that are not here, a line for each place.
    fn elsewhere(&self) -> Vec<String> {
        let mut places: BTreeMap<&Home, Vec<&str>> = BTreeMap::new();
        for one in &self.status.elsewhere {
            places
                .entry(&one.home)
                .or_default()
                .push(one.customer.as_str());
        }
        let line = |(home, ids): (&Home, Vec<&str>)| {
            let flag = match home.account == self.status.account {
                true => format!("--region {}", home.region),
                false => format!("credentials of that account and --region {}", home.region),
            };
            format!("Not here but in {home}: {} ({flag})", some_of(&ids))
        };
        places.into_iter().map(line).collect()
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
            for line in self.table(&listed) {
                writeln!(f, "{line}")?;
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
        for line in self.elsewhere() {
            writeln!(f, "\n{line}")?;
        }
        for note in self.notes() {
            writeln!(f, "\nNote: {note}")?;
        }
        writeln!(f)?;
        if status.customers.is_empty() && status.not_found.is_empty() {
            write!(
                f,
                "No customers{}: no parameters beneath /m8trx, no instance tagged Customer=cust_…",
                match status.elsewhere.as_slice() {
                    [] => String::new(),
                    _ => format!(" in {}", status.region),
                }
            )
        } else {
            write!(f, "{}", self.sum())
        }
    }
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

const WIDE: [&str; 11] = [
    "CUSTOMER",
    "STATUS",
    "HOST",
    "STATE",
    "TYPE",
    "UP",
    "BEAT",
    "SESSIONS/H",
    "TOOLS/H",
    "BRAIN KEY",
    "TAILSCALE KEY",
];
const NARROW: [&str; 5] = ["CUSTOMER", "STATUS", "HOST", "LAST HOUR", "KEYS"];

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for row in rows {
        // Each line on its own: what comes from AWS and the brain may hold anything.
        table.add_row(row.iter().map(|cell| {
            let lines: Vec<String> = cell.split('\n').map(|line| foreign(line, 80)).collect();
            lines.join("\n")
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn lines(table: &Table) -> Vec<String> {
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// One line for each host.
fn per_host(customer: &CustomerStatus, cell: impl Fn(&HostStatus) -> String) -> String {
    if customer.hosts.is_empty() {
        return "-".to_owned();
    }
    let cells: Vec<String> = customer.hosts.iter().map(cell).collect();
    cells.join("\n")
}

fn since(age_s: Option<i64>) -> String {
    age_s.map_or_else(|| "-".to_owned(), |s| age(seconds(s)))
}

fn instance_type(host: &HostStatus) -> String {
    host.instance_type.clone().unwrap_or_else(|| "-".to_owned())
}

/// How long ago the last heartbeat was; none where that is not known.
fn beat(customer: &CustomerStatus) -> Option<String> {
    let told = customer.last_hour.is_some() || customer.last_hour_problem.is_some();
    match &customer.heartbeat {
        Some(beat) => Some(age(seconds(beat.age_s))),
        None => told.then(|| "never".to_owned()),
    }
}

fn sessions(hour: &Hour) -> String {
    let sign = if hour.at_least { "+" } else { "" };
    match hour.sessions_failed {
        0 => format!("{}{sign}", hour.sessions_started),
        failed => format!("{}{sign}, {failed} failed", hour.sessions_started),
    }
}

fn tools(hour: &Hour) -> String {
    format!(
        "{}{}",
        hour.tool_calls,
        if hour.at_least { "+" } else { "" }
    )
}

/// The age of a parameter, and its type where that is wrong.
fn parameter(stored: Option<&ParameterStatus>) -> String {
    match stored {
        None => "missing".to_owned(),
        Some(stored) if stored.kind == "SecureString" => since(stored.age_s),
        Some(stored) => format!("{} {}", since(stored.age_s), stored.kind),
    }
}

fn auth_key(customer: &CustomerStatus) -> String {
    let parameters = &customer.parameters;
    let stored = parameter(parameters.tailscale_auth_key.as_ref());
    match &parameters.tailscale_auth_key_expiry {
        None if parameters.tailscale_auth_key_good == Some(false) => format!("{stored}, not good"),
        None => stored,
        Some(expiry) if expiry.stage == Stage::Ended => format!("{stored}, ended"),
        Some(expiry) => format!("{stored}, {} left", age(seconds(expiry.left_s))),
    }
}

fn wide_row(customer: &CustomerStatus) -> Vec<String> {
    let unknown = || "-".to_owned();
    let hour = customer.last_hour.as_ref();
    vec![
        customer.customer.to_string(),
        customer.status.name().to_owned(),
        per_host(customer, |host| host.instance_id.clone()),
        per_host(customer, |host| host.state.clone()),
        per_host(customer, instance_type),
        per_host(customer, |host| since(host.age_s)),
        beat(customer).unwrap_or_else(unknown),
        hour.map_or_else(unknown, sessions),
        hour.map_or_else(unknown, tools),
        parameter(customer.parameters.brain_key.as_ref()),
        auth_key(customer),
    ]
}

fn narrow_row(customer: &CustomerStatus) -> Vec<String> {
    let beat = match beat(customer) {
        Some(ago) if customer.heartbeat.is_some() => format!("beat {ago} ago"),
        Some(_) => "never beat".to_owned(),
        None => "beat unknown".to_owned(),
    };
    let hour = match &customer.last_hour {
        None => "-".to_owned(),
        Some(hour) => format!("sessions {}\ntools {}", sessions(hour), tools(hour)),
    };
    vec![
        customer.customer.to_string(),
        format!("{}\n{beat}", customer.status.name()),
        per_host(customer, |host| {
            format!(
                "{}\n{} {}, {}",
                host.instance_id,
                host.state,
                instance_type(host),
                since(host.age_s)
            )
        }),
        hour,
        format!(
            "brain {}\ntailscale {}",
            parameter(customer.parameters.brain_key.as_ref()),
            auth_key(customer)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::status::expiry;
    use crate::status::{BrainStatus, ExpiryStatus, HeartbeatStatus, Parameters};

    fn customer(id: &str) -> CustomerStatus {
        let now = Timestamp::UNIX_EPOCH;
        let stored = || ParameterStatus {
            kind: "SecureString".to_owned(),
            version: 1,
            modified: Some(now),
            age_s: Some(29 * 86_400),
        };
        CustomerStatus {
            customer: id.parse().unwrap(),
            status: Word::Misconfigured,
            needs_person: true,
            problems: Vec::new(),
            parameters: Parameters {
                brain_key: Some(stored()),
                tailscale_auth_key: Some(stored()),
                tailscale_auth_key_id: None,
                tailscale_auth_key_good: None,
                tailscale_auth_key_expiry: Some(ExpiryStatus {
                    expiry: expiry::expiry(Some(now), None).unwrap(),
                    stage: Stage::Good,
                    left_s: 61 * 86_400,
                }),
                others: Vec::new(),
            },
            hosts: vec![HostStatus {
                instance_id: "i-0123456789abcdef0".to_owned(),
                state: "running".to_owned(),
                state_reason: None,
                instance_type: Some("m7i.48xlarge".to_owned()),
                launched: None,
                age_s: Some(3_600),
                instance_profile: None,
            }],
            heartbeat: Some(HeartbeatStatus {
                ts: now,
                age_s: 120,
                hostname: "ip-1".to_owned(),
            }),
            last_hour: Some(Hour {
                sessions_started: 1_234,
                sessions_failed: 56,
                at_least: true,
                ..Hour::default()
            }),
            last_hour_problem: None,
        }
    }

    fn document(customers: Vec<CustomerStatus>) -> StatusDocument {
        StatusDocument::new(
            FleetStatus::new(
                "123456789012",
                "eu-central-1",
                BrainStatus {
                    source: None,
                    url: None,
                    url_modified: None,
                    problem: None,
                },
                customers,
            ),
            true,
        )
    }

    #[test]
    fn the_table_fits_its_terminal_and_breaks_no_id() {
        let long = format!("cust_{}", "a".repeat(30));
        for (width, columns) in [(200, 11), (110, 5), (80, 5)] {
            let shown = document(vec![customer("cust_a"), customer(&long[..20])])
                .with_width(Some(width))
                .to_string();
            let table: Vec<&str> = shown.lines().skip(2).collect();
            let header: Vec<&str> = table[0].split("  ").filter(|h| !h.is_empty()).collect();
            assert_eq!(header.len(), columns, "{shown}");
            for line in &table {
                assert!(
                    measure_text_width(line) <= usize::from(width),
                    "{width}: {line}"
                );
            }
            assert_eq!(shown.matches("i-0123456789abcdef0").count(), 2, "{shown}");
            assert!(shown.contains(&long[..20]), "{shown}");
        }
    }
}
