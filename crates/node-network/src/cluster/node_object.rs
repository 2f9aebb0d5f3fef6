//! Kubernetes Node objects, reduced to what a network needs, and read so that one bad field costs only itself.

mod document;
mod reader;

use std::collections::BTreeMap;

pub use document::{DocumentError, NodeDocument, NodeObject};
use reader::Reader;

use super::{ClusterNode, ClusterSnapshot, Freshness, NodeProblem, SourceKind};
use crate::condition::Severity;

/// Names the addresses to use instead of `status.addresses`: a comma-separated list, at most one a family.
pub const INTERNAL_IP_ANNOTATION: &str = "hostgw.io/internal-ip";

/// Names the node's part of its LAN, where the settings say so: a comma-separated list, at most one prefix a family.
pub const LAN_SLICE_ANNOTATION: &str = "hostgw.io/lan-slice";

/// Nodes beyond this are refused: plain routes are not the tool for a cluster of that size.
pub const MAX_NODES: usize = 20_000;

/// Problems kept of all objects.
const MAX_PROBLEMS: usize = 1_000;

/// What one object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadNode {
    /// `metadata.name` as it stands, or nothing.
    pub name: String,
    /// The node; none where the object cannot be told from others.
    pub node: Option<ClusterNode>,
    /// What is wrong with it.
    pub problems: Vec<NodeProblem>,
}

/// Reads one object of a source that tells of each by itself, and under a name that no other has.
#[must_use]
pub fn read_object(object: NodeObject) -> ReadNode {
    let name = object.name().unwrap_or_default().to_owned();
    let mut problems = Vec::new();
    let node = Reader::new(name.clone(), &mut problems).node(object);
    if node.is_none() {
        graver(&mut problems, 0);
    }
    ReadNode { name, node, problems }
}

/// The cluster that these objects describe. A fault costs only the part that it names, and is named in
/// [`ClusterSnapshot::problems`].
#[must_use]
pub fn snapshot_from_objects(
    source: SourceKind,
    freshness: Freshness,
    objects: impl IntoIterator<Item = NodeObject>,
) -> ClusterSnapshot {
    let mut nodes = BTreeMap::new();
    let mut problems: Vec<NodeProblem> = Vec::new();
    let mut left_out = 0;
    let mut untold = 0;
    for (position, object) in objects.into_iter().enumerate() {
        untold += cut(&mut problems);
        let before = problems.len();
        if nodes.len() >= MAX_NODES {
            problems.push(NodeProblem::new(
                &format!("items[{position}]"),
                "items",
                &MAX_NODES.to_string(),
                "nodes were read and there are more",
                "split the cluster: the rest is ignored",
            ));
            left_out += 1;
            graver(&mut problems, before);
            break;
        }
        let mut reader = Reader::new(format!("items[{position}]"), &mut problems);
        let Some(node) = reader.node(object) else {
            left_out += 1;
            graver(&mut problems, before);
            continue;
        };
        if nodes.contains_key(&node.name) {
            problems.push(NodeProblem::new(
                node.name.as_str(),
                format!("items[{position}].metadata.name"),
                node.name.as_str(),
                "is the name of an earlier node too",
                "remove one of the two: the first is used",
            ));
            left_out += 1;
            graver(&mut problems, before);
            continue;
        }
        nodes.insert(node.name.clone(), node);
    }
    untold += cut(&mut problems);
    if untold > 0 {
        let remedy = "correct those that are listed first";
        problems.push(NodeProblem::new(
            "items",
            "items",
            &untold.to_string(),
            "more problems are there",
            remedy,
        ));
        let last = problems.len() - 1;
        graver(&mut problems, last);
    }
    let mut snapshot = ClusterSnapshot { source, freshness, nodes, problems, left_out };
    snapshot.share_names();
    snapshot
}

/// Keeps the first problems; how many were dropped.
fn cut(problems: &mut Vec<NodeProblem>) -> usize {
    let dropped = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    dropped
}

/// The problems from `first` on cost routes.
fn graver(problems: &mut [NodeProblem], first: usize) {
    problems.iter_mut().skip(first).for_each(|problem| problem.severity = Severity::Error);
}

#[cfg(test)]
mod tests;
