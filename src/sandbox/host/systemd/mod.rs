//! A small service manager with systemd's behaviour, for what user-data of a customer host does with it: unit files with
//! drop-ins, oneshot and long-running services in their clean environment and their private mounts, timers, jobs, the journal.
//!
//! Texts are those of systemd 249, Ubuntu 22.04's. What is accepted and not enforced: `User=`, `DynamicUser=` (a host has one user
//! id), seccomp filters, device and resource limits.

mod calendar;
mod deadline;
mod exec;
mod jobs;
pub(super) mod journal;
mod known;
mod manager;
mod output;
mod places;
mod process;
mod protection;
pub(super) mod protocol;
mod service;
pub(super) mod span;
mod timer;
pub(super) mod unit;

pub(super) use manager::Manager;
