//! The plan as a table and as JSON.

use std::collections::HashMap;
use std::fmt;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::plan::{Observation, Plan};

/// Stands for a customer where a plan is about every customer at once.
pub const FLEET: &str = "fleet";

/// What a plan would change now.
#[derive(Debug, Serialize)]
pub struct PlanDocument {
    schema: &'static str,
    customer: String,
    account: String,
    region: String,
    changes: usize,
    steps: Vec<PlannedStep>,
    #[serde(skip)]
    width: Option<u16>,
}

#[derive(Debug, Serialize)]
struct PlannedStep {
    name: &'static str,
    description: String,
    after: Vec<&'static str>,
    #[serde(flatten)]
    observation: Observation,
}

impl PlanDocument {
    /// Brings together a plan and what was observed of it.
    pub fn new(
        plan: &Plan,
        observed: &HashMap<&'static str, Observation>,
        customer: &str,
        account: &str,
        region: &str,
    ) -> Self {
        let steps: Vec<PlannedStep> = plan
            .steps()
            .iter()
            .filter_map(|step| {
                Some(PlannedStep {
                    name: step.name(),
                    description: step.describe(),
                    after: plan.after(step.as_ref()).collect(),
                    observation: observed.get(step.name())?.clone(),
                })
            })
            .collect();
        Self {
            schema: "m8trx.plan/1",
            customer: customer.to_owned(),
            account: account.to_owned(),
            region: region.to_owned(),
            changes: steps
                .iter()
                .filter(|step| !step.observation.is_satisfied())
                .count(),
            steps,
            width: None,
        }
    }

    /// Lays the table out for a terminal of this many columns.
    pub fn with_width(mut self, columns: u16) -> Self {
        self.width = Some(columns);
        self
    }

    /// How many steps have something to do.
    pub fn changes(&self) -> usize {
        self.changes
    }
}

impl fmt::Display for PlanDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = self.width {
            table.set_width(width);
        }
        for step in &self.steps {
            let sign = match &step.observation {
                Observation::Satisfied { .. } => "=",
                Observation::Missing { .. } => "+",
                Observation::Drifted { .. } => "~",
            };
            table.add_row(vec![
                sign.to_owned(),
                step.name.to_owned(),
                step.observation.lines().join("\n"),
            ]);
        }
        let customer = match self.customer.as_str() {
            FLEET => "the fleet",
            customer => customer,
        };
        writeln!(
            f,
            "Plan for {customer} in account {}, {}  (= is so, + to make, ~ to mend)",
            self.account, self.region
        )?;
        for line in table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        match self.changes {
            0 => write!(f, "Nothing to change."),
            1 => write!(f, "1 step to do."),
            count => write!(f, "{count} steps to do."),
        }
    }
}
