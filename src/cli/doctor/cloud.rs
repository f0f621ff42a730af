//! AWS: credentials, permissions, image, network, and a launch that is only rehearsed.

use std::collections::BTreeSet;

use super::Check;
use crate::aws::Aws;
use crate::aws::ec2_launch::Rehearsal;
use crate::config::Settings;
use crate::customer::CustomerId;
use crate::steps::{Context, image};
use crate::terminal::failure::Failure;

/// Who asks, and where. Nothing else of AWS can be looked at without it.
pub(super) async fn connect(settings: &Settings, checks: &mut Vec<Check>) -> Option<Aws> {
    const NAME: &str = "credentials";
    match Aws::connect(&settings.aws).await {
        Ok(aws) => {
            let (account, region, identity) = (&aws.account, &aws.region, &aws.identity);
            checks.push(Check::ok(
                NAME,
                format!("account {account}, region {region}, as {identity}"),
            ));
            Some(aws)
        }
        Err(error) => {
            checks.push(Check::failed(NAME, Failure::from(error)));
            None
        }
    }
}

/// A customer that nobody has, for questions about a customer's names.
fn nobody() -> CustomerId {
    "cust_m8trx_doctor"
        .parse()
        .expect("it is well-formed and constant")
}

/// The rest; gives the customers, where they can be listed.
pub(super) async fn examine(
    aws: &Aws,
    settings: &Settings,
    checks: &mut Vec<Check>,
) -> Option<BTreeSet<CustomerId>> {
    let role = nobody().resource_name();
    let (customers, role) = tokio::join!(aws.customers(), aws.role(&role));
    let customers = match customers {
        Ok(customers) => Some(customers),
        Err(error) => {
            checks.push(Check::failed("permissions", error.into()));
            None
        }
    };
    if let Err(error) = &role {
        checks.push(Check {
            remedy: error.hint(),
            ..Check::new("permissions", super::State::Failed, error.to_string())
        });
    }
    if let (Some(customers), Ok(_)) = (&customers, &role) {
        checks.push(Check::ok(
            "permissions",
            format!(
                "parameters, roles and hosts can be listed ({}); what writes cannot be tried without writing: compare with m8trx iam operator-policy",
                crate::terminal::text::counted(customers.len(), "customer")
            ),
        ));
    }
    let context = Context {
        instance_type: settings.instance_type.clone(),
        ami: settings.ami.clone(),
        ..Context::without_brain(nobody(), aws.clone())
    };
    let image = image::resolve(&context).await;
    let vpc = network(aws, settings, checks).await;
    match image {
        Ok(image) => {
            checks.push(Check::ok(
                "image",
                format!(
                    "{} ({}) for {}",
                    image.id, image.architecture, settings.instance_type
                ),
            ));
            if vpc {
                let rehearsal = Rehearsal {
                    image: &image,
                    instance_type: &settings.instance_type,
                    subnet: settings.subnet.as_deref(),
                    customer: context.customer.as_str(),
                };
                checks.push(match aws.rehearse_launch(&rehearsal).await {
                    Ok(()) => Check::ok("launch", "EC2 would launch a host (dry run)"),
                    Err(error) => Check::failed("launch", error.into()),
                });
            } else {
                checks.push(Check::skipped(
                    "launch",
                    "there is no network to launch into",
                ));
            }
        }
        Err(error) => {
            checks.push(Check::failed(
                "image",
                crate::cli::execution::step_failure(error),
            ));
            checks.push(Check::skipped("launch", "there is no image to launch"));
        }
    }
    customers
}

/// Whether there is a network for a new host.
async fn network(aws: &Aws, settings: &Settings, checks: &mut Vec<Check>) -> bool {
    const NAME: &str = "network";
    const LIST: &str = "aws ec2 describe-subnets --query 'Subnets[].[SubnetId,VpcId,AvailabilityZone,CidrBlock]' --output table";
    let found = match &settings.subnet {
        Some(subnet) => aws.subnet_vpc(subnet).await,
        None => aws.default_vpc().await,
    };
    let (check, is_there) = match (found, &settings.subnet) {
        (Ok(Some(vpc)), Some(subnet)) => (Check::ok(NAME, format!("{subnet} in {vpc}")), true),
        (Ok(Some(vpc)), None) => (Check::ok(NAME, format!("the default VPC, {vpc}")), true),
        (Ok(None), Some(subnet)) => (
            Check::wrong(
                NAME,
                format!("{} has no subnet {subnet}", aws.region),
                format!("choose one of: {LIST}; and write it as launch.subnet"),
            ),
            false,
        ),
        (Ok(None), None) => (
            Check::wrong(
                NAME,
                format!(
                    "{} has no default VPC, and no subnet is configured",
                    aws.region
                ),
                format!("choose one of: {LIST}; and write it as launch.subnet, or pass --subnet"),
            ),
            false,
        ),
        (Err(error), _) => (Check::failed(NAME, error.into()), false),
    };
    checks.push(check);
    is_there
}
