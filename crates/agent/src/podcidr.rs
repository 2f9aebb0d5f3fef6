//! Gives pod CIDRs to Nodes that have none, once or for as long as it runs. One at a time does so in a cluster: it holds
//! a Lease, and gives nothing that it may no longer hold.

mod lease;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use hyper::Method;
use ipnet::IpNet;
use node_network::cluster::Freshness;
use node_network::pod_cidr_allocation::{AllocationProblem, Assignment, ClusterRange, allocate};
use node_network::{ClusterSnapshot, NodeName, PerFamily};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::kubernetes::api::{Api, ApiError, Payload};
use crate::kubernetes::node_watch::{Heard, follow};
use crate::kubernetes::{Location, backoff::Backoff};
use crate::run::{Ended, signalled};
use crate::source::NodeStore;
use lease::{Lease, RENEW};

/// The list of nodes comes within this, or the API server is said to be away.
const FIRST_LIST: Duration = Duration::from_secs(30);
/// A node that joins brings about several events.
const COALESCE: Duration = Duration::from_millis(200);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct PodCidrOptions {
    /// The cluster.
    pub location: Location,
    /// Its ranges.
    pub ranges: PerFamily<ClusterRange>,
    /// Who this is among those who could do the same.
    pub identity: String,
    /// Namespace of the Lease.
    pub lease_namespace: String,
    /// Name of the Lease.
    pub lease_name: String,
}

/// Why no pod CIDR could be given.
#[derive(Debug, thiserror::Error)]
pub enum PodCidrError {
    /// The API server could not be asked, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The nodes are not known.
    #[error("{0}")]
    NotListed(String),
    /// Somebody else gives pod CIDRs.
    #[error("`{holder}` gives pod CIDRs in this cluster (Lease {lease}): stop it first")]
    HeldBy {
        /// Who.
        holder: String,
        /// Namespace and name.
        lease: String,
    },
    /// The Lease could not be renewed in time.
    #[error("the Lease was lost: nothing more is given")]
    Lost,
    /// The event loop could not be started.
    #[error("failed to start the event loop: {0}")]
    Runtime(std::io::Error),
}

impl PodCidrError {
    /// The contract's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NotListed(_) | Self::Api(_) => 3,
            _ => 1,
        }
    }
}

/// What was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCidrReport {
    /// 1; raised when a field changes its meaning or goes.
    pub schema_version: u32,
    /// Node and CIDRs.
    pub assigned: Vec<AssignedNode>,
    /// Nodes that already had theirs.
    pub unchanged: usize,
    /// Nodes that get none or were refused by the API server, and why.
    pub problems: Vec<String>,
}

/// A node that was given pod CIDRs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AssignedNode {
    /// The node.
    pub node: String,
    /// What it was given.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

impl std::fmt::Display for PodCidrReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for AssignedNode { node, pod_cidrs } in &self.assigned {
            writeln!(f, "{node}: {}", pod_cidrs.join(", "))?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        writeln!(
            f,
            "{} assigned, {} had theirs, {} problems",
            self.assigned.len(),
            self.unchanged,
            self.problems.len()
        )
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, PodCidrError>>) -> Result<T, PodCidrError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PodCidrError::Runtime)?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Gives pod CIDRs to all nodes that have none now.
pub fn assign_once(options: &PodCidrOptions) -> Result<PodCidrReport, PodCidrError> {
    block_on(async {
        let mut assigner = Assigner::new(options);
        assigner.lease.take_or_fail(&mut assigner.api).await?;
        let mut nodes = Nodes::follow(options);
        nodes.listed().await?;
        let report = assigner.give(nodes.trusted()).await;
        assigner.lease.release(&mut assigner.api).await;
        report
    })
}

/// Gives pod CIDRs as nodes join, for as long as it holds the Lease, until it is told to stop.
pub fn assign_and_watch(options: &PodCidrOptions) -> Result<Ended, PodCidrError> {
    assign_until(options, signalled())
}

/// Gives pod CIDRs as nodes join until `stop` resolves.
pub fn assign_until(
    options: &PodCidrOptions,
    stop: impl Future<Output = Result<Ended, std::io::Error>>,
) -> Result<Ended, PodCidrError> {
    block_on(async {
        let mut assigner = Assigner::new(options);
        let ended = tokio::select! {
            biased;
            ended = stop => ended,
            never = assigner.watch(options) => match never {},
        };
        assigner.lease.release(&mut assigner.api).await;
        ended.map_err(PodCidrError::Runtime)
    })
}

/// A name that no other process of the cluster is likely to have.
#[must_use]
pub fn default_identity() -> String {
    let host = rustix::system::uname();
    format!("{}_{}", host.nodename().to_string_lossy(), std::process::id())
}

