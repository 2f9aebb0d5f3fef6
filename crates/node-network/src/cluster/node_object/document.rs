//! Node objects as they are written: of the fields that a network needs, each may be absent or of another type.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// One document of a nodes file: a Node, a `NodeList`, or a List of Nodes.
#[derive(Debug, Default, Deserialize)]
pub struct NodeDocument {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    items: Option<Vec<NodeObject>>,
    #[serde(default)]
    metadata: Lenient<Metadata>,
    #[serde(default)]
    spec: Lenient<Spec>,
    #[serde(default)]
    status: Lenient<Status>,
}

/// Why a document holds no nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Some other object.
    #[error(
        "kind is `{0}`: give a Node, a NodeList or a List of Nodes (`kubectl get nodes -o yaml` prints one)"
    )]
    OtherKind(String),
    /// Nothing says what it is.
    #[error(
        "kind is missing: give a Node, a NodeList or a List of Nodes (`kubectl get nodes -o yaml` prints one)"
    )]
    NoKind,
    /// A list without items.
    #[error("{0} has no `items`: the file may be half-written")]
    NoItems(String),
}

impl NodeDocument {
    /// The Node objects in this document.
    pub fn into_objects(self) -> Result<Vec<NodeObject>, DocumentError> {
        let Self { kind, items, metadata, spec, status } = self;
        match kind.as_deref() {
            Some("Node") => Ok(vec![NodeObject { kind: Lenient::default(), metadata, spec, status }]),
            Some(list @ ("List" | "NodeList")) => {
                items.ok_or_else(|| DocumentError::NoItems(list.to_owned()))
            }
            Some(other) => {
                Err(DocumentError::OtherKind(other.chars().take(64).flat_map(char::escape_default).collect()))
            }
            None => Err(DocumentError::NoKind),
        }
    }
}

/// A Node object, of which only these fields are kept in memory.
#[derive(Debug, Default, Deserialize)]
pub struct NodeObject {
    #[serde(default)]
    pub(super) kind: Lenient<String>,
    #[serde(default)]
    pub(super) metadata: Lenient<Metadata>,
    #[serde(default)]
    pub(super) spec: Lenient<Spec>,
    #[serde(default)]
    pub(super) status: Lenient<Status>,
}

impl NodeObject {
    /// `metadata.name`, if there is one; nothing says that it can be used.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.metadata.as_ref()?.name.as_ref().map(String::as_str)
    }

    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn resource_version(&self) -> Option<&str> {
        self.metadata.as_ref()?.resource_version.as_ref().map(String::as_str)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: Lenient<String>,
    #[serde(default)]
    pub(super) uid: Lenient<String>,
    #[serde(default)]
    pub(super) resource_version: Lenient<String>,
    #[serde(default)]
    pub(super) creation_timestamp: Lenient<String>,
    #[serde(default)]
    pub(super) deletion_timestamp: Lenient<String>,
    #[serde(default)]
    pub(super) annotations: Lenient<Annotations>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Annotations {
    #[serde(default, rename = "hostgw.io/internal-ip")]
    pub(super) internal_ip: Lenient<String>,
    #[serde(default, rename = "hostgw.io/lan-slice")]
    pub(super) lan_slice: Lenient<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Spec {
    #[serde(default, rename = "podCIDR")]
    pub(super) pod_cidr: Lenient<String>,
    #[serde(default, rename = "podCIDRs")]
    pub(super) pod_cidrs: Lenient<Vec<Lenient<String>>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) addresses: Lenient<Vec<Lenient<NodeAddress>>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct NodeAddress {
    #[serde(default, rename = "type")]
    pub(super) kind: Lenient<String>,
    #[serde(default)]
    pub(super) address: Lenient<String>,
}

/// A value, nothing, or something of another type; the last must not cost the whole list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Lenient<T> {
    Present(T),
    Absent(()),
    WrongType(IgnoredAny),
}

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self::Absent(())
    }
}

impl<T> Lenient<T> {
    const fn as_ref(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent(()) | Self::WrongType(_) => None,
        }
    }
}
