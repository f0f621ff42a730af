//! The embedded sandbox: cloud, metadata service, brain, tailnet and hosts, in one process on loopback.

pub mod host;
