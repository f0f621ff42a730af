//! What an onboarding needs to know before it begins: read from files, found in AWS, or asked for.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Read as _;
use std::path::Path;

use secrecy::zeroize::Zeroizing;

use crate::aws::Aws;
use crate::brain::client::KeyCheck;
use crate::brain::mint::DEFAULT_MINT_COMMAND;
use crate::brain::{Brain, BrainUrl};
use crate::config::Settings;
use crate::customer::{BRAIN_URL_PARAMETER, CustomerId};
use crate::plan::Observation;
use crate::resource::Resource;
use crate::secret::{BrainKey, ExposeSecret as _, SecretString, TailscaleAuthKey};
use crate::secret_file;
use crate::steps::{Context, Mint};
use crate::tailnet::keys::how_to_make_a_key;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// What files and standard input gave, checked.
pub(super) struct Given {
    pub(super) tailscale_key: Option<TailscaleAuthKey>,
    pub(super) brain_key: Option<BrainKey>,
    pub(super) admin_token: Option<SecretString>,
}

impl Given {
    pub(super) fn read(settings: &Settings) -> Result<Self, Failure> {
        let tailscale_key = match &settings.tailscale_key_file {
            Some(file) => Some(secret_from(
                file,
                "Tailscale auth key",
                TailscaleAuthKey::parse,
            )?),
            None => None,
        };
        let brain_key = match &settings.brain.key_file {
            Some(file) => Some(secret_from(file, "brain key", BrainKey::parse)?),
            None => None,
        };
        Ok(Self {
            tailscale_key,
            brain_key,
            admin_token: admin_token(settings)?,
        })
    }

    /// How a brain key is made: what a flag says before what is configured before the brain's own script.
    pub(super) fn mint(&self, settings: &Settings) -> Option<Mint> {
        if let Some(key) = &self.brain_key {
            return Some(Mint::Given(key.clone()));
        }
        if let Some(words) = &settings.brain.mint_command {
            return Some(Mint::Command(words.clone()));
        }
        if let Some(token) = &self.admin_token {
            return Some(Mint::Api(token.clone()));
        }
        // The default only where the brain is checked out: elsewhere the operator is asked for a key.
        let [_, script] = DEFAULT_MINT_COMMAND;
        Path::new(script)
            .is_file()
            .then(|| Mint::Command(DEFAULT_MINT_COMMAND.map(str::to_owned).to_vec()))
    }
}

/// The brain's admin token, where one is configured.
pub(super) fn admin_token(settings: &Settings) -> Result<Option<SecretString>, Failure> {
    settings
        .brain
        .admin_token_file
        .as_ref()
        .map(|file| read_secret(file, "brain's admin token"))
        .transpose()
}

/// Reads a secret that has no type of its own.
pub(super) fn read_secret(file: &Path, what: &str) -> Result<SecretString, Failure> {
    secret_from(file, what, |text| {
        Ok::<_, Infallible>(SecretString::from(text))
    })
}

/// Reads a secret from a file, or from standard input for `-`, into its type; at most 64 KiB.
pub(in crate::cli) fn secret_from<T, E: std::error::Error + 'static>(
    file: &Path,
    what: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Failure> {
    const MOST: usize = 64 * 1024;
    let unreadable = |e: std::io::Error| {
        Failure::words(
            Kind::Precondition,
            format!("the {what} cannot be read from {}: {e}", file.display()),
        )
    };
    // The room is made at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MOST));
    let most = MOST as u64;
    if file != Path::new("-")
        && let Err(problem @ secret_file::Problem::Open(_)) = secret_file::check(file)
    {
        return Err(Failure::words(
            Kind::Precondition,
            format!("the file {} with the {what} {problem}", file.display()),
        )
        .hint(secret_file::remedy(file)));
    }
    if file == Path::new("-") {
        std::io::stdin().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    }
    .map_err(unreadable)?;
    parse(text.trim())
        .map_err(|e| Failure::new(Kind::Precondition, &e).within(file.display().to_string()))
}

