//! `m8trx help`: topics that belong to no single command, and the help of commands.

use std::fmt;

use clap::{Args, CommandFactory as _};
use serde::Serialize;

use super::Cli;
use super::onboarding::stdout_failed;
use crate::config::shown::SETTINGS;
use crate::terminal::Terminal;
use crate::terminal::failure::{EXIT_CODES, Failure, Kind};

/// The topics.
const TOPICS: [&str; 5] = ["exit-codes", "config", "environment", "sandbox", "security"];

/// Show help for a command, or for a topic: exit-codes, config, environment, sandbox, security.
#[derive(Debug, Args)]
pub struct HelpArgs {
    /// A topic, or the words of a command.
    #[arg(value_name = "TOPIC|COMMAND")]
    words: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Page {
    schema: &'static str,
    about: String,
    text: String,
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

/// Runs the command.
pub fn run(args: &HelpArgs, terminal: &Terminal) -> Result<(), Failure> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let text = match words[..] {
        ["exit-codes"] => EXIT_CODES.to_owned(),
        ["config"] => config(),
        ["environment"] => environment(),
        ["sandbox"] => SANDBOX.to_owned(),
        ["security"] => SECURITY.to_owned(),
        _ => command(&words)?,
    };
    let page = Page {
        schema: "m8trx.help/1",
        about: words.join(" "),
        text,
    };
    terminal.result(&page).map_err(stdout_failed)
}

fn command(words: &[&str]) -> Result<String, Failure> {
    let mut root = Cli::command();
    root.build();
    let mut command = &mut root;
    for word in words {
        let Some(found) = command.find_subcommand_mut(word) else {
            return Err(Failure::words(
                Kind::Usage,
                format!(
                    "there is no command and no topic `{}`",
                    words.join(" ").escape_debug()
                ),
            )
            .hint(format!(
                "topics: {}; commands: m8trx --help",
                TOPICS.join(", ")
            )));
        };
        command = found;
    }
    Ok(command.render_long_help().to_string())
}

/// The configuration file, a setting a line.
fn config() -> String {
    let mut text = String::from(
        "\
The configuration file is ~/.config/m8trx/config.toml ($XDG_CONFIG_HOME, M8TRX_CONFIG and --config say otherwise).
m8trx init writes one; m8trx config show shows what counts and where it comes from. Options come before the environment,
the environment before the file, the file before defaults. A relative path in it is relative to the file.
Secrets stand in files of their own, which only you may read (chmod 600).\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        let (own, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if own != section {
            text.push_str(&format!("\n[{own}]\n"));
            section = own;
        }
        let default = setting
            .default
            .map_or_else(String::new, |default| format!(" [default: {default}]"));
        text.push_str(&format!("  {key:20} {}{default}\n", setting.meaning));
    }
    text
}

/// Every variable that is looked at.
fn environment() -> String {
    let mut text =
        String::from("Variables of the environment; an empty one counts as not set.\n\n");
    let own = [
        (
            "M8TRX_CONFIG",
            "the configuration file [default: ~/.config/m8trx/config.toml]",
        ),
        (
            "XDG_CONFIG_HOME",
            "where m8trx/config.toml is looked for [default: ~/.config]",
        ),
        (
            "XDG_STATE_HOME",
            "where m8trx/runs keeps the journals of runs [default: ~/.local/state]",
        ),
        ("NO_COLOR", "no colours where it is set"),
        (
            "HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
            "proxies, except to this machine",
        ),
    ];
    let aws = [
        (
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
            "credentials, as the aws command takes them",
        ),
        (
            "AWS_DEFAULT_REGION",
            "AWS region, where AWS_REGION is not set",
        ),
        (
            "AWS_ENDPOINT_URL_SSM, _IAM, _EC2, _STS",
            "one endpoint for one AWS service",
        ),
    ];
    let settings = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.variable?, setting.meaning)));
    for (name, meaning) in settings.chain(own).chain(aws) {
        text.push_str(&format!("  {name}\n      {meaning}\n"));
    }
    text
}

const SANDBOX: &str = "\
The sandbox is AWS, the brain, the tailnet and the customer's host in one process: nothing leaves this machine, and nothing
is needed but Linux. The unmodified bootstrap runs in namespaces of its own.

  m8trx onboard cust_acme --sandbox     one onboarding; the sandbox ends with it
  m8trx sandbox up > sandbox.env        keeps one running until Ctrl-C; in another shell: . ./sandbox.env
                                        every command then, and the aws command, talks to it
  m8trx drill                           every failure that is recognised, and what is said about it
  m8trx onboard cust_acme --sandbox --fault apt-failed
                                        one failure; the names: m8trx drill --help

Where a shell still has the exports of a sandbox that has ended, open a new one.
";

const SECURITY: &str = "\
What each secret can do, and where it is:

  brain key            sends and reads one customer's events. In /m8trx/<id>/brain-key (SecureString), and on the host in
                       /etc/m8trx/brain.env (0600). Leaked: m8trx rotate-brain-key <id> --revoke-at-once
  Tailscale auth key   lets machines join with one customer's tag, which reaches the brain and nothing else. In
                       /m8trx/<id>/tailscale-auth-key, 90 days. Leaked: m8trx rotate-tailscale-key <id>
  admin token          mints and revokes every brain key. In a file of yours (brain.admin_token_file), never on a host.
                       Leaked: whoever runs the brain replaces it
  OAuth client         mints auth keys, reads devices, edits the policy file, as far as its scopes go. In a file of yours
                       (tailscale.client_secret_file). Leaked: delete it in Tailscale's admin console
  database URL         reads what its user may read. In a file of yours, or in the configuration file
  AWS credentials      what m8trx iam operator-policy lists

A host's role reads its own customer's parameters and the brain's URL, and nothing else.
Files with secrets that others may read are refused. Secrets are never arguments, and stand in no log, journal or
user-data. m8trx doctor checks the files; m8trx tailnet check checks that customers cannot reach each other.
";
