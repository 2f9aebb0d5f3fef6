//! A node's name, checked once.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// RFC 1123 subdomain, as Kubernetes requires of `metadata.name`.
const MAX_LEN: u8 = 253;

/// The name of a Kubernetes node. Every route and report of a pass has one, so that a clone of it allocates nothing; and
/// those of one snapshot are parts of one text ([`NodeName::share`]), so that thousands of clones count up the same place
/// in memory, and not each its own, which nobody has touched for long.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName {
    text: Arc<String>,
    start: u32,
    length: u8,
}

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
        let length = match u8::try_from(name.len()) {
            Ok(length) if length <= MAX_LEN => length,
            _ => return Err(NodeNameError::TooLong(name.len())),
        };
        let label_ok = |label: &str| {
            label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        match name.split('.').all(label_ok) {
            true => Ok(Self { text: Arc::new(name), start: 0, length }),
            false => Err(NodeNameError::NotASubdomain),
        }
    }

    /// These names, as parts of one text, which lives as long as the last of them.
    pub(super) fn share<'a>(names: impl Iterator<Item = &'a Self> + Clone) -> Vec<Self> {
        let text: Arc<String> = Arc::new(names.clone().map(Self::as_str).collect());
        let mut start = 0;
        let part = |name: &Self| {
            let shared = Self { text: Arc::clone(&text), start, length: name.length };
            start += u32::from(name.length);
            shared
        };
        names.map(part).collect()
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let start = self.start as usize;
        self.text.get(start..start + usize::from(self.length)).unwrap_or_default()
    }
}

impl PartialEq for NodeName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for NodeName {}

impl PartialOrd for NodeName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NodeName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for NodeName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeName").field(&self.as_str()).finish()
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
        name.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_an_rfc_1123_subdomain_of_at_most_253_bytes() {
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        assert_eq!(NodeName::new(longest.as_str()).unwrap().as_str(), longest);
        assert_eq!(NodeName::new(format!("{longest}d")), Err(NodeNameError::TooLong(254)));
        assert_eq!(NodeName::new("x".repeat(300)), Err(NodeNameError::TooLong(300)));
        assert_eq!(NodeName::new(""), Err(NodeNameError::Empty));
        assert_eq!(NodeName::new("node_1"), Err(NodeNameError::NotASubdomain));
    }

    proptest! {
        #[test]
        fn shared_names_are_the_same_names(texts in proptest::collection::vec("[a-z0-9]{1,12}", 0..20)) {
            let names: Vec<NodeName> = texts.iter().map(|text| NodeName::new(text.as_str()).unwrap()).collect();
            let shared = NodeName::share(names.iter());
            prop_assert_eq!(&shared, &names);
            let in_order = |names: &[NodeName]| names.iter().cloned().collect::<BTreeSet<_>>();
            prop_assert!(in_order(&shared).iter().map(NodeName::as_str).eq(in_order(&names).iter().map(NodeName::as_str)));
        }
    }
}
