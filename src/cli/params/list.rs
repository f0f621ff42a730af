//! `m8trx params list`

use std::fmt;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::Serialize;

use super::{ask_to_reveal, check_may_reveal};
use crate::aws::Aws;
use crate::aws::ssm::ParameterInfo;
use crate::cli::Global;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::parameter::{MASK, ParameterId, ROOT};
use crate::secret::ExposeSecret as _;
use crate::terminal::failure::Failure;
use crate::terminal::{Terminal, text};

/// How many parameters are read at once: SSM answers 40 reads a second by default.
const READS_AT_ONCE: usize = 8;

/// List the parameters, of every customer or of some, without reading a secret.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only these customers' parameters, and the brain's URL.
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<CustomerId>,
    /// Read and show the values; asks first.
    #[arg(long)]
    reveal: bool,
}

impl ListArgs {
    pub(super) fn check(&self, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
        check_may_reveal(self.reveal, global, terminal)
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    schema: &'static str,
    revealed: bool,
    parameters: Vec<Row>,
    #[serde(skip)]
    now: Timestamp,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// `brain-key`, for one; `null` for what is no parameter of this project.
    parameter: Option<&'static str>,
    customer: Option<CustomerId>,
    r#type: String,
    version: i64,
    modified: Option<Timestamp>,
    value: String,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parameters.is_empty() {
            return write!(f, "There is no parameter below {ROOT}.");
        }
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(["NAME", "TYPE", "VERSION", "STORED", "VALUE"]);
        for row in &self.parameters {
            let stored = row
                .modified
                .map_or("?".to_owned(), |at| text::ago(at, self.now));
            let value = match row.parameter {
                Some(_) => row.value.clone(),
                None => format!("{} (not of m8trx)", row.value),
            };
            table.add_row([
                row.name.clone(),
                row.r#type.clone(),
                row.version.to_string(),
                stored,
                value,
            ]);
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
        write!(f, "{}", lines.join("\n"))
    }
}

pub(super) async fn run(
    args: &ListArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let aws = target.aws(terminal).await?;
    let mut found = aws.parameters_beneath([ROOT]).await?;
    found.retain(|parameter| {
        let id = parameter.name.parse::<ParameterId>().ok();
        let owner = id.as_ref().and_then(ParameterId::customer);
        args.customers.is_empty()
            || id == Some(ParameterId::BrainUrl)
            || owner.is_some_and(|owner| args.customers.contains(owner))
    });
    // The fleet's own first, then by customer.
    found.sort_by(|a, b| {
        let depth = |name: &str| name.matches('/').count();
        (depth(&a.name), &a.name).cmp(&(depth(&b.name), &b.name))
    });
    if args.reveal {
        ask_to_reveal(&format!("{} values", found.len()), terminal).await?;
    }
    let parameters = futures::stream::iter(found)
        .map(|parameter| row(&aws, parameter, args.reveal))
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let listed = Listed {
        schema: "m8trx.params-list/1",
        revealed: args.reveal,
        parameters,
        now: Timestamp::now(),
    };
    terminal.result(&listed).map_err(stdout_failed)
}

async fn row(aws: &Aws, found: ParameterInfo, reveal: bool) -> Result<Row, Failure> {
    let id = found.name.parse::<ParameterId>().ok();
    let value = if reveal || id == Some(ParameterId::BrainUrl) {
        let read = aws.parameter(&found.name).await?;
        read.map_or("gone meanwhile".to_owned(), |read| {
            read.value.expose_secret().escape_debug().to_string()
        })
    } else {
        MASK.to_owned()
    };
    Ok(Row {
        parameter: id.as_ref().map(ParameterId::step),
        customer: id.as_ref().and_then(ParameterId::customer).cloned(),
        name: found.name,
        r#type: found.kind,
        version: found.version,
        modified: found.modified,
        value,
    })
}
