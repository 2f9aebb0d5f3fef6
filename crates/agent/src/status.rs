//! What the agent tells of itself: `/run/hostgw/state.json`, which `hostgw status` reads.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use node_network::plan::{ConditionDocument, PeerReport, PeerState};
use node_network::{NodeName, Severity};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::atomic_file::{self, FileError};
use crate::reconcile::ReconcileReport;

pub(crate) mod bounded;

/// `schemaVersion` of the document; raised when a field changes its meaning or goes.
pub const STATE_SCHEMA_VERSION: u32 = 1;

/// 20,000 peers of a few hundred bytes.
const MAX_BYTES: u64 = 64 << 20;

/// What the agent knows after a pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateDocument {
    /// [`STATE_SCHEMA_VERSION`].
    pub schema_version: u32,
    /// This node.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// The agent's process.
    pub pid: u32,
    /// The agent was started for one pass.
    #[serde(default)]
    pub once: bool,
    /// When the last pass ended, in seconds since 1970.
    pub updated: u64,
    /// A pass is made at least this often, in seconds; 0 where it is not known.
    #[serde(default)]
    pub resync_seconds: u64,
    /// The source's address.
    pub source: String,
    /// The source was read whole.
    pub synced: bool,
    /// The node is announced to the runtime.
    pub ready: bool,
    /// Everything is as it should be, as far as a look-up in the kernel tells.
    pub converged: bool,
    /// What is wrong with the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_problem: Option<String>,
    /// Nodes that the source lists.
    pub nodes: usize,
    /// Attached pods.
    pub attachments: usize,
    /// How NetworkPolicy is treated.
    pub network_policy: String,
    /// Peers' pod CIDRs.
    pub peers: Vec<Peer>,
    /// What an operator should know.
    pub conditions: Vec<StateCondition>,
    /// What could not be done in the last pass.
    pub failures: Vec<String>,
    /// What was changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<LastChange>,
    /// Passes made.
    pub passes: u64,
}

/// A peer's pod CIDR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The peer.
    pub node: NodeName,
    /// Its pods.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: IpNet,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// The link that leads there.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "shared_text")]
    pub link: Option<Arc<str>>,
    /// What became of its route.
    pub state: PeerState,
}

/// A name that thousands of peers have in common.
mod shared_text {
    use super::{Arc, Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
        text.as_deref().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Arc::from))
    }
}

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCondition {
    /// Stable name.
    pub code: String,
    /// `notice`, `warning` or `error`.
    pub severity: String,
    /// For people.
    pub message: String,
}

/// What was changed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastChange {
    /// In seconds since 1970.
    pub at: u64,
    /// How many changes.
    pub changes: usize,
    /// The first of them.
    pub first: String,
}

/// Why there is no state to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The agent has not made a pass here.
    #[error("there is no {}: start the agent (`hostgw agent`)", .0.display())]
    NoState(PathBuf),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is damaged.
    #[error("{} is damaged: {source}; the agent's next pass writes it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl StateDocument {
    /// Before the first pass.
    pub(crate) fn new(node: &NodeName, source: String) -> Self {
        Self {
            schema_version: STATE_SCHEMA_VERSION,
            node: node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            source,
            network_policy: "not enforced: this version routes, and does not filter between pods".to_owned(),
            ..Self::default()
        }
    }

    /// Takes over what a pass found and did.
    pub(crate) fn update(&mut self, report: &ReconcileReport) {
        self.updated = now();
        self.synced = report.synced;
        self.ready = report.announced;
        self.converged = report.synced && report.source_problem.is_none() && report.converged();
        self.source_problem.clone_from(&report.source_problem);
        self.nodes = report.nodes;
        self.attachments = report.attachments;
        self.peers = report.peers.iter().map(peer).collect();
        self.conditions = bounded::conditions(&report.conditions);
        let failures =
            report.applied.failures().map(|(line, error)| format!("{} {}: {error}", line.kind, line.what));
        self.failures = bounded::texts(failures.chain(report.pods_problems.iter().cloned()));
        self.passes += 1;
        if report.changed_something() {
            let made = report.applied.outcomes.iter().filter(|outcome| outcome.error.is_none());
            let mut lines =
                made.map(|outcome| outcome.line.to_string()).chain(report.pods_done.iter().cloned());
            let first = lines.next().unwrap_or_default();
            self.last_change = Some(LastChange { at: self.updated, changes: 1 + lines.count(), first });
        }
    }

    /// Says who deletes our routes, if somebody does.
    pub(crate) fn name_opponent(&mut self, opponent: Option<String>) {
        self.conditions.extend(opponent.map(|message| StateCondition {
            code: "routes-deleted-by-others".to_owned(),
            severity: severity_name(Severity::Warning).to_owned(),
            message,
        }));
    }

    /// Takes over that no pass could be made.
    pub(crate) fn fail(&mut self, error: String) {
        self.updated = now();
        self.converged = false;
        self.failures = vec![error];
        self.passes += 1;
    }

    /// For how many seconds the agent has made no pass, where that is longer than it should ever be: it hangs, or this
    /// node stood still.
    #[must_use]
    pub fn silent_for(&self) -> Option<u64> {
        self.silent_at(now())
    }

    fn silent_at(&self, now: u64) -> Option<u64> {
        let silent = now.saturating_sub(self.updated);
        (self.resync_seconds > 0 && silent > 3 * self.resync_seconds + 30).then_some(silent)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(self).map_err(|error| FileError::new("write", path, error.into()))?;
        atomic_file::replace(path, &bytes, 0o644)
    }

    /// The contract's exit code: 0 converged, 1 something failed, 3 the source was not read.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (self.synced, self.converged) {
            (false, _) => 3,
            (true, true) => 0,
            (true, false) => 1,
        }
    }
}

