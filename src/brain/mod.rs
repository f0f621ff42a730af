//! The brain: its URL, its HTTP interface, its database, and how its keys are minted.

pub mod activity;
pub mod client;
pub mod database;
pub mod error;
pub mod events;
pub mod feed;
pub mod heartbeat;
pub mod keys;
pub mod mint;
pub mod summary;
pub mod url;

pub use client::Brain;
pub use error::BrainError;
pub use feed::Feeds;
pub use heartbeat::{Heartbeat, Heartbeats};
pub use url::BrainUrl;
