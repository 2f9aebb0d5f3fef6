//! Freeing what pods left that are gone, however they went: a lost DEL, a reboot, a `kill -9`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attachment::{Attachment, NetworkName, Record, Store};
use cni_plugins::wiring::{HOST_LINK_PREFIX, SHAPING_LINK_PREFIX, host_link_name};
use kernel::link;
use kernel::netlink::{Batch, Socket};

use super::{PodsReport, Records, is_gone, stores};

/// How old an attachment without a link must be. An ADD in progress is known by its lock; this only keeps apart what a
/// runtime does in one breath.
const GRACE_SECONDS: u64 = 10;
/// What was written a moment ago is old enough after this: dates of records are whole seconds.
pub(crate) const AFTER_GRACE: Duration = Duration::from_secs(GRACE_SECONDS + 1);

/// After how long the first of the attachments that are gone is old enough, by when each was `created` (seconds since 1970).
/// One that is already, and is still there after a pass, is in somebody's hand.
pub(crate) fn reclaim_due_in(created: impl Iterator<Item = u64>, now: Duration) -> Option<Duration> {
    let due_in = |created: u64| {
        let left = Duration::from_secs(created).saturating_add(AFTER_GRACE).saturating_sub(now);
        if left.is_zero() { AFTER_GRACE } else { left.min(AFTER_GRACE) }
    };
    created.map(due_in).min()
}

/// Frees attachments whose links are gone, and repairs the stores.
pub(crate) fn reclaim(socket: &mut Socket, data_dir: &Path, report: &mut PodsReport) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for store in stores(data_dir, &mut report.problems) {
        reclaim_store(socket, &store, now, report);
    }
    delete_stray_shaping_links(socket, data_dir, report);
}

fn reclaim_store(socket: &mut Socket, store: &Store, now: u64, report: &mut PodsReport) {
    let socket = RefCell::new(socket);
    let gone = |attachment: &Attachment, record: Option<&Record>| {
        link_is_gone(&mut socket.borrow_mut(), store.network(), attachment, record)
    };
    match store.reclaim(now, GRACE_SECONDS, gone) {
        Ok(reclaimed) => {
            report.done.extend(reclaimed.done.iter().map(ToString::to_string));
            report.problems.extend(reclaimed.failed.iter().map(ToString::to_string));
            let contested = reclaimed.contested.iter();
            report.problems.extend(contested.map(|(claim, second)| {
                format!("{claim} is held by two attachments, of which {second} is the second: delete its pod")
            }));
        }
        Err(error) => report.problems.push(error.to_string()),
    }
}

fn link_is_gone(
    socket: &mut Socket,
    network: &NetworkName,
    attachment: &Attachment,
    record: Option<&Record>,
) -> bool {
    let name =
        record.map_or_else(|| host_link_name(network, attachment), |record| record.wiring.host_link.clone());
    is_gone(socket, name.as_str())
}

/// A shaping link does not go with its pod. One that belongs to no record and no pod link is nobody's.
fn delete_stray_shaping_links(socket: &mut Socket, data_dir: &Path, report: &mut PodsReport) {
    let shaping = match link::dump_kind(socket, "ifb") {
        Ok(links) => links,
        Err(error) => return report.problems.push(error.to_string()),
    };
    let ours = shaping
        .into_iter()
        .filter(|link| link.name.len() == 15 && link.name.starts_with(SHAPING_LINK_PREFIX));
    let ours: Vec<_> = ours.collect();
    if ours.is_empty() {
        return;
    }
    // Read after the links: the record of an ADD is older than its links.
    let records = Records::read(data_dir);
    let recorded: BTreeSet<String> = records
        .entries
        .iter()
        .filter_map(|(_, entry)| {
            entry.record.wiring.bandwidth.as_ref()?.ifb.as_ref().map(ToString::to_string)
        })
        .collect();
    for stray in ours.into_iter().filter(|link| !recorded.contains(&link.name)) {
        let pod_link = stray.name.replacen(SHAPING_LINK_PREFIX, HOST_LINK_PREFIX, 1);
        if !is_gone(socket, &pod_link) {
            continue;
        }
        let mut batch = Batch::new();
        link::delete(&mut batch, stray.index);
        match socket.execute_all(&mut batch) {
            Ok(()) => report.done.push(format!("deleted shaping link {}, whose pod is gone", stray.name)),
            Err(error) if error.is_absent() => {}
            Err(error) => {
                report.problems.push(error.attempting(format!("delete link {}", stray.name)).to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_pod_is_looked_at_when_it_is_old_enough_however_many_passes_come_before() {
        let written = 1_000;
        let due_at = |now_ms: u64| {
            let now = Duration::from_millis(now_ms);
            now + reclaim_due_in([written].into_iter(), now).unwrap()
        };
        for now_ms in [1_000_000, 1_000_400, 1_005_000, 1_010_999] {
            assert_eq!(due_at(now_ms), Duration::from_secs(written + GRACE_SECONDS + 1));
        }
    }

    #[test]
    fn of_several_the_first_counts_and_one_in_somebodys_hand_or_from_the_future_waits_a_grace() {
        let now = Duration::from_secs(2_000);
        let due_in = |created: &[u64]| reclaim_due_in(created.iter().copied(), now);
        assert_eq!(due_in(&[]), None);
        assert_eq!(due_in(&[1_999, 1_995, 1_998]), Some(Duration::from_secs(6)));
        assert_eq!(due_in(&[100]), Some(AFTER_GRACE));
        assert_eq!(due_in(&[9_000, u64::MAX]), Some(AFTER_GRACE));
        assert_eq!(due_in(&[100, 1_999]), Some(Duration::from_secs(10)));
    }
}
