//! `m8trx init`

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::Global;
use super::onboarding::stdout_failed;
use crate::aws::Aws;
use crate::brain::client::KeyCheck;
use crate::brain::database::Database;
use crate::brain::{Brain, BrainUrl};
use crate::config::{Flags, Settings, parse_region, shown};
use crate::secret::BrainKey;
use crate::secret_file;
use crate::tailnet::Tailnet;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Ask for what onboarding needs, try each answer, and write the configuration file.
///
/// Account, region, brain, how its keys are made, its database, Tailscale's OAuth client, subnet. Nothing else is changed.
/// An answer that does not work is asked for again, with the reason. `-` leaves something out.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Replace a configuration file that is there; the old one is kept beside it.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Written {
    schema: &'static str,
    file: String,
    account: String,
    region: String,
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} is written. Next: m8trx doctor, then m8trx onboard cust_…",
            self.file
        )
    }
}

/// What was answered, as it goes into the file.
#[derive(Debug, Default)]
struct Answers {
    profile: Option<String>,
    region: String,
    account: String,
    identity: String,
    brain_url: Option<String>,
    mint_command: Option<Vec<String>>,
    admin_token_file: Option<PathBuf>,
    database_url_file: Option<PathBuf>,
    client: Option<(String, PathBuf)>,
    subnet: Option<String>,
}

/// Runs the command.
pub async fn run(args: &InitArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    if !terminal.interactive {
        return Err(Failure::words(
            Kind::Usage,
            "init asks questions, and there is no terminal to ask them",
        )
        .hint(
            "run it at a terminal, without --yes; for machines, write the file: m8trx help config",
        ));
    }
    let flags = global.flags();
    let environment = |name: &str| std::env::var(name).ok();
    let path = shown::file(&flags, &environment).ok_or_else(|| {
        Failure::words(
            Kind::Precondition,
            "neither HOME nor XDG_CONFIG_HOME is set",
        )
        .hint("name the file: m8trx init --config FILE")
    })?;
    if path.exists() && !args.force {
        return Err(Failure::words(
            Kind::Precondition,
            format!("{} is there already; nothing was changed", path.display()),
        )
        .hint("m8trx config show shows it; m8trx init --force asks anew and keeps the old one beside it"));
    }
    terminal.say(
        "Each answer is tried. `-` leaves something out; Ctrl-C stops, and nothing is written.",
    );
    let (aws, mut answers) = account(global, terminal).await?;
    brain(&mut answers, terminal).await?;
    tailscale(&mut answers, terminal).await?;
    subnet(&aws, &mut answers, terminal).await?;
    let text = text(&answers);
    write(&path, &text)?;
    // What was written must be what a command reads.
    let reread = Flags {
        config: Some(path.clone()),
        ..flags
    };
    Settings::resolve(&reread, &environment)?;
    let written = Written {
        schema: "m8trx.init/1",
        file: path.display().to_string(),
        account: answers.account,
        region: answers.region,
    };
    terminal.result(&written).map_err(stdout_failed)
}

/// An answer, or `None` for `-`.
async fn optional(
    question: &str,
    suggestion: Option<String>,
    terminal: &Terminal,
) -> Result<Option<String>, Failure> {
    let suggestion = suggestion.unwrap_or_else(|| "-".to_owned());
    let answer = terminal
        .input(question, Some(suggestion), |_: &str| Ok(()))
        .await?;
    let answer = answer.trim().to_owned();
    Ok((!answer.is_empty() && answer != "-").then_some(answer))
}

/// A path, in which `~` is the home directory.
fn path(answer: &str) -> PathBuf {
    match (answer.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => std::path::absolute(answer).unwrap_or_else(|_| PathBuf::from(answer)),
    }
}

/// Asks for a file with a secret until there is one that only its owner reads.
async fn secret_path(question: &str, terminal: &Terminal) -> Result<Option<PathBuf>, Failure> {
    loop {
        let Some(answer) = optional(question, None, terminal).await? else {
            return Ok(None);
        };
        let file = path(&answer);
        match secret_file::check(&file) {
            Ok(()) => return Ok(Some(file)),
            Err(problem) => {
                terminal.warn(format!("{} {problem}", file.display()));
                if matches!(problem, secret_file::Problem::Open(_)) {
                    terminal.say(format!("  {}", secret_file::remedy(&file)));
                }
            }
        }
    }
}

