//! Turns a fresh customer EC2 into a host that reports to the brain.

pub mod artifacts;
pub mod customer;
pub mod sandbox;
pub mod secret;