/// The stored URL of the brain, where one is stored.
async fn stored_brain_url(aws: &Aws) -> Result<Option<BrainUrl>, Failure> {
    let Some(stored) = aws.parameter(BRAIN_URL_PARAMETER).await? else {
        return Ok(None);
    };
    let url = stored.value.expose_secret().parse().map_err(|e| {
        Failure::new(Kind::Precondition, &e)
            .within(format!(
                "the parameter {BRAIN_URL_PARAMETER} holds no brain URL"
            ))
            .hint("correct it: m8trx brain-url set http://…")
    })?;
    Ok(Some(url))
}

/// The stored brain, which answers: for what is done with a customer that has something already.
pub(super) async fn stored_brain(aws: &Aws, terminal: &Terminal) -> Result<Brain, Failure> {
    let url = stored_brain_url(aws).await?.ok_or_else(|| {
        Failure::words(
            Kind::Precondition,
            format!("there is no {BRAIN_URL_PARAMETER} yet"),
        )
        .hint("store it: m8trx brain-url set http://…")
    })?;
    answering(url, terminal).await
}

/// A brain of which it is known that it answers.
pub(super) async fn answering(url: BrainUrl, terminal: &Terminal) -> Result<Brain, Failure> {
    let brain = Brain::new(url);
    brain.probe().await?;
    terminal.say(format!("Brain at {} answers", brain.url()));
    Ok(brain)
}

/// The brain this run uses: the stored one, or the one to store.
pub(super) async fn brain_url(
    aws: &Aws,
    settings: &Settings,
    terminal: &Terminal,
) -> Result<BrainUrl, Failure> {
    if let Some(url) = stored_brain_url(aws).await? {
        if let Some(other) = settings.brain.url.as_ref().filter(|other| **other != url) {
            if settings.brain.url_is_flag {
                return Err(Failure::words(
                    Kind::Precondition,
                    format!("{BRAIN_URL_PARAMETER} holds {url}, and --brain-url says {other}"),
                )
                .hint(format!("leave --brain-url out to use the stored one; to move the whole fleet: m8trx brain-url set {other}")));
            }
            terminal.warn(format!(
                "{BRAIN_URL_PARAMETER} holds {url}; the configured {other} is not used"
            ));
        }
        return Ok(url);
    }
    match &settings.brain.url {
        Some(url) if !(settings.suggest && !settings.brain.url_is_flag && terminal.interactive) => {
            Ok(url.clone())
        }
        suggestion if terminal.interactive => {
            let parse = |text: &str| text.parse::<BrainUrl>().map_err(|e| e.to_string());
            terminal
                .parsed(
                    "The brain's URL",
                    suggestion.as_ref().map(ToString::to_string),
                    parse,
                )
                .await
        }
        _ => Err(Failure::words(
            Kind::Precondition,
            format!("the brain's URL is not known: {BRAIN_URL_PARAMETER} does not exist yet"),
        )
        .hint("pass --brain-url http://…, or set `brain.url` in the configuration file")),
    }
}

/// Refuses a brain key that was made elsewhere and is no good for this customer, before anything is changed.
pub(super) async fn check_brain_key(
    brain: &Brain,
    customer: &CustomerId,
    key: &BrainKey,
) -> Result<(), Failure> {
    let refused = |what: String| {
        Err(Failure::words(
            Kind::Precondition,
            format!("{what}; nothing was changed"),
        )
        .hint(format!(
            "mint one for {customer} where the brain runs: node bin/mint-key.js {customer} \"m8trx onboard {customer}\""
        )))
    };
    match brain.check_key(key).await? {
        KeyCheck::Refused => refused(format!(
            "the brain at {} refuses the brain key that was given",
            brain.url()
        )),
        KeyCheck::CannotBeAsked => Ok(()),
        // A key sees its own customer's events; without any, the first heartbeat must show it.
        KeyCheck::Accepted => match brain.customer_of(key).await? {
            Some(other) if other != customer.as_str() => refused(format!(
                "the brain key that was given is of {other}, not of {customer}"
            )),
            _ => Ok(()),
        },
    }
}

