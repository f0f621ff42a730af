//! The policy file of the tailnet: who reaches whom.
//!
//! ```text
//!  text ─hujson─▶ document ─read─▶ policy ─check─▶ violations
//!    ▲                │
//!    └──── merge ◀────┘      generate: a whole file for some customers
//! ```

pub mod address;
pub mod change;
pub mod check;
pub mod claims;
mod edit;
pub mod expectations;
pub mod generate;
pub mod hujson;
mod index;
pub mod merge;
pub mod model;
mod ours;
pub mod reachability;
mod read;
mod read_rules;
pub mod removal;
pub mod report;
pub mod selection;
pub mod traffic;
pub mod truth;

#[cfg(test)]
mod tests;
