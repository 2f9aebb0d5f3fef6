//! What this node's agent tells the cluster: the Node's condition, its address, Events, and a `NodeNetwork` object. What
//! is to stand there is decided here, from a pass's report; `writer.rs` makes it so, and writes only what differs.

mod documents;
mod events;
mod writer;

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node_network::condition::{LanCondition, MtuCondition};
use node_network::{Condition, NodeName, Settings, Severity};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::kubernetes::Location;
use crate::kubernetes::own_node::OwnNode;
use crate::reconcile::ReconcileReport;
use events::{EventLog, EventRequest};
use writer::Refusals;

/// Events that wait for the API server; more are dropped, for they tell of the past.
const WAITING_EVENTS: usize = 32;
/// Problems that an object names; the node's own status has all.
const MAX_PROBLEMS: usize = 8;
/// Bytes of one of them.
const MAX_PROBLEM: usize = 400;

/// What is to stand in the API about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) condition: Option<WantedCondition>,
    pub(crate) internal_ips: Option<String>,
    pub(crate) network: Option<NetworkStatus>,
}

/// The Node's condition `NetworkUnavailable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedCondition {
    pub(crate) unavailable: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// `status` of this node's `NodeNetwork`. Nothing in it changes while nothing is wrong: with a count of peers, each node
/// that joins would be a write of every other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkStatus {
    announced: bool,
    converged: bool,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    #[serde(rename = "internalIPs")]
    internal_ips: Vec<String>,
    /// Peers' pod CIDRs without a working route.
    unrouted: usize,
    problems: Vec<String>,
    agent_version: &'static str,
}

impl NetworkStatus {
    /// Something is wrong that may pass.
    pub(super) const fn is_bad(&self) -> bool {
        !self.converged || self.unrouted > 0
    }
}

/// Tells the cluster what each pass found.
#[derive(Debug)]
pub(crate) struct Reporter {
    settings: Settings,
    wanted: watch::Sender<Wanted>,
    events: mpsc::Sender<EventRequest>,
    log: EventLog,
    refusals: watch::Receiver<Refusals>,
    task: JoinHandle<()>,
    passes: u64,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reporter {
    /// Starts the writer. Must be called within a [`tokio::task::LocalSet`].
    pub(crate) fn new(
        location: Location,
        this_node: &NodeName,
        settings: &Settings,
        own: watch::Receiver<Option<OwnNode>>,
    ) -> Self {
        let (wanted, changed) = watch::channel(Wanted::default());
        let (events, waiting) = mpsc::channel(WAITING_EVENTS);
        let (refused, refusals) = watch::channel(Refusals::new());
        let writing = writer::run(location, this_node.clone(), own, changed, waiting, refused);
        let task = tokio::task::spawn_local(writing);
        let log = EventLog::new(this_node.as_str());
        Self { settings: settings.clone(), wanted, events, log, refusals, task, passes: 0 }
    }

    /// Resolves when what the API server refuses has changed since [`Reporter::conditions`] told it.
    pub(crate) async fn changed(&mut self) {
        if self.refusals.changed().await.is_err() {
            // Whoever writes has ended, and refuses nothing any more.
            std::future::pending::<()>().await;
        }
    }

    /// What the API server does not let this agent write.
    pub(crate) fn conditions(&mut self) -> Vec<Condition> {
        let refusals = self.refusals.borrow_and_update();
        let told = refusals.iter().map(|(attempted, reason)| Condition::ReportRefused {
            attempted: (*attempted).to_owned(),
            reason: reason.clone(),
        });
        told.collect()
    }

    /// Takes over what a pass found and did. What it changed is a repair where the source had not changed, and no link of
    /// the node's own settles: by a link routes and addresses are lost that nobody took, and rules follow addresses.
    pub(crate) fn tell(&mut self, report: &ReconcileReport, source_changed: bool, links_settle: bool) {
        self.passes += 1;
        let wanted = wanted(report, &self.settings);
        self.wanted.send_if_modified(|before| {
            let differs = *before != wanted;
            *before = wanted;
            differs
        });
        if !self.settings.kubernetes.events || !report.synced {
            return;
        }
        let repairs = !source_changed && !links_settle && self.passes > 1;
        let told = occurrences(report, repairs);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        for request in self.log.take(told, now) {
            if self.events.try_send(request).is_err() {
                tracing::debug!("an Event is dropped: the API server does not take them fast enough");
            }
        }
    }
}

/// What is to stand in the API after a pass. A source that was not read says nothing new about this node.
pub(crate) fn wanted(report: &ReconcileReport, settings: &Settings) -> Wanted {
    if !report.synced {
        return Wanted::default();
    }
    let ips: Vec<String> = report.chosen_ips.values().map(IpAddr::to_string).collect();
    Wanted {
        condition: settings.kubernetes.network_unavailable.then(|| condition(report)),
        internal_ips: (!ips.is_empty()).then(|| ips.join(",")),
        network: settings.kubernetes.node_networks.then(|| network_status(report)),
    }
}

fn condition(report: &ReconcileReport) -> WantedCondition {
    use node_network::plan::PeerState;
    if !report.announced {
        let own = report.conditions.iter().find(|condition| is_own_fault(condition));
        let message = own.map_or_else(|| Condition::NotAnnounced.to_string(), ToString::to_string);
        return WantedCondition { unavailable: true, reason: "NotAnnounced", message: bounded(&message) };
    }
    let lost = |peer: &node_network::plan::PeerReport| {
        matches!(peer.state, PeerState::Refused | PeerState::Shadowed)
    };
    if !report.peers.is_empty() && report.peers.iter().all(lost) {
        let message = format!("no route to any of {} pod CIDRs of other nodes works", report.peers.len());
        return WantedCondition { unavailable: true, reason: "NoPeerReachable", message };
    }
    WantedCondition {
        unavailable: false,
        reason: "RoutesInstalled",
        message: "hostgw routes the pods of this node".to_owned(),
    }
}

/// What keeps a node from being announced, the cause rather than the consequence.
const fn is_own_fault(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::NoPodCidr { .. }
            | Condition::OwnPodCidrUnreadable { .. }
            | Condition::OwnPodCidrClash { .. }
            | Condition::InternalIpNotLocal { .. }
            | Condition::InternalIpNotUsable { .. }
            | Condition::Mtu(MtuCondition::MtuTooSmall { .. })
            | Condition::BridgeNotOfPods { .. }
            | Condition::Lan(LanCondition::UplinkNotJoined { .. })
            | Condition::Lan(LanCondition::NoLanBridge { .. })
            | Condition::Lan(LanCondition::NoLanSlice { .. })
            | Condition::Lan(LanCondition::LanSliceUnreadable { .. })
            | Condition::Lan(LanCondition::LanSliceRefused { .. })
    )
}

