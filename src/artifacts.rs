//! The files that run on customer hosts, compiled into the binary.

/// The user-data of every customer host: one self-contained bash script.
pub const BOOTSTRAP_SH: &str = include_str!("../embedded/cloud-init/bootstrap.sh");
/// What a customer's role may read, with `*` where a customer id belongs.
pub const IAM_POLICY_JSON: &str = include_str!("../embedded/cloud-init/iam-policy.json");

/// Each by its place in the source.
pub const ALL: [(&str, &str); 2] = [
    ("embedded/cloud-init/bootstrap.sh", BOOTSTRAP_SH),
    ("embedded/cloud-init/iam-policy.json", IAM_POLICY_JSON),
];
