//! What this node answers for on its LAN: the addresses of living pods of mode `l2-routed`, and nothing of those that
//! are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use attachment::{Entry, Mode, NetworkName, State};
use cni_plugins::wiring::{POD_ROUTE_PROTOCOL, lan};
use kernel::netlink::{Batch, Socket};
use kernel::{KernelError, link, neighbour};
use node_network::observed::ObservedNode;

use super::{PodsReport, Records, index_is_gone, is_gone};

/// An address, and the index of the link on which the node answers for it.
type Answer = (u32, IpAddr);

/// Puts back what attached pods have lost, and takes away what no pod has any more.
pub(crate) fn restore_proxies(
    socket: &mut Socket,
    data_dir: &Path,
    records: &Records,
    observed: &ObservedNode,
    report: &mut PodsReport,
) {
    let held = match neighbour::dump(socket, true) {
        Ok(held) => held,
        Err(error) => return report.problems.push(error.to_string()),
    };
    let wanted = wanted(records, observed);
    let known: BTreeSet<Answer> = held.iter().map(|proxied| (proxied.index, proxied.ip)).collect();
    for (answer, (network, entry)) in wanted.iter().filter(|(answer, _)| !known.contains(answer)) {
        // Who deletes the pod takes its link away first, and then the answers.
        let lives = !is_gone(socket, entry.record.wiring.host_link.as_str());
        if !lives || !Records::still_holds(data_dir, network, entry) {
            continue;
        }
        let pod = &entry.record.attachment;
        match put_back(socket, *answer) {
            Ok(()) => report.done.push(format!("pod {pod}: the node answers for {} again", answer.1)),
            // With the link to the LAN went what was on it; a new one brings about another pass.
            Err(_) if index_is_gone(socket, answer.0) => {}
            Err(error) => report.problems.push(format!("pod {pod}: {error}")),
        }
    }
    let ours = held.iter().filter(|proxied| proxied.protocol == POD_ROUTE_PROTOCOL);
    for stray in ours.map(|proxied| (proxied.index, proxied.ip)).filter(|held| !wanted.contains_key(held)) {
        match take_away(socket, stray) {
            Ok(true) => {
                let done = format!("the node answers no more for {}, whose pod is gone", stray.1);
                report.done.push(done);
            }
            Ok(false) => {}
            Err(error) => report.problems.push(error.to_string()),
        }
    }
}

/// What attached pods need whose links live, and which pod needs it.
fn wanted<'a>(records: &'a Records, observed: &ObservedNode) -> BTreeMap<Answer, &'a (NetworkName, Entry)> {
    let links: BTreeMap<&str, u32> =
        observed.links.values().map(|link| (link.name.as_str(), link.index)).collect();
    let mut wanted = BTreeMap::new();
    for pod in records.entries.iter().filter(|(_, entry)| entry.state == State::Attached) {
        let record = &pod.1.record;
        let Mode::L2Routed { uplink } = &record.wiring.mode else { continue };
        let Some(index) = links.get(uplink.as_str()) else { continue };
        if links.contains_key(record.wiring.host_link.as_str()) {
            let ips = record.addresses.iter().map(|allocation| allocation.address.addr());
            wanted.extend(ips.map(|ip| ((*index, ip), pod)));
        }
    }
    wanted
}

/// Answers again, and says so to those who have asked in vain meanwhile.
fn put_back(socket: &mut Socket, (index, ip): Answer) -> Result<(), KernelError> {
    let mut batch = Batch::new();
    neighbour::add_proxy(&mut batch, index, ip, POD_ROUTE_PROTOCOL);
    socket.execute_all(&mut batch)?;
    match link::by_index(socket, index)?.and_then(|link| link.mac) {
        Some(mac) => lan::announce_on(index, mac, &[ip]).map(drop),
        None => Ok(()),
    }
}

/// Whether it was taken away. A pod whose record is lost, or not yet whole, is known by its route.
fn take_away(socket: &mut Socket, (index, ip): Answer) -> Result<bool, KernelError> {
    if lan::is_a_pods(socket, ip)? {
        return Ok(false);
    }
    let mut batch = Batch::new();
    neighbour::delete_proxy(&mut batch, index, ip);
    match socket.execute_all(&mut batch) {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(true),
    }
}
