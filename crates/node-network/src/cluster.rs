//! The cluster as this node sees it: every node's name, addresses and pod CIDRs, from whichever source told it.

mod node_list;
mod node_name;
mod node_object;
mod problem;
mod timestamp;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

pub use node_list::NodeList;
pub use node_name::{NodeName, NodeNameError};
pub use node_object::{
    DocumentError, INTERNAL_IP_ANNOTATION, LAN_SLICE_ANNOTATION, MAX_NODES, NodeDocument, NodeObject,
    ReadNode, read_object, snapshot_from_objects,
};
pub use problem::NodeProblem;
pub use timestamp::{rfc3339, unix_seconds};

use crate::family::PerFamily;

/// All nodes at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSnapshot {
    /// Which rule decides between nodes with overlapping CIDRs.
    pub source: SourceKind,
    /// How far the snapshot may be trusted.
    pub freshness: Freshness,
    /// Every node that has a usable name.
    pub nodes: BTreeMap<NodeName, ClusterNode>,
    /// What was wrong with the nodes' objects; each cost only the part that it names.
    pub problems: Vec<NodeProblem>,
    /// How many objects are none of `nodes` because they cannot be told: any of them may be the node whose routes
    /// seem to be nobody's.
    pub left_out: usize,
}

impl ClusterSnapshot {
    /// Puts all names into one piece of memory; worth while after many nodes have come at once.
    pub fn share_names(&mut self) {
        let names = NodeName::share(self.nodes.keys());
        let nodes = std::mem::take(&mut self.nodes).into_values().zip(names);
        self.nodes = nodes.map(|(node, name)| (name.clone(), ClusterNode { name, ..node })).collect();
    }
}

/// Where a snapshot came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The Kubernetes API: creation times and UIDs are facts.
    Kubernetes,
    /// A file, in which a person may have written anything.
    File,
}

/// How far a snapshot may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Read whole from the source.
    Synced,
    /// Kept from an earlier run. It may add routes to peers; it never confirms this node's own CIDR, never
    /// announces readiness and never deletes.
    Cached {
        /// Seconds since it was read from the source.
        age_seconds: u64,
    },
}

/// One node, as far as its network goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// `metadata.name`.
    pub name: NodeName,
    /// `metadata.uid`; empty where the source has none.
    pub uid: String,
    /// `metadata.creationTimestamp` in Unix seconds.
    pub created: Option<i64>,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// The first usable internal address of each family.
    pub internal_ips: PerFamily<IpAddr>,
    /// Further internal addresses: never a next hop, never masqueraded towards.
    pub further_internal_ips: Vec<IpAddr>,
    /// The pod CIDR of each family.
    pub pod_cidrs: PerFamily<IpNet>,
    /// It has a further pod CIDR, of unknown family, that cannot be read.
    pub unreadable_pod_cidr: bool,
    /// The part of the LAN that its annotation names, in each family.
    pub lan_slices: PerFamily<IpNet>,
    /// Its annotation names a part that cannot be read.
    pub unreadable_lan_slice: bool,
}

impl ClusterNode {
    /// Every internal address, those used as next hops first.
    pub fn all_internal_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.internal_ips.values().copied().chain(self.further_internal_ips.iter().copied())
    }
}
