//! The `m8trx` command.

fn main() {}
