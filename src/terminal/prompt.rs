//! Questions to the operator. Asked only where a person is there; otherwise the error names the missing flag.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use console::{Key, Term};
use dialoguer::Input;
use nix::sys::termios::{FlushArg, tcflush};
use secrecy::zeroize::Zeroizing;

use super::failure::{Failure, Kind};
use super::{Terminal, locked, text};

/// How long the signal of a Ctrl-C at a question takes to arrive, at most.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(1);

impl Terminal {
    /// Runs a blocking question without blocking the runtime. What was typed before it was asked answers nothing.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let watch = self.interrupt.watch();
        self.hush();
        let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
        let answer = tokio::task::spawn_blocking(question);
        let interrupted = || Failure::words(Kind::Interrupted, "interrupted; nothing was changed");
        tokio::select! {
            answer = answer => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {
                    let _ = tokio::time::timeout(SIGNAL_PATIENCE, watch.requested()).await;
                    self.say("");
                    Err(interrupted())
                }
                Ok(Err(e)) => Err(Failure::words(Kind::Other, format!("the answer could not be read: {e}"))),
                Err(e) => std::panic::resume_unwind(e.into_panic()),
            },
            // The question is still waiting on its own thread; it ends with the process.
            () = watch.requested() => {
                self.restore();
                self.say("");
                Err(interrupted())
            }
        }
    }

    /// Yes or no, in a word. Nothing is meant by Enter alone, and anything else is asked again.
    pub async fn confirm(&self, question: &str) -> Result<bool, Failure> {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            "" => Err("type y or n, then Enter".to_owned()),
            other => Err(format!(
                "type y or n, then Enter: `{}` is neither",
                text::foreign(other, 40)
            )),
        };
        self.parsed(&format!("{question} [y/n]"), None, parse).await
    }

    /// [`Self::confirm`] where a person is there to ask; a no ends the command.
    pub async fn agree(&self, question: &str) -> Result<(), Failure> {
        if self.interactive && !self.confirm(question).await? {
            return Err(Failure::words(
                Kind::Interrupted,
                "not gone on with; nothing was changed",
            ));
        }
        Ok(())
    }

    /// A line of text that `check` accepts, with a suggestion where there is one.
    pub async fn input(
        &self,
        question: &str,
        suggestion: Option<String>,
        check: impl Fn(&str) -> Result<(), String> + Send + 'static,
    ) -> Result<String, Failure> {
        let parse = move |text: &str| check(text).map(|()| text.to_owned());
        self.parsed(question, suggestion, parse).await
    }

    /// A line of text as what `parse` makes of it, with a suggestion where there is one.
    pub async fn parsed<T: Send + 'static>(
        &self,
        question: &str,
        suggestion: Option<String>,
        parse: impl Fn(&str) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Failure> {
        let question = question.to_owned();
        let terminal = self.clone();
        self.ask(move || {
            let parsed = Arc::new(Mutex::new(None));
            let accepted = Arc::clone(&parsed);
            let refused = terminal.clone();
            let mut input = Input::<String>::new()
                .with_prompt(question)
                .allow_empty(true)
                .validate_with(move |text: &String| match parse(text.trim()) {
                    Ok(value) => {
                        *locked(&accepted) = Some(value);
                        Ok(())
                    }
                    Err(why) => Err(refused.refusal(&why)),
                });
            if let Some(suggestion) = suggestion {
                input = input.default(suggestion);
            }
            input.interact_text().map_err(io::Error::from)?;
            locked(&parsed)
                .take()
                .ok_or_else(|| io::Error::other("it was not parsed"))
        })
        .await
    }

    /// A secret, hidden while it is typed, that `parse` accepts; `None` for an empty answer where that is allowed.
    pub async fn secret<T: Send + 'static>(
        &self,
        question: &str,
        may_be_empty: bool,
        parse: impl Fn(&str) -> Result<T, String> + Send + 'static,
    ) -> Result<Option<T>, Failure> {
        let question = question.to_owned();
        let terminal = self.clone();
        self.ask(move || {
            let term = Term::stderr();
            loop {
                term.write_str(&format!("{question}: "))?;
                let typed = hidden_line(&term);
                term.write_line("")?;
                let typed = typed?;
                let typed = typed.trim();
                let why = match parse(typed) {
                    _ if typed.is_empty() && may_be_empty => return Ok(None),
                    _ if typed.is_empty() => {
                        "an answer is needed; Ctrl-C ends without any change".to_owned()
                    }
                    Ok(secret) => return Ok(Some(secret)),
                    Err(why) => why,
                };
                term.write_line(&terminal.refusal(&why))?;
            }
        })
        .await
    }

    /// Why an answer is not taken, laid out so that every row of it is a line.
    fn refusal(&self, why: &str) -> String {
        let why = text::visible(why);
        match self.columns() {
            // The prompt puts `error: ` before it.
            Some(columns) => text::wrap(&why, usize::from(columns.saturating_sub(8))),
            None => why.into_owned(),
        }
    }
}

/// Reads a line key by key and shows nothing. The room is made at once: a text that grows leaves copies behind.
fn hidden_line(term: &Term) -> io::Result<Zeroizing<String>> {
    const MOST: usize = 16 * 1024;
    let mut typed = Zeroizing::new(String::with_capacity(MOST));
    loop {
        match term.read_key()? {
            Key::Enter => return Ok(typed),
            Key::Backspace => {
                typed.pop();
            }
            // Ctrl-U begins again.
            Key::Char('\u{15}') => typed.clear(),
            Key::Char(letter) if !letter.is_control() && typed.len() + 4 <= MOST => {
                typed.push(letter)
            }
            _ => {}
        }
    }
}
