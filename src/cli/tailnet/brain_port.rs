//! The brain's port, which the policy file opens to customers: that of the brain's URL.

use std::time::Duration;

use crate::aws::Aws;
use crate::brain::BrainUrl;
use crate::config::Settings;
use crate::customer::BRAIN_URL_PARAMETER;
use crate::secret::ExposeSecret as _;
use crate::tailnet::policy::model::DEFAULT_BRAIN_PORT;
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// How long AWS is asked for a port that can be guessed without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The port of the URL that hosts are given, where AWS can be asked for it; else as [`configured`].
pub(super) async fn stored(settings: &Settings, terminal: &Terminal) -> u16 {
    let asked = async {
        let aws = Aws::connect(&settings.aws).await.ok()?;
        of_aws(&aws, terminal).await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Some(port)) => port,
        _ => configured(settings, terminal),
    }
}

/// The port of the URL that hosts are given.
pub(in crate::cli) async fn of_aws(aws: &Aws, terminal: &Terminal) -> Option<u16> {
    let stored = match aws.parameter(BRAIN_URL_PARAMETER).await {
        Ok(stored) => stored?,
        Err(error) => {
            let failure = Failure::from(error);
            terminal.warn(format!(
                "the brain's stored URL, and so its port, is not known: {}",
                failure.in_a_line()
            ));
            return None;
        }
    };
    let url: BrainUrl = stored.value.expose_secret().parse().ok()?;
    Some(url.port())
}

/// The port of the URL that this program is told; else the usual one, and people are told so.
pub(super) fn configured(settings: &Settings, terminal: &Terminal) -> u16 {
    if let Some(url) = &settings.brain.url {
        return url.port();
    }
    terminal.say(format!(
        "The brain's URL is not known here, so its port is taken to be {DEFAULT_BRAIN_PORT}; M8TRX_BRAIN_URL or `url` of `[brain]` says another"
    ));
    DEFAULT_BRAIN_PORT
}
