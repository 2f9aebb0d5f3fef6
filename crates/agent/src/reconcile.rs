//! One pass: observe, decide, apply, look whether it took effect, and see to the pods. Nothing that was done is kept from
//! one pass to the next; of what was seen, what the kernel has not put in doubt since.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attachment::{NetworkName, Store};
use ipnet::IpNet;
use kernel::KernelError;
use kernel::sysctl::Sysctls;
use node_network::address_selection::select;
use node_network::cluster::{ClusterSnapshot, Freshness};
use node_network::desired::{DesiredInputs, PluginPaths, desired};
use node_network::plan::{
    PeerReport, PeerState, PlanDocument, RouteChange, judge_effective, judge_effective_for_pods,
};
use node_network::{Change, Condition, NodeName, PerFamily, Plan, Settings, Severity};

use crate::apply::{Applied, apply};
use crate::atomic_file::{self, FileError};
use crate::foreign_changes::ForeignChanges;
use crate::observe::{Doubt, Kernel, Seen, look_up_all, look_up_for_pod, observe_for_plan, observe_node};
use crate::paths::Paths;
use crate::pods::{self, PodsReport, Records};
use crate::runtime_sandboxes::RuntimeSandboxes;
use crate::source::Reading;
use crate::uninstall::traces::runs_our_plugin;

