//! What is written down of a sandbox in a directory of its own, before its container exists: so it can be found after any crash.

use serde::{Deserialize, Serialize};

use super::Link;
use crate::agent::Secret;
use crate::sandbox::record::Recorded;

/// What is written down of a sandbox, beside what its container's labels say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    label: String,
    pub(super) link: Link,
    /// Its id, counted from the first.
    pub(super) owner: Option<u32>,
    /// What connections to its agent begin with, where they are brought to it by the engine.
    pub(super) secret: Secret,
}

impl Record {
    /// Of a new sandbox.
    pub(super) fn new(link: Link, owner: Option<u32>, secret: Secret) -> Self {
        Self {
            label: Self::LABEL.to_owned(),
            link,
            owner,
            secret,
        }
    }
}

impl Recorded for Record {
    const LABEL: &'static str = "evercell container 1";

    fn label(&self) -> &str {
        &self.label
    }
}
