//! One pass: observe, decide, apply, look whether it took effect, and see to the pods. Nothing is kept from one pass
//! to the next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kernel::KernelError;
use node_network::cluster::ClusterSnapshot;
use node_network::desired::{DesiredInputs, PluginPaths, desired};
use node_network::plan::{PeerReport, PlanDocument, judge_effective};
use node_network::{Condition, NodeName, PerFamily, Plan, Settings, Severity};

use crate::apply::{Applied, apply};
use crate::atomic_file::FileError;
use crate::foreign_changes::ForeignChanges;
use crate::observe::{Kernel, ObserveError, look_up, observe_for_plan, observe_node};
use crate::paths::Paths;
use crate::pods::{self, PodsReport, Records};
use crate::source::Reading;

/// Why a pass could not be made at all.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// This node cannot be observed.
    #[error("failed to observe this node: {}{}", .0, remedy(.0))]
    Observe(#[from] ObserveError),
    /// The record of foreign changes cannot be read; without it nothing foreign may be changed.
    #[error(transparent)]
    File(#[from] FileError),
}

fn remedy(error: &ObserveError) -> &'static str {
    match error {
        error if error.is_permission() => "; it takes CAP_NET_ADMIN in the node's network namespace",
        _ => "",
    }
}

impl PassError {
    /// Whether the process lacks a capability (`CAP_NET_ADMIN`).
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Observe(error) if error.is_permission())
    }
}

/// What a pass found and did.
#[derive(Debug, Default)]
pub struct ReconcileReport {
    /// The source was read whole, now or before.
    pub synced: bool,
    /// What is wrong with the source now.
    pub source_problem: Option<String>,
    /// How many nodes the source lists.
    pub nodes: usize,
    /// The node is announced to the runtime.
    pub announced: bool,
    /// What became of the plan.
    pub applied: Applied,
    /// Each peer's pod CIDR.
    pub peers: Vec<PeerReport>,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
    /// Attached pods.
    pub attachments: usize,
    /// What was put back or freed for pods.
    pub pods_done: Vec<String>,
    /// What failed or could not be read about pods.
    pub pods_problems: Vec<String>,
    /// Something will have to be looked at again at this time although nothing may happen until then.
    pub look_again_in: Option<Duration>,
    /// How long the pass took.
    pub duration: Duration,
}

impl ReconcileReport {
    /// Nothing failed, and no condition is an error.
    #[must_use]
    pub fn converged(&self) -> bool {
        self.applied.failures().next().is_none()
            && self.pods_problems.is_empty()
            && self.conditions.iter().all(|condition| condition.severity() < Severity::Error)
    }

    /// Something was changed.
    #[must_use]
    pub fn changed_something(&self) -> bool {
        self.applied.made() > 0 || !self.pods_done.is_empty()
    }
}

/// Makes passes on the node of the calling thread's network namespace.
#[derive(Debug)]
pub struct Reconciler {
    kernel: Kernel,
    this_node: NodeName,
    settings: Settings,
    paths: Paths,
}

impl Reconciler {
    /// Opens the sockets that a pass needs.
    pub fn new(this_node: NodeName, settings: Settings, paths: Paths) -> Result<Self, KernelError> {
        Ok(Self { kernel: Kernel::open()?, this_node, settings, paths })
    }

    /// What a pass would change, without changing anything.
    pub fn plan(&mut self, snapshot: &ClusterSnapshot) -> Result<PlanDocument, PassError> {
        let records = Records::read(&self.paths.ipam_dir());
        let mut observed = observe_node(&mut self.kernel, &self.settings, &self.paths)?;
        let plan = self.decide(snapshot, &records, &mut observed)?.0;
        Ok(PlanDocument::new(self.this_node.as_str(), &plan))
    }

    fn decide(
        &mut self,
        snapshot: &ClusterSnapshot,
        records: &Records,
        observed: &mut node_network::ObservedNode,
    ) -> Result<(Plan, PerFamily<std::net::IpAddr>), PassError> {
        let plugin_paths = PluginPaths {
            data_dir: self.paths.ipam_dir().display().to_string(),
            ready_file: self.paths.ready_file().display().to_string(),
        };
        let desired = desired(&DesiredInputs {
            this_node: &self.this_node,
            snapshot,
            settings: &self.settings,
            host: &observed.host_facts(self.settings.pod_bridge()),
            attached: &records.addresses(),
            paths: &plugin_paths,
        });
        observe_for_plan(&mut self.kernel, &desired, observed)?;
        Ok((node_network::plan(&desired, observed, &self.settings), desired.internal_ips))
    }

    /// One pass.
    pub fn pass(&mut self, reading: &Reading<'_>) -> Result<ReconcileReport, PassError> {
        let began = Instant::now();
        let records = Records::read(&self.paths.ipam_dir());
        let mut observed = observe_node(&mut self.kernel, &self.settings, &self.paths)?;
        let mut report = ReconcileReport {
            synced: reading.snapshot.is_some(),
            source_problem: reading.problem.clone(),
            nodes: reading.snapshot.map_or(0, |snapshot| snapshot.nodes.len()),
            attachments: records.entries.len(),
            ..ReconcileReport::default()
        };
        let mut internal_ips = PerFamily::default();
        if let Some(snapshot) = reading.snapshot {
            let (mut plan, own) = self.decide(snapshot, &records, &mut observed)?;
            internal_ips = own;
            let mut foreign = ForeignChanges::load(self.paths.foreign_changes_file())?;
            report.applied = apply(&plan, &mut self.kernel, &mut foreign, &self.settings, &self.paths);
            report.conditions = self.judge(&mut plan, &report.applied);
            report.peers = plan.peers;
        }
        // Whether a conflist is there, not whether this pass wrote one.
        report.announced = self.paths.ready_file().exists()
            && self.paths.on_node(std::path::Path::new(&self.settings.cni.conf_file)).exists();
        self.see_to_pods(&records, &observed, &internal_ips, &mut report);
        report.duration = began.elapsed();
        Ok(report)
    }

    /// The plan's conditions, and after it was applied: routes that are installed and not used.
    fn judge(&mut self, plan: &mut Plan, applied: &Applied) -> Vec<Condition> {
        let failed: BTreeSet<&str> = applied.failures().map(|(line, _)| line.what.as_str()).collect();
        let mut conditions = plan.conditions.clone();
        // A route that could not be installed has its own failure.
        if failed.is_empty() {
            let socket = &mut self.kernel.route;
            conditions.extend(judge_effective(&mut plan.peers, |address| look_up(socket, address)));
        }
        conditions
    }

    fn see_to_pods(
        &mut self,
        records: &Records,
        observed: &node_network::ObservedNode,
        internal_ips: &PerFamily<std::net::IpAddr>,
        report: &mut ReconcileReport,
    ) {
        let data_dir = self.paths.ipam_dir();
        let mut pods = PodsReport::default();
        pods.problems.extend(records.problems.iter().cloned());
        pods::restore(&mut self.kernel.route, records, observed, internal_ips, &mut pods);
        pods::restore_bridges(&mut self.kernel.route, records, observed, &self.settings, &mut pods);
        if data_dir.exists() {
            let orphans = records.without_link(observed).count();
            if orphans > 0 || !records.problems.is_empty() {
                report.look_again_in = Some(Duration::from_secs(pods::GRACE_SECONDS + 1));
            }
            pods::reclaim(&mut self.kernel.route, &data_dir, &mut pods);
            pods::rebuild_host_ports(&mut self.kernel, observed, &data_dir, &mut pods);
        }
        report.pods_done = pods.done;
        report.pods_problems = pods.problems;
    }
}
