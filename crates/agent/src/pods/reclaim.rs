//! Freeing what pods left that are gone, however they went: a lost DEL, a reboot, a `kill -9`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use attachment::{Attachment, NetworkName, Record, Store};
use cni_plugins::wiring::{HOST_LINK_PREFIX, SHAPING_LINK_PREFIX, host_link_name};
use kernel::link;
use kernel::netlink::{Batch, Socket};

use super::{PodsReport, Records, stores};

/// How old an attachment without a link must be. An ADD in progress is known by its lock; this only keeps apart what a
/// runtime does in one breath.
pub(crate) const GRACE_SECONDS: u64 = 10;

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

/// A link that cannot be asked for is taken to live.
fn link_is_gone(
    socket: &mut Socket,
    network: &NetworkName,
    attachment: &Attachment,
    record: Option<&Record>,
) -> bool {
    let name =
        record.map_or_else(|| host_link_name(network, attachment), |record| record.wiring.host_link.clone());
    matches!(link::by_name(socket, name.as_str()), Ok(None))
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
        if !matches!(link::by_name(socket, &pod_link), Ok(None)) {
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
