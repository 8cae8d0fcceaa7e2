//! What a cell shows: text on a stream, a mime bundle, an error.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Data by MIME type. Binary types are base64 text, JSON types are JSON, the rest is text.
pub type MimeBundle = BTreeMap<String, Value>;

/// Free-form facts about a mime bundle, such as the width of an image.
pub type Metadata = serde_json::Map<String, Value>;

/// Which of the two output streams a text was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamName {
    /// Standard output, file descriptor 1.
    Stdout,
    /// Standard error, file descriptor 2.
    Stderr,
}

/// An exception that reached the top of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorOutput {
    /// The exception's type.
    pub ename: String,
    /// The exception's text.
    pub evalue: String,
    /// The formatted traceback, with ANSI colours; one or more lines an entry.
    pub traceback: Vec<String>,
}

/// A variable of the user's namespace, described without running any of its code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Variable {
    /// The name it is bound to.
    pub name: String,
    /// The name of its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The shape of an array or a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
    /// The number of its elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// About how many bytes it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The beginning of its text form; empty where making it could run user code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preview: String,
}

/// What a cell did to the namespace. In-place changes that keep type, shape and size go unseen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VariableChanges {
    /// Variables that were not there before.
    pub added: Vec<Variable>,
    /// Variables that were bound anew, or changed in shape or size.
    pub changed: Vec<Variable>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// How many variables there are now.
    pub total: u64,
    /// Whether the lists are cut short, because of their number or of the time they would take.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}