/// The nodes, followed.
struct Nodes {
    heard: mpsc::Receiver<Heard>,
    store: NodeStore,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Nodes {
    fn follow(options: &PodCidrOptions) -> Self {
        let (sender, heard) = mpsc::channel(256);
        let (own, _) = watch::channel(None);
        let task = tokio::task::spawn_local(follow(options.location.clone(), None, sender, own));
        Self { heard, store: NodeStore::new(None, None), task }
    }

    /// Until the nodes were listed, or the API server says that they will not be.
    async fn listed(&mut self) -> Result<(), PodCidrError> {
        let listed = async {
            while self.trusted().is_none() {
                let Some(heard) = self.heard.recv().await else { break };
                self.store.take(heard, Instant::now());
                if let Some(problem) = self.store.reading(Instant::now()).problem {
                    return Err(PodCidrError::NotListed(problem));
                }
            }
            Ok(())
        };
        let late = || {
            PodCidrError::NotListed(format!("the API server has not listed the nodes within {FIRST_LIST:?}"))
        };
        timeout(FIRST_LIST, listed).await.map_err(|_| late())?
    }

    /// Resolves when there is something to look at.
    async fn changed(&mut self) {
        while let Some(heard) = self.heard.recv().await {
            if self.store.take(heard, Instant::now()) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// What is wrong with the API server now: it is silent, or not believed.
    fn problem(&mut self) -> Option<String> {
        self.store.reading(Instant::now()).problem
    }

    /// The nodes, unless the API server may have lost some: their CIDRs would be given twice.
    fn trusted(&mut self) -> Option<&ClusterSnapshot> {
        while let Ok(heard) = self.heard.try_recv() {
            self.store.take(heard, Instant::now());
        }
        let reading = self.store.reading(Instant::now());
        reading.snapshot.filter(|snapshot| reading.whole && snapshot.freshness == Freshness::Synced)
    }
}

struct Assigner {
    api: Api,
    ranges: PerFamily<ClusterRange>,
    lease: Lease,
    /// Given, and not seen yet: an event that is on its way may still show the node without. By UID, for another node
    /// of the name is another node.
    promised: BTreeMap<NodeName, (String, PerFamily<IpNet>)>,
    told: Vec<String>,
}

impl Assigner {
    fn new(options: &PodCidrOptions) -> Self {
        let lease = Lease::new(&options.lease_namespace, &options.lease_name, &options.identity);
        Self {
            api: Api::new(options.location.clone()),
            ranges: options.ranges.clone(),
            lease,
            promised: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// For ever: waits for the Lease, gives, renews.
    async fn watch(&mut self, options: &PodCidrOptions) -> Infallible {
        let mut backoff = Backoff::default();
        loop {
            if let Err(error) = self.lead(options, &mut backoff).await {
                tracing::warn!("{error}");
            }
            self.promised.clear();
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn lead(&mut self, options: &PodCidrOptions, backoff: &mut Backoff) -> Result<(), PodCidrError> {
        while !self.lease.try_take(&mut self.api).await? {
            tokio::time::sleep(RENEW).await;
        }
        tracing::info!(identity = options.identity, "this is who gives pod CIDRs");
        backoff.reset();
        // Listed only now, so that all that an earlier holder gave is seen.
        let mut nodes = Nodes::follow(options);
        let mut renew = Instant::now() + RENEW;
        loop {
            let mut problems = match nodes.trusted() {
                Some(snapshot) => self.give(Some(snapshot)).await?.problems,
                None => Vec::new(),
            };
            problems.extend(nodes.problem());
            self.tell(problems);
            tokio::select! {
                () = nodes.changed() => tokio::time::sleep(COALESCE).await,
                () = sleep_until(renew) => {}
            }
            if renew <= Instant::now() {
                if !self.lease.try_take(&mut self.api).await? {
                    return Err(PodCidrError::Lost);
                }
                renew = Instant::now() + RENEW;
            }
        }
    }

    /// Gives what is missing.
    async fn give(&mut self, snapshot: Option<&ClusterSnapshot>) -> Result<PodCidrReport, PodCidrError> {
        let Some(snapshot) = snapshot else {
            return Err(PodCidrError::NotListed("the nodes are not known for certain; try again".to_owned()));
        };
        self.promised.retain(|name, (uid, _)| {
            snapshot.nodes.get(name).is_some_and(|node| node.uid == *uid && node.pod_cidrs.is_empty())
        });
        let promised = self.promised.iter().map(|(name, (_, cidrs))| (name.clone(), cidrs.clone())).collect();
        let (assignments, problems) = allocate(snapshot, &self.ranges, &promised);
        let mut report = PodCidrReport {
            schema_version: 1,
            unchanged: snapshot.nodes.values().filter(|node| !node.pod_cidrs.is_empty()).count(),
            problems: problems.iter().map(AllocationProblem::to_string).collect(),
            ..PodCidrReport::default()
        };
        for Assignment { node, pod_cidrs } in assignments {
            if !self.lease.holds() && !self.lease.try_take(&mut self.api).await? {
                return Err(PodCidrError::Lost);
            }
            let cidrs: Vec<String> = pod_cidrs.values().map(ToString::to_string).collect();
            let uid = snapshot.nodes.get(&node).map(|node| node.uid.clone()).unwrap_or_default();
            // Kept also where the request fails: its answer may have been lost.
            self.promised.insert(node.clone(), (uid.clone(), pod_cidrs));
            match self.set(&node, &uid, &cidrs).await {
                Ok(()) => {
                    tracing::info!(node = node.as_str(), pod_cidrs = cidrs.join(","), "assigned");
                    report.assigned.push(AssignedNode { node: node.to_string(), pod_cidrs: cidrs });
                }
                // Set by somebody else, or gone: the next event shows it.
                Err(error) if matches!(error.code(), Some(404 | 409 | 422)) => {
                    report.problems.push(format!("node `{node}`: {error}"));
                }
                Err(error) => {
                    self.promised.remove(&node);
                    return Err(error.into());
                }
            }
        }
        Ok(report)
    }

    /// The API server lets nobody change CIDRs that are set; the UID keeps them from another node of the name.
    async fn set(&mut self, node: &NodeName, uid: &str, cidrs: &[String]) -> Result<(), ApiError> {
        let body = json!({"metadata": {"uid": uid}, "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs}});
        let payload =
            Payload { media_type: "application/merge-patch+json", bytes: body.to_string().into_bytes() };
        let path = format!("/api/v1/nodes/{node}");
        self.api.request::<Value>(Method::PATCH, &path, Some(payload)).await.map(|_| ())
    }

    /// Says each problem when it comes.
    fn tell(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.told.contains(*problem)) {
            tracing::warn!("{problem}");
        }
        self.told = problems;
    }
}
