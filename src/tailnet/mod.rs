//! The tailnet: Tailscale's API, and what of it concerns a customer.

mod backoff;
pub mod client;
pub mod devices;
pub mod doctor;
pub mod error;
pub mod keys;
pub mod lock;
mod minting;
pub mod policy;
pub mod policy_file;
pub mod standing;
mod token;

pub use client::{OAuthClient, Tailnet, TailnetSettings};
pub use error::TailnetError;

#[cfg(test)]
mod tests;
