//! Proof by packets: what is sent from where to where, who must answer, and which source address it must have seen.

mod client;
mod echo;
mod kinds;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use kernel::netns::NetNs;

pub(crate) use echo::Server;
pub(crate) use kinds::{Inhabitants, first_targets, matrix};

use crate::options::Family;
use crate::report::{ProbeKind, ProbeReport, Transport};

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

/// How many probes are under way at once.
const AT_ONCE: usize = 8;

/// Sends all probes, in the order that `seed` decides, each once and none after `deadline`.
pub(crate) fn send_all(
    mut probes: Vec<Probe>,
    seed: u64,
    deadline: Instant,
    netns_of: &(dyn Fn(&str) -> Option<Arc<NetNs>> + Sync),
) -> Vec<ProbeReport> {
    shuffle(&mut probes, seed);
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::with_capacity(probes.len()));
    let work = || {
        while let Some(probe) = probes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let netns = netns_of(&probe.from);
            let report = if Instant::now() < deadline {
                client::send(probe, netns.as_deref())
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
pub(crate) fn send_first(probe: &Probe, netns: &NetNs) -> ProbeReport {
    ProbeReport { first_packet: true, ..client::send(probe, Some(netns)) }
}

/// Puts reports in the order of the contract, whatever order they were sent in.
pub(crate) fn in_order(mut reports: Vec<ProbeReport>) -> Vec<ProbeReport> {
    reports.sort_by(|one, other| {
        let key = |report: &ProbeReport| (report.kind, report.family, report.transport, !report.first_packet);
        key(one).cmp(&key(other)).then_with(|| (&one.from, &one.to).cmp(&(&other.from, &other.to)))
    });
    reports
}

/// Fisher and Yates' shuffle, with the numbers of `SplitMix64` (Steele, Lea and Flood, 2014).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for end in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let pick = usize::try_from(mixed % (end as u64 + 1)).unwrap_or(0);
        items.swap(end, pick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_seed_decides_the_order_and_loses_nothing(seed in any::<u64>(), count in 0usize..200) {
            let mut once: Vec<_> = (0..count).collect();
            let mut again = once.clone();
            shuffle(&mut once, seed);
            shuffle(&mut again, seed);
            prop_assert_eq!(&once, &again);
            once.sort_unstable();
            prop_assert_eq!(once, (0..count).collect::<Vec<_>>());
        }
    }
}
