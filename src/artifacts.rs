//! The files that run on customer hosts, compiled into the binary.

/// The user-data of every customer host: one self-contained bash script.
pub const BOOTSTRAP_SH: &str = include_str!("../embedded/cloud-init/bootstrap.sh");
/// What a customer's role may read, with `*` where a customer id belongs.
pub const IAM_POLICY_JSON: &str = include_str!("../embedded/cloud-init/iam-policy.json");
