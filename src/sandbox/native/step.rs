//! One thing that was tried and what the system said: how the parts of this backend report to each other.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// A step that did not work.
#[derive(Debug)]
pub struct StepError {
    /// What was tried, such as `mount /proc`.
    pub step: String,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.step)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Names the step that an error belongs to.
pub(in crate::sandbox) trait Step<T> {
    /// As `step` says, in the infinitive: `mount /proc`.
    fn step(self, step: &str) -> Result<T, StepError>;

    /// The same, for a text that has to be put together.
    fn step_with(self, step: impl FnOnce() -> String) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, StepError> {
        self.step_with(|| step.to_owned())
    }

    fn step_with(self, step: impl FnOnce() -> String) -> Result<T, StepError> {
        self.map_err(|source| StepError {
            step: step(),
            source: source.into(),
        })
    }
}

/// The one line that a new sandbox writes to the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// The agent is about to listen.
    Ready,
    /// A step did not work.
    Failed {
        /// Which one.
        step: String,
        /// The system's error number, where there is one.
        errno: Option<i32>,
        /// The error as text.
        text: String,
    },
}

impl From<&StepError> for Status {
    fn from(error: &StepError) -> Self {
        Self::Failed {
            step: error.step.clone(),
            errno: error.source.raw_os_error(),
            text: error.source.to_string(),
        }
    }
}

impl Status {
    /// What the server makes of it.
    pub(super) fn into_result(self) -> Result<(), StepError> {
        match self {
            Self::Ready => Ok(()),
            Self::Failed { step, errno, text } => Err(StepError {
                step,
                source: errno.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error),
            }),
        }
    }
}
