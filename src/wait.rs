//! Waiting for something outside: until when, how often it is asked for, and what may be away for a moment.

use std::time::{Duration, Instant};

use crate::brain::BrainError;
use crate::plan::{StepError, StepRun};

/// Pauses that grow from a fraction of a second to a few seconds.
#[derive(Debug)]
pub struct Pace {
    next: Instant,
    first: Duration,
    pause: Duration,
    longest: Duration,
}

impl Pace {
    /// The first question is due at once, the next after `first`, later ones up to `longest` apart.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: Instant::now(),
            first,
            pause: first,
            longest,
        }
    }

    /// Whether it is time for a question; if so, the next one is due after a longer pause.
    pub fn is_due(&mut self) -> bool {
        if Instant::now() < self.next {
            return false;
        }
        self.next = Instant::now() + self.pause;
        self.pause = (self.pause * 3 / 2).min(self.longest);
        true
    }

    /// Something is about to come: from now on as at the beginning.
    pub fn begin_again(&mut self) {
        self.next = Instant::now();
        self.pause = self.first;
    }
}

/// One wait of a step.
pub struct Wait<'r> {
    run: &'r StepRun,
    began: Instant,
    timeout: Duration,
    said: String,
}

impl<'r> Wait<'r> {
    /// How often it is looked whether something is due.
    const TICK: Duration = Duration::from_millis(100);

    /// Begins to wait.
    pub fn new(run: &'r StepRun, timeout: Duration) -> Self {
        Self {
            run,
            began: Instant::now(),
            timeout,
            said: String::new(),
        }
    }

    /// How long it has waited.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether it has waited long enough.
    pub fn is_over(&self) -> bool {
        self.elapsed() >= self.timeout
    }

    /// Reports what is waited for, once as long as it stays the same.
    pub fn progress(&mut self, text: impl Into<String>) {
        let text = text.into();
        if text != self.said {
            self.run.progress(&text);
            self.said = text;
        }
    }

    /// An answer; none where what was asked may be away for a moment, which is reported. The answer to the last question counts.
    pub fn bridge<T>(
        &mut self,
        answer: Result<T, impl Into<StepError>>,
    ) -> Result<Option<T>, StepError> {
        match answer.map_err(Into::into) {
            Ok(answer) => Ok(Some(answer)),
            Err(StepError::Brain(error)) if error.is_passing() && !self.is_over() => {
                self.progress(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// An answer of a question, which may take no longer than the wait has left and a moment more: something that is reached
    /// and never answers is away too.
    pub async fn ask<T, E: Into<StepError>>(
        &mut self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<Option<T>, StepError> {
        const A_MOMENT: Duration = Duration::from_secs(2);
        let left = self.timeout.saturating_sub(self.elapsed()) + A_MOMENT;
        match tokio::time::timeout(left, question).await {
            Ok(answer) => self.bridge(answer),
            Err(_) => self.bridge(Err(BrainError::NoAnswer(left.as_secs()))),
        }
    }

    /// A moment, unless the run is interrupted.
    pub async fn tick(&self) -> Result<(), StepError> {
        self.run.pause(Self::TICK).await
    }

    /// A pause that does not go beyond the end of the wait, unless the run is interrupted.
    pub async fn pause(&self, pause: Duration) -> Result<(), StepError> {
        let left = self.timeout.saturating_sub(self.elapsed());
        self.run.pause(pause.min(left.max(Self::TICK))).await
    }
}
