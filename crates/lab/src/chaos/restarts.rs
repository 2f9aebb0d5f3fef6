//! Agents and nodes that start anew on a flat network, whose nodes drop what they forward: what the LAN and the firewall
//! need to know of pods outlives the one, and is told again after the other.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cluster_faults::{boot_again, start_announced};
use super::report::{ChaosFailure, Repair};
use super::setback::Setback;
use super::uplink_faults::mac_of;
use super::{NOTICED, RESTORED, describe};
use crate::cluster::Cluster;
use crate::options::{Restarts, Sabotage};
use crate::probe::{self, Probe};
use crate::progress::Progress;
use crate::report::ProbeKind;
use crate::{LabError, fault, ruleset};

/// On this LAN an answer comes within a millisecond; a busy machine takes longer, and what is asked again need not wait.
const PATIENCE: Duration = Duration::from_millis(300);
/// An answer that has not come by now was lost, however busy the machine is.
const LOST: Duration = Duration::from_secs(2);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(10);
/// The node's boot has an id of its own.
const BOOT_ID: &str = "00000000-0000-4000-8000-000000000001";

/// What came of it; how long each took is in the document's `repairs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RestartReport {
    /// What should not have happened.
    pub failures: Vec<ChaosFailure>,
}

type Step = fn(&mut Cluster, usize, &mut Watch<'_>) -> Result<(), Setback>;

/// What is asked of the steps, and what they found.
struct Watch<'a> {
    sabotage: Option<Sabotage>,
    foreign: &'a mut [BTreeSet<String>],
    damaged: Instant,
    noticed: Option<(Instant, String)>,
}

/// Restarts the agent of the first node, and boots the last node.
pub(crate) fn run(
    cluster: &mut Cluster,
    restarts: Restarts,
    foreign: &mut [BTreeSet<String>],
    progress: &mut Progress,
) -> Result<(RestartReport, Vec<Repair>), LabError> {
    let (mut report, mut repairs) = (RestartReport::default(), Vec::new());
    let last = cluster.nodes.len().saturating_sub(1);
    let steps: [(&str, usize, Step); 2] =
        [("agent-restarted", 0, restart_agent), ("node-rebooted", last, reboot)];
    for (name, at, step) in steps {
        let node = cluster.node(at)?.plan.name.clone();
        let mut watch =
            Watch { sabotage: restarts.sabotage, foreign, damaged: Instant::now(), noticed: None };
        let measured = progress.step(
            name,
            || Ok::<_, LabError>(step(cluster, at, &mut watch).and_then(|()| watch.repair(name, &node))),
            |measured| describe(&node, measured),
        )?;
        match measured {
            Ok(repair) => repairs.push(repair),
            Err(setback) => {
                let (code, message) = setback.into_parts();
                report.failures.push(ChaosFailure { fault: name.to_owned(), node, code, message });
                break;
            }
        }
    }
    Ok((report, repairs))
}

impl Watch<'_> {
    fn repair(&mut self, fault: &str, node: &str) -> Result<Repair, Setback> {
        let (noticed, observed) =
            self.noticed.take().ok_or_else(|| Setback::found("fault_not_observed", "nobody looked"))?;
        let since = |then: Instant| {
            u64::try_from(then.saturating_duration_since(self.damaged).as_millis()).unwrap_or(u64::MAX)
        };
        Ok(Repair {
            fault: fault.to_owned(),
            node: node.to_owned(),
            observed_broken_ms: since(noticed),
            observed,
            undone_ms: None,
            restored_ms: since(Instant::now()),
            notes: Vec::new(),
        })
    }

    fn await_noticed(&mut self, cluster: &Cluster, probes: &[Probe]) -> Result<(), Setback> {
        let deadline = Instant::now() + NOTICED;
        loop {
            let first = probes.iter().find(|probe| lost_one(cluster, probe, PATIENCE).is_some());
            let when = Instant::now();
            // The damage lasts: what was merely late is answered now.
            if let Some(lost) = first.and_then(|probe| lost_one(cluster, probe, LOST)) {
                self.noticed = Some((when, lost));
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Setback::found("fault_not_observed", "every probe was answered all the same"));
            }
            thread::sleep(LOOK);
        }
    }
}

