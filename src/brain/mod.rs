//! The brain: its URL, its HTTP interface, its database, and how its keys are minted.

pub mod activity;
pub mod client;
pub mod database;
pub mod error;
pub mod events;
pub mod keys;
pub mod mint;
pub mod summary;
pub mod url;

pub use client::Brain;
pub use error::BrainError;
pub use url::BrainUrl;

use jiff::Timestamp;

/// A heartbeat as the brain recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// What the host calls itself.
    pub hostname: String,
    /// When the brain says it happened.
    pub ts: Timestamp,
}

/// A call of a tool as the brain recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Which tool; empty where the event does not say.
    pub tool_name: String,
    /// When the brain says it happened.
    pub ts: Timestamp,
}
