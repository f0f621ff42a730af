//! Behaviour of the `m8trx` command as a user meets it: one file a behaviour.

mod bad_input;
mod brain_url;
mod cloud;
mod command_line;
mod common;
mod iam;
mod interrupted;
mod launch_and_wait;
mod mint_key;
mod onboard;
mod operator_policy;
mod params;
mod patterns;
mod sandbox_up;
mod secrets;
mod smoke;
mod step_help;
mod terminal;
