//! A node's name, checked once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// RFC 1123 subdomain, as Kubernetes requires of `metadata.name`.
const MAX_LEN: usize = 253;

/// The name of a Kubernetes node. Every route and report of a pass has one, so that a clone of it allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(Arc<str>);

/// Why a text is no node name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeNameError {
    /// Nothing was given.
    #[error("is empty: give the name of the Kubernetes node")]
    Empty,
    /// Longer than Kubernetes allows.
    #[error("is {0} bytes long: Kubernetes allows {MAX_LEN}")]
    TooLong(usize),
    /// Not an RFC 1123 subdomain.
    #[error("is no RFC 1123 subdomain: use a-z, 0-9, `-` and `.`, and begin and end with a letter or digit")]
    NotASubdomain,
}

impl NodeName {
    /// Checks `name` as the API server would.
    pub fn new(name: impl Into<String>) -> Result<Self, NodeNameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(NodeNameError::Empty);
        }
        if name.len() > MAX_LEN {
            return Err(NodeNameError::TooLong(name.len()));
        }
        let label_ok = |label: &str| {
            label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.split('.').all(label_ok) { Ok(Self(name.into())) } else { Err(NodeNameError::NotASubdomain) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;
    fn from_str(name: &str) -> Result<Self, NodeNameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;
    fn try_from(name: String) -> Result<Self, NodeNameError> {
        Self::new(name)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}