async fn account(global: &Global, terminal: &Terminal) -> Result<(Aws, Answers), Failure> {
    let mut suggested = global
        .region
        .clone()
        .or_else(|| std::env::var("AWS_REGION").ok());
    loop {
        let has_keys = std::env::var_os("AWS_ACCESS_KEY_ID").is_some();
        let default = if has_keys {
            None
        } else {
            Some("default".to_owned())
        };
        let profile = match &global.profile {
            Some(profile) => Some(profile.clone()),
            None => {
                optional(
                    "AWS profile (- for the environment's credentials)",
                    default,
                    terminal,
                )
                .await?
            }
        };
        let region = terminal
            .input("AWS region", suggested.clone(), |text: &str| {
                parse_region(text.trim()).map(drop)
            })
            .await?;
        let region = region.trim().to_owned();
        let flags = Flags {
            region: Some(region.clone()),
            profile: profile.clone(),
            config: None,
            ..global.flags()
        };
        // A file that is to be replaced has no say.
        let no_file = |name: &str| {
            let variable = std::env::var(name).ok();
            variable.filter(|_| !matches!(name, "M8TRX_CONFIG" | "XDG_CONFIG_HOME" | "HOME"))
        };
        let settings = Settings::resolve(&flags, &no_file)?;
        match Aws::connect(&settings.aws).await {
            Ok(aws) => {
                terminal.say(format!(
                    "  account {}, region {region}, as {}",
                    aws.account, aws.identity
                ));
                let question =
                    "The one account that m8trx may work in (Enter: this one; - asks again)";
                let own = aws.account.clone();
                let check = move |text: &str| match text.trim() {
                    "-" => Ok(()),
                    text if text == own => Ok(()),
                    _ => Err(format!("the credentials are of {own}")),
                };
                let account = terminal
                    .input(question, Some(aws.account.clone()), check)
                    .await?;
                if account.trim() != "-" {
                    let answers = Answers {
                        profile,
                        region,
                        account: aws.account.clone(),
                        identity: aws.identity.clone(),
                        ..Answers::default()
                    };
                    return Ok((aws, answers));
                }
            }
            Err(error) => terminal.warn(Failure::from(error).in_a_line()),
        }
        if global.profile.is_some() {
            return Err(Failure::words(
                Kind::Precondition,
                "the profile of --profile does not work; nothing was written",
            ));
        }
        suggested = Some(region);
    }
}

async fn brain(answers: &mut Answers, terminal: &Terminal) -> Result<(), Failure> {
    terminal.say("The brain is your team's event server; its hosts reach it over the tailnet.");
    let suggestion = std::env::var("M8TRX_BRAIN_URL").ok();
    let brain = loop {
        let Some(answer) = optional("The brain's URL", suggestion.clone(), terminal).await? else {
            answers.brain_url = None;
            break None;
        };
        let url: BrainUrl = match answer.parse() {
            Ok(url) => url,
            Err(error) => {
                terminal.warn(format!("{error}"));
                continue;
            }
        };
        let brain = Brain::new(url);
        // An answer that is given a second time is meant.
        let again = answers.brain_url.as_deref() == Some(brain.url().as_str());
        answers.brain_url = Some(brain.url().to_string());
        let no_key = BrainKey::parse("m8trx-asks-whether-this-is-a-brain")
            .map_err(|e| Failure::new(Kind::Other, &e))?;
        match brain.check_key(&no_key).await {
            Ok(KeyCheck::Accepted) => {
                terminal.warn("what answers there takes every key: it is no brain")
            }
            Ok(_) => {
                terminal.say("  it answers");
                break Some(brain);
            }
            Err(error) => terminal.warn(Failure::new(Kind::Other, &error).in_a_line()),
        }
        if again {
            break None;
        }
        terminal.say("  give it once more to write it all the same");
    };
    loop {
        let question =
            "File with the brain's admin token, to mint keys (- where a command mints them)";
        let Some(file) = secret_path(question, terminal).await? else {
            break;
        };
        let token = super::inputs::read_secret(&file, "brain's admin token")?;
        let accepted = match &brain {
            Some(brain) => brain.check_admin_token(&token).await,
            None => Ok(KeyCheck::CannotBeAsked),
        };
        match accepted {
            Ok(KeyCheck::Refused) => terminal.warn("the brain refuses this token"),
            Err(error) => terminal.warn(error.to_string()),
            Ok(check) => {
                terminal.say(match check {
                    KeyCheck::Accepted => "  the brain takes it",
                    _ => "  it could not be tried",
                });
                answers.admin_token_file = Some(file);
                break;
            }
        }
    }
    while answers.admin_token_file.is_none() {
        let question = "Command that mints a key, like: ssh brain node bin/mint-key.js (- to be asked for keys)";
        let Some(command) = optional(question, None, terminal).await? else {
            break;
        };
        match shell_words::split(&command) {
            Ok(words)
                if words
                    .first()
                    .is_some_and(|program| super::doctor::is_program(program)) =>
            {
                terminal.say("  its program is there; it is run when a key is needed");
                answers.mint_command = Some(words);
                break;
            }
            Ok(words) => terminal.warn(format!(
                "`{}` is no program here",
                words.first().map_or("", String::as_str).escape_debug()
            )),
            Err(error) => terminal.warn(error.to_string()),
        }
    }
    loop {
        let question = "File with the URL of the brain's PostgreSQL (- to read events over HTTP)";
        let Some(file) = secret_path(question, terminal).await? else {
            return Ok(());
        };
        let url = super::inputs::read_secret(&file, "database's URL")?;
        match Database::connect(&url).await {
            Ok(database) => match database.has_index().await {
                Ok(indexed) => {
                    terminal.say(if indexed {
                        "  it answers"
                    } else {
                        "  it answers; `events` has no index by customer"
                    });
                    answers.database_url_file = Some(file);
                    return Ok(());
                }
                Err(error) => terminal.warn(error.to_string()),
            },
            Err(error) => terminal.warn(error.to_string()),
        }
    }
}

