//! The sandbox's faults as values on the command line.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::sandbox::Fault;

impl ValueEnum for Fault {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}
