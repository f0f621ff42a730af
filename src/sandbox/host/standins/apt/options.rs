//! apt's command line.

/// What was asked for on the command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub words: Vec<String>,
    pub yes: bool,
    pub quiet: u8,
    /// `DPkg::Lock::Timeout`, in seconds.
    pub lock_timeout: i64,
    /// `APT::Update::Error-Mode=any`.
    pub strict_update: bool,
    pub download_only: bool,
    pub simulate: bool,
}

pub(super) fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if let Some(name) = argument.strip_prefix("--") {
            let (name, value) = name
                .split_once('=')
                .map_or((name, None), |(name, value)| (name, Some(value)));
            match name {
                "yes" | "assume-yes" => options.yes = true,
                "quiet" => options.quiet += 1,
                "option" => {
                    let value = value
                        .map(str::to_owned)
                        .or_else(|| arguments.next().cloned());
                    setting(&mut options, &value.unwrap_or_default())?;
                }
                "download-only" => options.download_only = true,
                "simulate" | "dry-run" | "just-print" | "no-act" => options.simulate = true,
                "no-install-recommends"
                | "install-recommends"
                | "fix-missing"
                | "fix-broken"
                | "allow-downgrades"
                | "allow-change-held-packages"
                | "no-upgrade"
                | "only-upgrade"
                | "reinstall"
                | "purge"
                | "auto-remove"
                | "autoremove"
                | "allow-releaseinfo-change"
                | "no-show-upgraded"
                | "show-progress"
                | "allow-unauthenticated"
                | "force-yes"
                | "error-on"
                | "no-remove" => {
                    if name == "error-on" {
                        options.strict_update = value == Some("any");
                    }
                }
                _ => {
                    return Err(format!(
                        "E: Command line option --{name} is not understood in combination with the other options"
                    ));
                }
            }
        } else if let Some(letters) = argument
            .strip_prefix('-')
            .filter(|letters| !letters.is_empty())
        {
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                match letter {
                    'y' => options.yes = true,
                    'q' => options.quiet += 1,
                    'd' => options.download_only = true,
                    's' => options.simulate = true,
                    'f' | 'm' | 'u' | 'V' => {}
                    // `-qq` and `-q=2` both occur.
                    '=' => break,
                    'o' | 't' | 'c' => {
                        let rest = letters.as_str();
                        let value = if rest.is_empty() {
                            arguments.next().cloned().unwrap_or_default()
                        } else {
                            rest.to_owned()
                        };
                        if letter == 'o' {
                            setting(&mut options, &value)?;
                        }
                        break;
                    }
                    _ => {
                        return Err(format!(
                            "E: Command line option '{letter}' [from -{letter}] is not understood in combination with the other options."
                        ));
                    }
                }
            }
        } else {
            options.words.push(argument.clone());
        }
    }
    // Two of them imply yes (`man apt-get`).
    options.yes |= options.quiet >= 2;
    Ok(options)
}

fn setting(options: &mut Options, text: &str) -> Result<(), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!(
            "E: Option {text}: Configuration item specification must have an =<val>."
        ));
    };
    match name.to_ascii_lowercase().as_str() {
        "dpkg::lock::timeout" => options.lock_timeout = value.parse().unwrap_or(0),
        "apt::update::error-mode" => options.strict_update = value == "any",
        "apt::get::assume-yes" => options.yes = matches!(value, "true" | "1" | "yes"),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn reads_the_options_that_scripts_use() {
        let all = options("-o DPkg::Lock::Timeout=300 -oAPT::Update::Error-Mode=any install -yq --no-install-recommends jq").unwrap();
        assert_eq!(all.lock_timeout, 300);
        assert!(all.strict_update && all.yes);
        assert_eq!(all.words, ["install", "jq"]);
        assert!(options("-qq update").unwrap().yes);
        assert!(!options("install jq").unwrap().yes);
        assert!(
            options("install --frobnicate jq")
                .unwrap_err()
                .starts_with("E: Command line option --frobnicate")
        );
        assert!(
            options("-Z update")
                .unwrap_err()
                .starts_with("E: Command line option 'Z'")
        );
        assert!(options("-o Nonsense update").is_err());
    }
}