fn peer(report: &PeerReport) -> Peer {
    let PeerReport { node, pod_cidr, next_hop, link, state } = report.clone();
    Peer { node, pod_cidr, next_hop, link, state }
}

fn state_condition(condition: &ConditionDocument) -> StateCondition {
    StateCondition {
        code: condition.code.to_owned(),
        severity: severity_name(condition.severity).to_owned(),
        message: condition.message.clone(),
    }
}

const fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Reads what the agent last wrote.
pub fn read_state(path: &Path) -> Result<StateDocument, StatusError> {
    let bytes = atomic_file::read(path, MAX_BYTES)?.ok_or_else(|| StatusError::NoState(path.to_owned()))?;
    serde_json::from_slice(&bytes).map_err(|source| StatusError::Damaged { path: path.to_owned(), source })
}

/// One screen.
impl fmt::Display for StateDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |yes: bool| if yes { "yes" } else { "NO" };
        writeln!(f, "node       {} (agent {}, {} passes)", self.node, self.version, self.passes)?;
        writeln!(f, "source     {}, {} nodes, read: {}", self.source, self.nodes, yes(self.synced))?;
        if let Some(problem) = &self.source_problem {
            writeln!(f, "           {problem}")?;
        }
        writeln!(f, "converged  {}", yes(self.converged))?;
        writeln!(f, "announced  {}", yes(self.ready))?;
        writeln!(f, "pods       {} attached", self.attachments)?;
        writeln!(f, "policy     NetworkPolicy is {}", self.network_policy)?;
        let routed = self.peers.iter().filter(|peer| peer.state == PeerState::Routed).count();
        writeln!(f, "peers      {routed} of {} pod CIDRs routed", self.peers.len())?;
        let cidrs: Vec<String> = self.peers.iter().map(|peer| peer.pod_cidr.to_string()).collect();
        let nodes_width = self.peers.iter().map(|peer| peer.node.as_str().len()).max().unwrap_or_default();
        let cidrs_width = cidrs.iter().map(String::len).max().unwrap_or_default();
        for (Peer { node, next_hop, link, state, .. }, cidr) in self.peers.iter().zip(&cidrs) {
            let via = next_hop.map(|hop| format!(" via {hop}")).unwrap_or_default();
            let link = link.as_ref().map(|link| format!(" dev {link}")).unwrap_or_default();
            let (node, state) = (node.as_str(), state.as_str());
            let line = format!("  {node:<nodes_width$}  {cidr:<cidrs_width$}  {state:<8}{via}{link}");
            writeln!(f, "{}", line.trim_end())?;
        }
        for StateCondition { severity, message, .. } in &self.conditions {
            writeln!(f, "{severity}: {message}")?;
        }
        for failure in &self.failures {
            writeln!(f, "failed: {failure}")?;
        }
        Ok(())
    }
}

/// The JSON Schema of the document.
pub const STATE_SCHEMA: &str = include_str!("status/state.schema.json");

#[cfg(test)]
mod tests;
