//! The embedded sandbox: cloud, metadata service, brain, tailnet and hosts, in one process on loopback.

mod cloud;
mod fault;
pub mod host;
mod http;
mod random;
mod tls;
