//! Behaviour of the `m8trx` command as a user meets it: one file a behaviour.

mod bad_input;
mod command_line;
mod common;
mod interrupted;
mod onboard;
mod patterns;
mod sandbox_up;
mod secrets;
mod smoke;
mod tailnet_policy;
mod terminal;
