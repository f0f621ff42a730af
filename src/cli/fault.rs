//! The sandbox's faults as values on the command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use m8trx_sandbox::Fault;

/// Takes the name of a fault; the help lists them all.
pub fn fault() -> impl TypedValueParser<Value = Fault> {
    PossibleValuesParser::new(Fault::ALL.map(Fault::name)).try_map(|name| name.parse::<Fault>())
}