/// The agent is killed, and nobody misses it; what it keeps is lost, which is noticed; it starts, and all is well.
fn restart_agent(cluster: &mut Cluster, at: usize, watch: &mut Watch<'_>) -> Result<(), Setback> {
    let probes = probes_of(cluster, at)?;
    cluster.node_mut(at)?.kill_agent()?;
    if let Some(lost) = lost(cluster, &probes, probe::PATIENCE) {
        return Err(Setback::found("agent_missed", lost));
    }
    watch.damaged = Instant::now();
    if watch.sabotage != Some(Sabotage::NoDamage) {
        let node = cluster.node(at)?;
        let forget = node.place.netns().run(|| fault::forget_answers().and(ruleset::flush_forward()));
        forget.and_then(|done| done).map_err(LabError::kernel(&*node.plan.name))?;
    }
    watch.await_noticed(cluster, &probes)?;
    // One that was held only once it runs might have repaired everything before.
    if watch.sabotage != Some(Sabotage::HoldAgents) {
        cluster.node_mut(at)?.start_agent()?;
    }
    await_answers(cluster, &probes)
}

/// The node's namespaces, processes, pods and `/run` go; agent and pods come again, and hosts of the LAN find them.
fn reboot(cluster: &mut Cluster, at: usize, watch: &mut Watch<'_>) -> Result<(), Setback> {
    let mut probes = probes_of(cluster, at)?;
    let name = cluster.node(at)?.plan.name.clone();
    // Nobody is left on the node who could ask.
    probes.retain(|probe| !is_on(&probe.from, &name));
    let mac = cluster.node(at)?.place.run({
        let name = name.clone();
        move || mac_of(&name)
    })?;
    watch.damaged = Instant::now();
    if watch.sabotage == Some(Sabotage::NoDamage) {
        return watch.await_noticed(cluster, &probes);
    }
    let mut foreign = boot_again(cluster, at, BOOT_ID, mac)?;
    watch.await_noticed(cluster, &probes)?;
    start_announced(cluster, at)?;
    cluster.follow_uplink(at, &mut foreign)?;
    if let Some(of_node) = watch.foreign.get_mut(at) {
        *of_node = foreign;
    }
    if watch.sabotage != Some(Sabotage::LosePods) {
        cluster.attach_pods_again(at)?;
        probes = probes_of(cluster, at)?;
    }
    await_answers(cluster, &probes)
}

fn is_on(place: &str, node: &str) -> bool {
    place.split(['/', ':']).next() == Some(node)
}

/// Between hosts outside and a node's pods, both ways.
fn probes_of(cluster: &Cluster, at: usize) -> Result<Vec<Probe>, LabError> {
    let name = &cluster.node(at)?.plan.name;
    let mut probes = probe::matrix(&cluster.topology, &cluster.inhabitants());
    probes.retain(|probe| {
        matches!(probe.kind, ProbeKind::LanPod | ProbeKind::EgressNomasq)
            && (is_on(&probe.from, name) || is_on(&probe.responder, name))
    });
    Ok(probes)
}

/// The first probe that was not answered.
fn lost(cluster: &Cluster, probes: &[Probe], patience: Duration) -> Option<String> {
    probes.iter().find_map(|probe| lost_one(cluster, probe, patience))
}

fn lost_one(cluster: &Cluster, probe: &Probe, patience: Duration) -> Option<String> {
    let netns = cluster.netns_of(&probe.from)?;
    let error = probe::send_once(probe, &netns, patience).error?;
    Some(format!("{} → {}: {error}", probe.from, probe.to))
}

fn await_answers(cluster: &Cluster, probes: &[Probe]) -> Result<(), Setback> {
    let deadline = Instant::now() + RESTORED;
    while let Some(lost) = lost(cluster, probes, PATIENCE) {
        if Instant::now() >= deadline {
            return Err(Setback::found("not_restored", lost));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
