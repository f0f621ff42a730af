//! AWS: one file a service, one that builds the configuration, one for errors.

pub mod client;
pub mod credentials;
pub mod customers;
pub mod ec2;
pub mod ec2_launch;
pub mod ec2_network;
pub mod error;
pub mod fleet;
pub mod iam;
mod not_aws;
pub mod operations;
pub mod operator_policy;
pub mod ssm;

pub use client::{Aws, AwsSettings, Expected, StaticCredentials};
pub use credentials::{ProfileChoice, ProfileOrigin};
pub use error::AwsError;