/// Why a pass could not be made at all.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// This node cannot be observed.
    #[error("failed to observe this node: {}{}", .0, remedy(.0))]
    Observe(#[from] KernelError),
    /// The record of foreign changes cannot be read; without it nothing foreign may be changed.
    #[error(transparent)]
    File(#[from] FileError),
}

fn remedy(error: &KernelError) -> &'static str {
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
    /// This node's pod CIDRs, as far as they are known for certain.
    pub pod_cidrs: PerFamily<IpNet>,
    /// This node's addresses, as its Node says.
    pub internal_ips: PerFamily<IpAddr>,
    /// The addresses that the settings choose for it.
    pub chosen_ips: PerFamily<IpAddr>,
    /// Attached pods.
    pub attachments: usize,
    /// What was put back or freed for pods.
    pub pods_done: Vec<String>,
    /// What failed or could not be read about pods.
    pub pods_problems: Vec<String>,
    /// Something will have to be looked at again at this time although nothing may happen until then.
    pub look_again_in: Option<Duration>,
    /// How long it took until the plan was applied, from the pass's beginning; zero where nothing was planned.
    pub applied_after: Duration,
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

/// What a pass has decided.
struct Decided {
    plan: Plan,
    internal_ips: PerFamily<IpAddr>,
    pod_cidrs: PerFamily<IpNet>,
}

/// Makes passes on the node of the calling thread's network namespace.
#[derive(Debug)]
pub struct Reconciler {
    kernel: Kernel,
    this_node: NodeName,
    settings: Settings,
    paths: Paths,
    seen: Seen,
    runtime: Option<RuntimeSandboxes>,
}

impl Reconciler {
    /// Opens the sockets that a pass needs.
    pub fn new(this_node: NodeName, settings: Settings, paths: Paths) -> Result<Self, KernelError> {
        let kernel = Kernel::open(&paths)?;
        let seen = Seen::new(kernel.ports()?);
        Ok(Self { kernel, this_node, settings, paths, seen, runtime: None })
    }

    /// Heeds what this runtime says of its pods.
    pub(crate) fn heed(&mut self, runtime: RuntimeSandboxes) {
        self.runtime = Some(runtime);
    }

    /// What a pass would change, without changing anything. A snapshot that is not `whole` deletes nothing.
    pub fn plan(&mut self, snapshot: &ClusterSnapshot, whole: bool) -> Result<PlanDocument, PassError> {
        self.seen.forget();
        let records = Records::read(&self.paths.ipam_dir());
        let mut observed = observe_node(&mut self.kernel, &self.settings, &self.paths, &mut self.seen)?;
        let Decided { plan, .. } = self.decide(snapshot, whole, &records, &mut observed)?;
        Ok(PlanDocument::new(self.this_node.as_str(), &plan))
    }

    fn decide(
        &mut self,
        snapshot: &ClusterSnapshot,
        whole: bool,
        records: &Records,
        observed: &mut node_network::ObservedNode,
    ) -> Result<Decided, PassError> {
        let plugin_paths = PluginPaths {
            data_dir: self.paths.ipam_dir().display().to_string(),
            ready_file: self.paths.ready_file().display().to_string(),
            lease_dir: self.paths.lease_dir().display().to_string(),
        };
        let mut desired = desired(&DesiredInputs {
            this_node: &self.this_node,
            snapshot,
            settings: &self.settings,
            host: &observed.host_facts(&self.settings),
            routes: &observed.routes,
            attached: &records.addresses(),
            paths: &plugin_paths,
        });
        // What the beginning of a file does not list may stand in the rest.
        desired.may_delete &= whole;
        observe_for_plan(&mut self.kernel, &desired, observed, &self.settings, &mut self.seen)?;
        Ok(Decided {
            plan: node_network::plan(&desired, observed, &self.settings),
            internal_ips: desired.internal_ips,
            pod_cidrs: desired.own.map(|own| own.pod_cidrs).unwrap_or_default(),
        })
    }

    /// One pass that looks at everything.
    pub fn pass(&mut self, reading: &Reading<'_>) -> Result<ReconcileReport, PassError> {
        self.pass_after(reading, Doubt::Everything)
    }

    /// What the kernel may not have changed unheard since the last pass.
    pub(crate) const fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// One pass that looks anew at what is in doubt, and at everything where the last one did not succeed.
    pub(crate) fn pass_after(
        &mut self,
        reading: &Reading<'_>,
        doubt: Doubt,
    ) -> Result<ReconcileReport, PassError> {
        if doubt == Doubt::Everything {
            self.seen.forget();
        }
        let result = self.look_and_act(reading);
        if !result.as_ref().is_ok_and(|report| report.applied.failures().next().is_none()) {
            self.seen.forget();
        }
        result
    }

    fn look_and_act(&mut self, reading: &Reading<'_>) -> Result<ReconcileReport, PassError> {
        let began = Instant::now();
        let records = Records::read(&self.paths.ipam_dir());
        let mut observed = observe_node(&mut self.kernel, &self.settings, &self.paths, &mut self.seen)?;
        let mut report = ReconcileReport {
            synced: reading.snapshot.is_some_and(|snapshot| snapshot.freshness == Freshness::Synced),
            source_problem: reading.problem.clone(),
            nodes: reading.snapshot.map_or(0, |snapshot| snapshot.nodes.len()),
            attachments: records.entries.len(),
            ..ReconcileReport::default()
        };
        report.chosen_ips = select(&self.settings.node_address, &observed);
        if let Some(snapshot) = reading.snapshot {
            let Decided { mut plan, internal_ips, pod_cidrs } =
                self.decide(snapshot, reading.whole, &records, &mut observed)?;
            (report.internal_ips, report.pod_cidrs) = (internal_ips, pod_cidrs);
            let mut foreign =
                ForeignChanges::load(self.paths.foreign_changes_file(), Sysctls::default().boot_id()?)?;
            let noted = self.note_conflist(&plan, &observed, &mut foreign);
            report.pods_problems.extend(noted.err().map(|error| error.to_string()));
            report.applied = apply(&plan, &mut self.kernel, &mut foreign, &self.settings, &self.paths);
            report.applied_after = began.elapsed();
            let origins = records.packet_origins(&observed);
            report.conditions = self.judge(&mut plan, &report.applied, &origins);
            report.conditions.extend(pods::judge_mtus(
                &records,
                &observed,
                &report.internal_ips,
                &self.settings,
            ));
            self.seen.doubt_rules_of(&plan);
            if !self.settings.node_address.is_empty() && report.chosen_ips.is_empty() {
                report.conditions.push(Condition::NoChosenAddress);
            }
            report.peers = plan.peers;
            report.pods_problems.extend(self.remove_former_conflists(&mut foreign));
        }
        // Whether a conflist is there, not whether this pass wrote one.
        report.announced = self.paths.ready_file().exists() && self.conflist_path().exists();
        self.see_to_pods(&records, &observed, &mut report);
        self.seen.take_back(observed);
        report.duration = began.elapsed();
        Ok(report)
    }

    /// The plan's conditions, and after it was applied: routes that are installed and not used.
    fn judge(
        &mut self,
        plan: &mut Plan,
        applied: &Applied,
        pods: &PerFamily<(IpAddr, u32)>,
    ) -> Vec<Condition> {
        // A route that could not be installed has its own failure.
        let failed = failed_routes(plan, applied);
        for peer in &mut plan.peers {
            if let Some(state) = failed.get(&peer.pod_cidr).filter(|_| peer.state == PeerState::Routed) {
                peer.state = *state;
            }
        }
        let mut conditions = plan.conditions.clone();
        let socket = &mut self.kernel.route;
        let found = look_up_all(socket, &self.seen.unproven(&plan.peers, plan));
        // What was not asked about was seen before to be used.
        conditions.extend(judge_effective(&mut plan.peers, |probe| found.get(&probe).cloned()));
        self.seen.prove(&plan.peers);
        conditions.extend(judge_effective_for_pods(&mut plan.peers, |address| {
            let origin = pods.get(node_network::Family::of(address))?;
            Some((origin.0, look_up_for_pod(socket, address, *origin)?))
        }));
        conditions
    }

    fn conflist_path(&self) -> PathBuf {
        self.paths.on_node(Path::new(&self.settings.cni.conf_file))
    }

    /// The CNI configuration is noted before it is written, so that it is found by whatever name the settings give
    /// the next one.
    fn note_conflist(
        &self,
        plan: &Plan,
        observed: &node_network::ObservedNode,
        foreign: &mut ForeignChanges,
    ) -> Result<(), FileError> {
        let written = plan.changes().any(|change| matches!(change, Change::Conflist(_)));
        if written || observed.conflist.is_some() { foreign.conflist(&self.conflist_path()) } else { Ok(()) }
    }

    /// Where the settings name another file than before, the old one goes once the new one stands: the runtime takes
    /// the first in the folder.
    fn remove_former_conflists(&self, foreign: &mut ForeignChanges) -> Vec<String> {
        let current = self.conflist_path();
        if !current.exists() {
            return Vec::new();
        }
        let former: Vec<PathBuf> = foreign.conflists().filter(|path| **path != current).cloned().collect();
        let mut problems = Vec::new();
        for path in former {
            let removed = if runs_our_plugin(&path) { atomic_file::remove(&path) } else { Ok(false) };
            match removed.and_then(|gone| foreign.forget_conflist(&path).map(|()| gone)) {
                Ok(true) => tracing::info!(path = %path.display(), "removed the former CNI configuration"),
                Ok(false) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems
    }

    fn see_to_pods(
        &mut self,
        records: &Records,
        observed: &node_network::ObservedNode,
        report: &mut ReconcileReport,
    ) {
        let data_dir = self.paths.ipam_dir();
        let mut pods = PodsReport::default();
        pods.problems.extend(records.problems.iter().cloned());
        let Kernel { route, .. } = &mut self.kernel;
        pods::restore(route, &data_dir, records, observed, &report.internal_ips, &mut pods);
        pods::restore_proxies(route, &data_dir, records, observed, &mut pods);
        pods::restore_bridges(route, &data_dir, records, observed, &self.settings, &mut pods);
        pods::restore_guards(&mut self.kernel, &data_dir, records, observed, &self.settings, &mut pods);
        if data_dir.exists() {
            let orphans = records.without_link(observed).map(|entry| entry.record.created);
            // When a record that cannot be read was written is not known here.
            let unknown = (!records.problems.is_empty()).then_some(pods::AFTER_GRACE);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            report.look_again_in = pods::reclaim_due_in(orphans, now).into_iter().chain(unknown).min();
            self.see_to_forgotten_pods(records, &data_dir, report, &mut pods);
            pods::reclaim(&mut self.kernel.route, &data_dir, &mut pods);
            let own = &report.internal_ips;
            pods::rebuild_host_ports(&mut self.kernel, observed, own, &data_dir, &mut pods);
        }
        report.pods_done = pods.done;
        report.pods_problems.extend(pods.problems);
    }
}

impl Reconciler {
    /// Frees pods that the runtime does not know any more. Where another runtime shares the network its pods are not this
    /// one's to know.
    fn see_to_forgotten_pods(
        &mut self,
        records: &Records,
        data_dir: &Path,
        report: &mut ReconcileReport,
        pods: &mut PodsReport,
    ) {
        let Some(runtime) = self.runtime.as_ref().filter(|_| !self.settings.cni.disable_gc) else { return };
        report.conditions.extend(runtime.problem());
        let Some(looks) = runtime.two_looks() else { return };
        let Ok(network) = NetworkName::new(self.settings.cni.network_name.as_str()) else { return };
        let grace = self.settings.runtime.grace_period.as_duration().as_secs();
        let forgotten = match pods::forgotten(records, &network, &looks, grace) {
            Ok(forgotten) if forgotten.is_empty() => return,
            Ok(forgotten) => forgotten,
            Err(doubt) => return report.conditions.push(*doubt),
        };
        match Store::find(data_dir, &network) {
            Ok(Some(store)) => pods::reclaim_forgotten(&mut self.kernel.route, &store, &forgotten, pods),
            Ok(None) => {}
            Err(error) => pods.problems.push(error.to_string()),
        }
    }
}

/// Destinations whose route could not be made or replaced, and what became of them: what was there stays.
fn failed_routes(plan: &Plan, applied: &Applied) -> BTreeMap<IpNet, PeerState> {
    let failed: BTreeSet<&str> = applied.failures().map(|(line, _)| line.what.as_str()).collect();
    if failed.is_empty() {
        return BTreeMap::new();
    }
    let changes = plan.changes().filter_map(|change| match change {
        Change::Route(route) => Some((route, change.line())),
        _ => None,
    });
    let outcomes = changes.filter(|(_, line)| failed.contains(line.what.as_str()));
    outcomes
        .filter_map(|(change, _)| match change {
            RouteChange::Add { route, superseded } if superseded.is_empty() => {
                Some((route.key.dst, PeerState::Refused))
            }
            RouteChange::Add { route, .. } | RouteChange::Replace { route, .. } => {
                Some((route.key.dst, PeerState::Held))
            }
            RouteChange::Delete { .. } => None,
        })
        .collect()
}