async fn tailscale(answers: &mut Answers, terminal: &Terminal) -> Result<(), Failure> {
    terminal.say("Tailscale's OAuth client mints auth keys: https://login.tailscale.com/admin/settings/oauth (README says which scopes).");
    loop {
        let suggestion = std::env::var("M8TRX_TAILSCALE_CLIENT_ID").ok();
        let Some(id) = optional(
            "Id of the OAuth client (- to paste auth keys)",
            suggestion,
            terminal,
        )
        .await?
        else {
            return Ok(());
        };
        let Some(file) = secret_path("File with its secret", terminal).await? else {
            continue;
        };
        // As a command would read it, with the API that the environment names.
        let found = Settings::tailnet_client(&id, &file, &|name| std::env::var(name).ok());
        let tailnet = match found {
            Ok(settings) => Tailnet::new(settings),
            Err(error) => {
                terminal.warn(error.to_string());
                continue;
            }
        };
        if let Err(error) = tailnet.sign_in().await {
            terminal.warn(Failure::from(error).in_a_line());
            continue;
        }
        let (policy, devices, keys) = tokio::join!(
            tailnet.policy_file(),
            tailnet.devices(),
            tailnet.auth_keys()
        );
        for (scope, error) in [
            ("policy_file", policy.err()),
            ("devices", devices.err()),
            ("auth_keys", keys.err()),
        ] {
            match error {
                None => terminal.say(format!("  {scope}: it reads them")),
                Some(error) => {
                    terminal.warn(format!("{scope}: {}", Failure::from(error).in_a_line()))
                }
            }
        }
        answers.client = Some((id, file));
        return Ok(());
    }
}

async fn subnet(aws: &Aws, answers: &mut Answers, terminal: &Terminal) -> Result<(), Failure> {
    let subnets = match aws.subnets().await {
        Ok(subnets) => subnets,
        Err(error) => {
            terminal.warn(Failure::from(error).in_a_line());
            return Ok(());
        }
    };
    terminal.say("Subnets:");
    for (number, subnet) in subnets.iter().enumerate() {
        terminal.say(format!("  {:>3}  {subnet}", number + 1));
    }
    loop {
        let Some(answer) = optional(
            "Subnet of new hosts, by number or id (- for the default VPC)",
            None,
            terminal,
        )
        .await?
        else {
            return Ok(());
        };
        let by_number = answer
            .parse::<usize>()
            .ok()
            .and_then(|number| subnets.get(number.checked_sub(1)?));
        let found = by_number.or_else(|| subnets.iter().find(|subnet| subnet.id == answer));
        match found {
            Some(subnet) => {
                answers.subnet = Some(subnet.id.clone());
                return Ok(());
            }
            None => terminal.warn(format!("`{}` is not in the list", answer.escape_debug())),
        }
    }
}

/// A text as TOML has it: JSON's strings are TOML's basic strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The file: each setting with what it is for, those that were not given as comments.
fn text(answers: &Answers) -> String {
    let mut text = format!(
        "# m8trx, written by `m8trx init` for account {} as {}.\n\
         # Options come before the environment, the environment before this file: m8trx config show\n",
        answers.account, answers.identity
    );
    let mut section = "";
    for setting in shown::SETTINGS {
        let (own, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        let file = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| quoted(&path.display().to_string()))
        };
        let value = match setting.key {
            "aws.profile" => answers.profile.as_deref().map(quoted),
            "aws.region" => Some(quoted(&answers.region)),
            "aws.account" => Some(quoted(&answers.account)),
            "brain.url" => answers.brain_url.as_deref().map(quoted),
            "brain.mint_command" => answers.mint_command.as_ref().map(|words| {
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                format!("[{}]", words.join(", "))
            }),
            "brain.admin_token_file" => file(&answers.admin_token_file),
            "brain.database_url_file" => file(&answers.database_url_file),
            "tailscale.client_id" => answers.client.as_ref().map(|(id, _)| quoted(id)),
            "tailscale.client_secret_file" => answers
                .client
                .as_ref()
                .map(|(_, file)| quoted(&file.display().to_string())),
            "launch.subnet" => answers.subnet.as_deref().map(quoted),
            _ => None,
        };
        if own != section {
            let _ = write!(text, "\n[{own}]\n");
            section = own;
        }
        let _ = writeln!(text, "# {}", setting.meaning);
        let _ = match (value, setting.default) {
            (Some(value), _) => writeln!(text, "{key} = {value}"),
            (None, Some(default)) => writeln!(text, "# {key} = {}", quoted(default)),
            (None, None) => writeln!(text, "# {key} ="),
        };
    }
    text
}

/// Writes the file for this user alone; one that was there is kept beside it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        Failure::words(
            Kind::Precondition,
            format!("{} cannot be written: {e}", path.display()),
        )
    };
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
    }
    let new = path.with_extension("toml.new");
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    if path.exists() {
        std::fs::rename(path, path.with_extension("toml.old")).map_err(failed)?;
    }
    std::fs::rename(&new, path).map_err(failed)
}
