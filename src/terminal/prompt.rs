//! Questions to the operator. Asked only where a person is there; otherwise the error names the missing flag.

use std::io;

use dialoguer::{Confirm, Input, Password};

use super::Terminal;
use super::failure::{Failure, Kind};

impl Terminal {
    /// Runs a blocking question without blocking the runtime, and gives the terminal back as it was on a signal.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> dialoguer::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let before = nix::sys::termios::tcgetattr(io::stdin()).ok();
        let answer = tokio::task::spawn_blocking(question);
        let watch = self.interrupt.watch();
        let interrupted = || Failure::words(Kind::Interrupted, "interrupted; nothing was changed");
        tokio::select! {
            answer = answer => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(dialoguer::Error::IO(e))) if e.kind() == io::ErrorKind::Interrupted => Err(interrupted()),
                Ok(Err(e)) => Err(Failure::words(Kind::Other, format!("the answer could not be read: {e}"))),
                Err(e) => std::panic::resume_unwind(e.into_panic()),
            },
            () = watch.requested() => {
                if let Some(before) = before {
                    let _ = nix::sys::termios::tcsetattr(io::stdin(), nix::sys::termios::SetArg::TCSANOW, &before);
                }
                // The question hid the cursor and is still waiting on its own thread; it ends with the process.
                let _ = console::Term::stderr().show_cursor();
                self.say("");
                Err(interrupted())
            }
        }
    }

    /// Yes or no; `default` on Enter.
    pub async fn confirm(&self, question: &str, default: bool) -> Result<bool, Failure> {
        let question = question.to_owned();
        self.ask(move || {
            Confirm::new()
                .with_prompt(question)
                .default(default)
                .interact()
        })
        .await
    }

    /// A line of text that `check` accepts, with a suggestion where there is one.
    pub async fn input(
        &self,
        question: &str,
        suggestion: Option<String>,
        check: impl Fn(&str) -> Result<(), String> + Send + 'static,
    ) -> Result<String, Failure> {
        let question = question.to_owned();
        self.ask(move || {
            let mut input = Input::<String>::new()
                .with_prompt(question)
                .validate_with(move |text: &String| check(text));
            if let Some(suggestion) = suggestion {
                input = input.default(suggestion);
            }
            input.interact_text()
        })
        .await
    }

    /// A secret, hidden while it is typed, that `check` accepts; `None` for an empty answer where that is allowed.
    pub async fn secret(
        &self,
        question: &str,
        may_be_empty: bool,
        check: impl Fn(&str) -> Result<(), String> + Send + 'static,
    ) -> Result<Option<String>, Failure> {
        let question = question.to_owned();
        let text = self
            .ask(move || {
                Password::new()
                    .with_prompt(question)
                    .allow_empty_password(may_be_empty)
                    .validate_with(move |text: &String| {
                        if may_be_empty && text.is_empty() {
                            Ok(())
                        } else {
                            check(text)
                        }
                    })
                    .interact()
            })
            .await?;
        Ok((!text.is_empty()).then_some(text))
    }
}
