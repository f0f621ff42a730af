//! The tailnet.

pub mod policy;
