//! Behaviour of the `m8trx` command as a user meets it: one file a behaviour.

mod bad_input;
mod command_line;
mod common;
mod events;
mod fleet;
mod interrupted;
mod offboard;
mod onboard;
mod patterns;
mod rotate_brain_key;
mod rotate_tailscale_key;
mod sandbox_up;
mod secrets;
mod smoke;
mod status;
mod terminal;
