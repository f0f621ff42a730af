//! Turns a fresh customer EC2 into a host that reports to the brain.

#![forbid(unsafe_code)]

pub mod artifacts;
pub mod aws;
pub mod bootstrap_log;
pub mod brain;
mod child;
pub mod cli;
pub mod config;
pub mod console_text;
pub mod customer;
pub mod diagnosis;
pub mod home;
mod http_client;
pub mod inventory;
pub mod offboarding;
pub mod parameter;
pub mod plan;
pub mod removal;
pub mod resource;
pub mod rotation;
pub mod secret;
pub mod secret_file;
pub mod smoke;
pub mod status;
pub mod steps;
pub mod tailnet;
pub mod terminal;
