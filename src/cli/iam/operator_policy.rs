//! `m8trx iam operator-policy`

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;

use crate::aws::Aws;
use crate::aws::operations::{COMMANDS, CommandCalls, Operation};
use crate::aws::operator_policy::{Place, policy};
use crate::cli::Global;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// How long AWS may take to say which account this is, before the policy is printed without.
const PATIENCE: Duration = Duration::from_secs(10);

/// Print the least IAM policy with which m8trx works: for the user or role that runs it.
///
/// Account and region are those of the credentials in use, or of --account and --region; without either, `*`.
#[derive(Debug, Args)]
pub struct OperatorPolicyArgs {
    /// Only what this command needs, like `onboard` or `params put`; may be given several times.
    #[arg(long = "command", value_name = "NAME")]
    commands: Vec<String>,
    /// The account, instead of asking AWS.
    #[arg(long, value_name = "ID", value_parser = account)]
    account: Option<String>,
}

fn account(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("an AWS account id has 12 digits".to_owned())
    }
}

/// Runs the command. The policy is a document of its own, and the same in both output formats.
pub async fn run(
    args: &OperatorPolicyArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let operations = operations(&args.commands)?;
    let target = Target::open(global, &global.flags(), terminal).await?;
    let place = place(args, &target, terminal).await;
    target.close().await;
    let document = policy(&operations, &place);
    let text = serde_json::to_string_pretty(&document)
        .map_err(|e| Failure::words(Kind::Other, format!("the policy cannot be written: {e}")))?;
    terminal.write(&format!("{text}\n")).map_err(stdout_failed)
}

fn operations(commands: &[String]) -> Result<BTreeSet<Operation>, Failure> {
    for wanted in commands {
        if !COMMANDS.iter().any(|known| known.command == wanted) {
            let known: Vec<&str> = COMMANDS.iter().map(|known| known.command).collect();
            return Err(Failure::words(
                Kind::Usage,
                format!(
                    "no command of m8trx that calls AWS is `{}`",
                    wanted.escape_debug()
                ),
            )
            .hint(format!("these do: {}", known.join(", "))));
        }
    }
    Ok(COMMANDS
        .iter()
        .filter(|known| commands.is_empty() || commands.iter().any(|c| c == known.command))
        .flat_map(CommandCalls::operations)
        .collect())
}

/// As much as is known: the flags', then the connection's.
async fn place(args: &OperatorPolicyArgs, target: &Target, terminal: &Terminal) -> Place {
    let mut place = Place {
        partition: "aws".to_owned(),
        region: "*".to_owned(),
        account: "*".to_owned(),
    };
    let given = target.settings.aws.region.clone();
    if args.account.is_none() || given.is_none() {
        match tokio::time::timeout(PATIENCE, Aws::connect(&target.settings.aws)).await {
            Ok(Ok(aws)) => {
                place = Place {
                    partition: aws.partition,
                    region: aws.region,
                    account: aws.account,
                };
            }
            Ok(Err(_)) | Err(_) => terminal.say(
                "AWS was not reached: what --account and --region do not give is `*` in the policy.",
            ),
        }
    }
    if let Some(region) = given {
        if region.starts_with("cn-") {
            place.partition = "aws-cn".to_owned();
        } else if region.starts_with("us-gov-") {
            place.partition = "aws-us-gov".to_owned();
        }
        place.region = region;
    }
    if let Some(account) = &args.account {
        place.account.clone_from(account);
    }
    place
}
