//! What was heard of the cluster's nodes, put together. It believes the API server in what there is; of what there is
//! no longer, only where nothing says that the server itself has lost something.

use std::collections::BTreeMap;
use std::time::Duration;

use node_network::cluster::{Freshness, MAX_NODES, NodeProblem, ReadNode, SourceKind};
use node_network::{ClusterSnapshot, NodeName};
use tokio::time::Instant;

use super::Reading;
use super::peer_cache::Cached;
use crate::kubernetes::node_watch::Heard;

/// How long nothing is deleted after the API server came back with less than it knew: kubelets make their Nodes anew
/// within minutes.
const HOLD: Duration = Duration::from_secs(600);

/// The nodes as they were last heard of.
#[derive(Debug)]
pub(crate) struct NodeStore {
    /// None where this runs on no node of the cluster.
    this_node: Option<NodeName>,
    /// What an earlier run knew; none once a list was heard.
    cached: Option<ClusterSnapshot>,
    snapshot: ClusterSnapshot,
    /// A list was heard: the snapshot counts.
    listed: bool,
    /// What is wrong with each object that something is wrong with, and whether it could be told at all.
    faults: BTreeMap<String, Fault>,
    /// The newest version that was heard of, where it can be compared.
    version: Option<u64>,
    /// The API server went back, or lost what it knew; why, and until when nothing is deleted.
    hold: Option<(Instant, String)>,
    silence: Option<String>,
    this_was_listed: bool,
    this_was_lost: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Fault {
    problems: Vec<NodeProblem>,
    left_out: bool,
}

impl NodeStore {
    /// With what an earlier run knew, until a list is heard.
    pub(crate) fn new(this_node: Option<NodeName>, cached: Option<Cached>) -> Self {
        let (cached, version) = cached.map_or((None, None), |cached| (Some(cached.snapshot), cached.version));
        Self {
            this_node,
            cached,
            version,
            snapshot: ClusterSnapshot {
                source: SourceKind::Kubernetes,
                freshness: Freshness::Synced,
                nodes: BTreeMap::new(),
                problems: Vec::new(),
                left_out: 0,
            },
            listed: false,
            faults: BTreeMap::new(),
            hold: None,
            silence: None,
            this_was_listed: false,
            this_was_lost: false,
        }
    }

    /// When what is held now no longer is.
    pub(crate) fn holds_until(&self) -> Option<Instant> {
        self.hold.as_ref().map(|(until, _)| *until)
    }

    /// The present state.
    pub(crate) fn reading(&mut self, now: Instant) -> Reading<'_> {
        if self.hold.as_ref().is_some_and(|(until, _)| *until <= now) {
            self.hold = None;
        }
        let held = self.hold.as_ref().map(|(_, why)| why.clone());
        Reading {
            snapshot: self.listed.then_some(&self.snapshot).or(self.cached.as_ref()),
            whole: held.is_none(),
            problem: self.silence.clone().or(held),
        }
    }

    /// What may be kept for the next start: a list of a server of which nothing says that it lost something.
    pub(crate) fn trusted(&self) -> Option<(&ClusterSnapshot, Option<u64>)> {
        let trusted =
            self.listed && self.hold.is_none() && self.silence.is_none() && !self.snapshot.nodes.is_empty();
        trusted.then_some((&self.snapshot, self.version))
    }

    /// Takes over what was heard; whether it makes a difference.
    pub(crate) fn take(&mut self, heard: Heard, now: Instant) -> bool {
        match heard {
            Heard::All { nodes, version } => self.all(nodes, &version, now),
            Heard::Node(read) => {
                let changed = self.apply(*read);
                self.look_for_this_node(now);
                changed
            }
            Heard::Gone(name) => {
                let changed = self.remove(&name);
                self.look_for_this_node(now);
                changed
            }
            Heard::UpTo(version) => {
                self.version = number(&version).max(self.version);
                self.silence.take().is_some()
            }
            Heard::Silence(problem) => {
                let news = self.silence.as_ref() != Some(&problem);
                self.silence = Some(problem);
                news
            }
        }
    }

    fn all(&mut self, nodes: Vec<ReadNode>, version: &str, now: Instant) -> bool {
        let (before, after) = (self.version, number(version));
        if let (Some(before), Some(after)) = (before, after)
            && after < before
        {
            self.hold(
                now,
                &format!("the API server went back from version {before} to {after}, as from a backup"),
            );
        }
        self.version = after;
        if nodes.is_empty() {
            self.hold(now, "the API server lists no node");
        }
        let were = std::mem::take(&mut self.snapshot.nodes);
        let faults = std::mem::take(&mut self.faults);
        let first = !std::mem::replace(&mut self.listed, true);
        self.cached = None;
        for read in nodes {
            self.put(read);
        }
        self.snapshot.share_names();
        self.tell_faults();
        self.look_for_this_node(now);
        self.silence.take().is_some()
            || first
            || self.hold.is_some()
            || were != self.snapshot.nodes
            || faults != self.faults
    }

    /// Where this node's own object was lost, those of others may have been, and come back after it.
    fn look_for_this_node(&mut self, now: Instant) {
        let listed = self.this_node.as_ref().is_some_and(|this| self.snapshot.nodes.contains_key(this));
        if listed && self.this_was_lost {
            self.hold(now, "this node's object was missing and is back");
        }
        self.this_was_lost = !listed && (self.this_was_lost || self.this_was_listed);
        self.this_was_listed |= listed;
    }

    fn hold(&mut self, now: Instant, why: &str) {
        let minutes = HOLD.as_secs() / 60;
        let why = format!("{why}: routes to nodes that it no longer lists are kept for {minutes} minutes");
        self.hold = Some((now + HOLD, why));
    }

    fn apply(&mut self, read: ReadNode) -> bool {
        let changed = self.put(read);
        if changed {
            self.tell_faults();
        }
        changed
    }

    /// Takes over one object without telling of its faults.
    fn put(&mut self, read: ReadNode) -> bool {
        let ReadNode { name, node, problems } = read;
        let fault = Fault { left_out: node.is_none(), problems };
        let mut changed = false;
        match node {
            Some(node) => {
                let known = self.snapshot.nodes.get(&node.name);
                if known.is_none() && self.snapshot.nodes.len() >= MAX_NODES {
                    return self.note(name, Fault { left_out: true, ..fault });
                }
                if known != Some(&node) {
                    self.snapshot.nodes.insert(node.name.clone(), node);
                    changed = true;
                }
            }
            None => {
                if let Ok(name) = NodeName::new(name.as_str()) {
                    changed = self.snapshot.nodes.remove(&name).is_some();
                }
            }
        }
        self.note(name, fault) || changed
    }

    fn note(&mut self, name: String, fault: Fault) -> bool {
        if fault.problems.is_empty() && !fault.left_out {
            return self.faults.remove(&name).is_some();
        }
        let changed = self.faults.get(&name) != Some(&fault);
        self.faults.insert(name, fault);
        changed
    }

    fn remove(&mut self, name: &str) -> bool {
        let known = NodeName::new(name).ok().and_then(|name| self.snapshot.nodes.remove(&name)).is_some();
        let faulty = self.faults.remove(name).is_some();
        if faulty {
            self.tell_faults();
        }
        known || faulty
    }

    fn tell_faults(&mut self) {
        self.snapshot.problems =
            self.faults.values().flat_map(|fault| fault.problems.iter().cloned()).collect();
        self.snapshot.left_out = self.faults.values().filter(|fault| fault.left_out).count();
    }
}

/// Versions of one API server grow (Kubernetes KEP-5504); one that is no number cannot be compared.
fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

#[cfg(test)]
mod tests;
