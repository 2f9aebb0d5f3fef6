//! Where the cluster's nodes are read from.

mod file;
mod kubernetes;
mod node_store;
mod nodes_text;
mod peer_cache;

use std::future::Future;

use node_network::{ClusterSnapshot, NodeName, Settings};

pub use file::{FileSource, NodesFileError};
pub use kubernetes::KubernetesSource;
pub(crate) use node_store::NodeStore;
pub use nodes_text::parse_nodes;

use crate::kubernetes::Location;
use crate::reports::Reporter;

/// A place that tells which nodes there are.
pub trait Source {
    /// The newest good snapshot, and what is wrong with the source now. A snapshot, once there, is kept whatever
    /// happens to the source: never to know less than before is what keeps routes in place.
    fn read(&mut self) -> Reading<'_>;

    /// Resolves when it is worthwhile to read again; may resolve for nothing.
    fn changed(&mut self) -> impl Future<Output = ()>;

    /// For a program that looks once: resolves when what [`Self::read`] tells is final, or will not be soon.
    fn settled(&mut self) -> impl Future<Output = ()>;
}

/// Whichever source the command line names.
#[derive(Debug)]
pub(crate) enum AnySource {
    File(FileSource),
    Kubernetes(KubernetesSource),
}

impl AnySource {
    /// Who tells the source's cluster what this node found; a file is told nothing.
    pub(crate) fn reporter(&self, this_node: &NodeName, settings: &Settings) -> Option<Reporter> {
        match self {
            Self::File(_) => None,
            Self::Kubernetes(source) => Some(source.reporter(this_node, settings)),
        }
    }

    /// Whether the source said something new since this was last asked; of a file nobody needs to know.
    pub(crate) const fn take_news(&mut self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Kubernetes(source) => source.take_news(),
        }
    }
}

impl Source for AnySource {
    fn read(&mut self) -> Reading<'_> {
        match self {
            Self::File(source) => source.read(),
            Self::Kubernetes(source) => source.read(),
        }
    }

    async fn changed(&mut self) {
        match self {
            Self::File(source) => source.changed().await,
            Self::Kubernetes(source) => source.changed().await,
        }
    }

    async fn settled(&mut self) {
        match self {
            Self::File(source) => source.settled().await,
            Self::Kubernetes(source) => source.settled().await,
        }
    }
}

/// What a source tells.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The newest good snapshot; none before the source was read whole for the first time.
    pub snapshot: Option<&'a ClusterSnapshot>,
    /// The snapshot was read whole: what it lacks is gone. Else it may be the beginning of a file that is being
    /// written, and nothing is deleted on its word.
    pub whole: bool,
    /// What is wrong now, with its remedy.
    pub problem: Option<String>,
}

/// A source as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAddress {
    /// `file:PATH`.
    File(std::path::PathBuf),
    /// `kubernetes`.
    Kubernetes(Location),
}

/// A source that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceAddressError {
    /// Some other scheme.
    #[error("source `{}` is none: give kubernetes or file:PATH", .0.chars().take(64).flat_map(char::escape_default).collect::<String>())]
    Unknown(String),
    /// `file:` alone.
    #[error("source `file:` names no file: give file:/etc/hostgw/nodes.yaml")]
    NoPath,
}

impl std::str::FromStr for SourceAddress {
    type Err = SourceAddressError;
    fn from_str(text: &str) -> Result<Self, SourceAddressError> {
        if text == "kubernetes" {
            return Ok(Self::Kubernetes(Location::InCluster));
        }
        match text.strip_prefix("file:") {
            Some("") => Err(SourceAddressError::NoPath),
            Some(path) => Ok(Self::File(path.into())),
            None => Err(SourceAddressError::Unknown(text.to_owned())),
        }
    }
}

impl std::fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Kubernetes(_) => f.write_str("kubernetes"),
        }
    }
}
