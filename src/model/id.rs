//! Ids as types of their own, so that one cannot be passed for another.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The caller's own name for a session, usually a conversation id.
///
/// 1 to 128 characters out of letters, digits, `.`, `_`, `:` and `-`. It is never used as a path.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String")]
pub struct SessionId(String);

/// Why a text is not a [`SessionId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a session id has 1 to 128 characters out of letters, digits, `.`, `_`, `:` and `-`; {0}")]
pub struct SessionIdError(String);

impl SessionId {
    /// The longest id that is accepted, in characters.
    pub const MAX: usize = 128;

    /// The id as the caller wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        within_alphabet(text).map_err(SessionIdError)?;
        Ok(Self(text.to_owned()))
    }
}

/// What is wrong with a name that a caller has chosen.
fn within_alphabet(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("this one is empty".to_owned());
    }
    if text.len() > SessionId::MAX {
        return Err(format!("this one has {}", text.chars().count()));
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    match text.chars().find(|c| !allowed(c)) {
        Some(bad) => Err(format!("this one has {bad:?}")),
        None => Ok(()),
    }
}

/// The caller's own name for a checkpoint, out of the same alphabet as a [`SessionId`].
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String")]
pub struct CheckpointName(String);

/// Why a text is not a [`CheckpointName`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a checkpoint's name has 1 to 128 characters out of letters, digits, `.`, `_`, `:` and `-`; {0}"
)]
pub struct CheckpointNameError(String);

impl FromStr for CheckpointName {
    type Err = CheckpointNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        within_alphabet(text).map_err(CheckpointNameError)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for CheckpointName {
    type Error = CheckpointNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SessionId {
    type Error = SessionIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id; ids made later sort later.
            #[expect(clippy::new_without_default, reason = "an id that nobody asked for is a mistake")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// One piece of source given to a session, and its one run.
    CellId
);
uuid_id!(
    /// One isolated place in which a kernel runs.
    SandboxId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_the_callers_own_within_its_alphabet() {
        for good in ["a", "chat:42", "Az09._:-", &"x".repeat(128)] {
            assert_eq!(
                good.parse::<SessionId>().map(|id| id.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in ["", "a b", "a/b", "ä", "a\0", &"x".repeat(129)] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
            assert!(bad.parse::<CheckpointName>().is_err(), "{bad:?}");
        }
    }
}