fn network_status(report: &ReconcileReport) -> NetworkStatus {
    use node_network::plan::PeerState;
    let problems = report.conditions.iter().filter(|condition| condition.severity() == Severity::Error);
    NetworkStatus {
        announced: report.announced,
        converged: report.converged(),
        pod_cidrs: report.pod_cidrs.values().map(ToString::to_string).collect(),
        internal_ips: report.internal_ips.values().map(IpAddr::to_string).collect(),
        unrouted: report.peers.iter().filter(|peer| peer.state != PeerState::Routed).count(),
        problems: problems.take(MAX_PROBLEMS).map(|problem| bounded(&problem.to_string())).collect(),
        agent_version: env!("CARGO_PKG_VERSION"),
    }
}

/// What is worth an Event.
fn occurrences(report: &ReconcileReport, repairs: bool) -> Vec<events::Occurrence> {
    let grave = report.conditions.iter().filter(|condition| condition.severity() >= Severity::Warning);
    let mut told: Vec<events::Occurrence> = grave
        .map(|condition| events::Occurrence {
            reason: camel_case(condition.code()),
            note: bounded(&condition.to_string()),
            warning: true,
            lasting: true,
            pod: condition.pod().cloned(),
        })
        .collect();
    if repairs && report.applied.made() > 0 {
        let mut made = report.applied.outcomes.iter().filter(|outcome| outcome.error.is_none());
        let first = made.next().map(|outcome| outcome.line.to_string()).unwrap_or_default();
        told.push(events::Occurrence {
            reason: "NetworkRepaired".to_owned(),
            note: bounded(&format!("put back what somebody else changed, such as: {first}")),
            warning: false,
            lasting: false,
            pod: None,
        });
    }
    told
}

/// `no-pod-cidr` is `NoPodCidr`.
fn camel_case(code: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    code.split('-').map(capital).collect()
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_PROBLEM).collect()
}

#[cfg(test)]
mod tests;
