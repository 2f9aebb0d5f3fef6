//! Proof by packets: what is sent from where to where, who must answer, and which source address it must have seen.

mod client;
mod echo;
mod kinds;
pub(crate) mod report;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kernel::netns::NetNs;

pub(crate) use echo::Server;
pub(crate) use kinds::{Inhabitants, first_targets, matrix};

use crate::options::Family;
use crate::report::{ProbeKind, ProbeReport, Transport};
use crate::seeded::Seeded;

/// A probe that can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The place where it starts.
    pub(crate) from: String,
    /// The place that must answer, with what it was asked by, for people.
    pub(crate) to: String,
    pub(crate) family: Family,
    pub(crate) kind: ProbeKind,
    pub(crate) transport: Transport,
    /// Where it is sent.
    pub(crate) target: SocketAddr,
    /// The place that must answer.
    pub(crate) responder: String,
    /// The source addresses that the answering place may have seen.
    pub(crate) sources: Vec<IpAddr>,
}

/// Where everything must be answered, an answer may take as long as it takes on a busy machine, and as a neighbour that is asked
/// for three times.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Where damage was planted, much is not answered: what has not come by now is not waited for.
pub(crate) const PATIENCE_WITH_DAMAGE: Duration = Duration::from_secs(2);
/// How many probes are under way at once.
const AT_ONCE: usize = 8;

/// Sends all probes, in the order that `seed` decides, each once and none after `deadline`.
pub(crate) fn send_all(
    mut probes: Vec<Probe>,
    seed: u64,
    patience: Duration,
    deadline: Instant,
    netns_of: &(dyn Fn(&str) -> Option<Arc<NetNs>> + Sync),
) -> Vec<ProbeReport> {
    Seeded::new(seed).shuffle(&mut probes);
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::with_capacity(probes.len()));
    let work = || {
        while let Some(probe) = probes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let netns = netns_of(&probe.from);
            let report = if Instant::now() < deadline {
                client::send(probe, netns.as_deref(), patience)
            } else {
                client::fruitless(probe, "not sent: the lab's time was over")
            };
            reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(report);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sends one probe from a pod whose ADD just returned.
pub(crate) fn send_first(probe: &Probe, netns: &NetNs, patience: Duration) -> ProbeReport {
    ProbeReport { first_packet: true, ..client::send(probe, Some(netns), patience) }
}

/// Sends one probe, which is lost unless it is answered within `patience`.
pub(crate) fn send_once(probe: &Probe, netns: &NetNs, patience: Duration) -> ProbeReport {
    client::send(probe, Some(netns), patience)
}

/// Puts reports in the order of the contract, whatever order they were sent in.
pub(crate) fn in_order(mut reports: Vec<ProbeReport>) -> Vec<ProbeReport> {
    reports.sort_by(|one, other| {
        let key = |report: &ProbeReport| (report.kind, report.family, report.transport, !report.first_packet);
        key(one).cmp(&key(other)).then_with(|| (&one.from, &one.to).cmp(&(&other.from, &other.to)))
    });
    reports
}