/// Asks for a brain key where one is needed and nothing can mint it.
pub(super) async fn ask_for_brain_key(
    context: &mut Context,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if context.mint.is_some() || context.stored_brain_key().await?.is_some() {
        return Ok(());
    }
    let customer = &context.customer;
    if !terminal.interactive {
        return Err(Failure::words(
            Kind::Precondition,
            format!("{customer} needs a brain key, and nothing says how to mint one"),
        )
        .hint("pass --mint-command 'node bin/mint-key.js', or --brain-key-file FILE, or set M8TRX_BRAIN_ADMIN_TOKEN_FILE"));
    }
    terminal.say(format!(
        "{customer} needs a brain key. Where the brain runs: node bin/mint-key.js {customer} \"m8trx onboard {customer}\""
    ));
    let parse = |text: &str| BrainKey::parse(text).map_err(|e| e.to_string());
    while let Some(key) = terminal.secret("Brain key (hidden)", false, parse).await? {
        match check_brain_key(&context.brain, customer, &key).await {
            Ok(()) => {
                context.mint = Some(Mint::Given(key));
                break;
            }
            // Another one can be given.
            Err(failure) if failure.kind == Kind::Precondition => {
                terminal.warn(failure.causes.join(": "));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Takes the given Tailscale auth key, or asks for one, where one is needed and nothing can mint it. Where Tailscale's
/// API is configured, a given key is looked up there before it is taken.
pub(super) async fn give_tailscale_key(
    context: &Context,
    observed: &HashMap<&'static str, Observation>,
    given: Option<TailscaleAuthKey>,
    suggested: bool,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if observed
        .get(Resource::TailscaleAuthKey.name())
        .is_some_and(Observation::is_satisfied)
    {
        return Ok(());
    }
    let customer = &context.customer;
    let can_mint = context.tailnet.is_some();
    let key = match given {
        Some(key) => Some(key),
        None if terminal.interactive && (!can_mint || suggested) => {
            let question = if can_mint {
                "Tailscale auth key (hidden; Enter to let Tailscale's API mint one)"
            } else {
                terminal.say(format!(
                    "{customer} needs a Tailscale auth key: {}",
                    how_to_make_a_key(customer)
                ));
                "Tailscale auth key (hidden)"
            };
            let parse = |text: &str| TailscaleAuthKey::parse(text).map_err(|e| e.to_string());
            terminal.secret(question, can_mint, parse).await?
        }
        None => None,
    };
    match key {
        Some(key) => {
            check_key(context, &key).await?;
            let _ = context.tailscale_auth_key.set(key);
            Ok(())
        }
        None if can_mint => Ok(()),
        None => Err(Failure::words(
            Kind::Precondition,
            format!("{customer} needs a Tailscale auth key, and none was given"),
        )
        .hint(how_to_make_a_key(customer))),
    }
}

/// Refuses a key that is not good for exactly this customer, as far as it can be looked up.
async fn check_key(context: &Context, key: &TailscaleAuthKey) -> Result<(), Failure> {
    let Some(tailnet) = &context.tailnet else {
        return Ok(());
    };
    let customer = &context.customer;
    let refused = |problems: Vec<String>| {
        let mut failure = Failure::words(
            Kind::Precondition,
            format!(
                "the Tailscale auth key {} is not good for {customer}; nothing was changed",
                key.id()
            ),
        )
        .hint(format!(
            "leave it out and Tailscale's API mints one, or {}",
            how_to_make_a_key(customer)
        ));
        failure.causes.extend(problems);
        failure
    };
    match tailnet.auth_key(key.id()).await? {
        None => Err(refused(vec![
            "Tailscale does not know it: it was revoked or has expired, or belongs to another tailnet".to_owned(),
        ])),
        Some(known) => {
            let problems = known.problems(customer, jiff::Timestamp::now());
            if problems.is_empty() {
                Ok(())
            } else {
                Err(refused(problems))
            }
        }
    }
}
