//! What living pods need of the node besides the node's own network: their records, routes and host ports. Put back
//! when lost, freed when a pod is gone.

mod bridge;
mod forgotten;
mod guards;
mod mtus;
mod proxies;
mod reclaim;
mod restore;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use attachment::{Entry, NetworkName, State, Store, networks};
use kernel::link;
use kernel::netlink::Socket;
use link_name::LinkName;
use node_network::observed::{LinkKind, ObservedLink, ObservedNode};
use node_network::{Family, PerFamily};

pub(crate) use bridge::restore_bridges;
pub(crate) use forgotten::{Listing, TwoLooks, forgotten, reclaim_forgotten};
pub(crate) use guards::restore_guards;
pub(crate) use mtus::judge_mtus;
pub(crate) use proxies::restore_proxies;
pub(crate) use reclaim::{AFTER_GRACE, reclaim, reclaim_due_in};
pub(crate) use restore::restore;

use crate::observe::Kernel;

/// All records of this node.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) entries: Vec<(NetworkName, Entry)>,
    /// What could not be read; it costs only itself.
    pub(crate) problems: Vec<String>,
}

impl Records {
    /// Reads the records of every network below `data_dir`.
    pub(crate) fn read(data_dir: &Path) -> Self {
        let mut records = Self::default();
        for store in stores(data_dir, &mut records.problems) {
            match store.records() {
                Ok(entries) => {
                    for entry in entries {
                        match entry {
                            Ok(entry) => records.entries.push((store.network().clone(), entry)),
                            Err(bad) => records.problems.push(bad.to_string()),
                        }
                    }
                }
                Err(error) => records.problems.push(error.to_string()),
            }
        }
        records
    }

    /// Whether what was read of an attached pod still holds. To be asked before something is put back on the pod's link: where
    /// a DEL and another ADD of the same attachment came in between, a link of that name that was observed may be the new
    /// pod's, which its ADD has only begun to wire.
    pub(crate) fn still_holds(data_dir: &Path, network: &NetworkName, entry: &Entry) -> bool {
        let store = Store::find(data_dir, network).ok().flatten();
        let now = store.and_then(|store| store.lookup(&entry.record.attachment).ok().flatten());
        now.as_ref() == Some(entry)
    }

    /// Addresses of all attached pods.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        let allocations = self.entries.iter().flat_map(|(_, entry)| &entry.record.addresses);
        allocations.map(|allocation| allocation.address.addr()).collect()
    }

    /// For each family an attached pod's address, and the link by which its packets come in.
    pub(crate) fn packet_origins(&self, observed: &ObservedNode) -> PerFamily<(IpAddr, u32)> {
        let links: BTreeMap<&str, &ObservedLink> = observed
            .links
            .values()
            .filter(|link| link.up && link.is_pod_link())
            .map(|link| (link.name.as_str(), link))
            .collect();
        let mut origins = PerFamily::default();
        for record in self.entries.iter().filter(|(_, e)| e.state == State::Attached).map(|(_, e)| &e.record)
        {
            let Some(link) = links.get(record.wiring.host_link.as_str()) else { continue };
            for address in record.addresses.iter().map(|allocation| allocation.address.addr()) {
                origins.insert(Family::of(address), (address, link.master.unwrap_or(link.index)));
            }
            if Family::BOTH.iter().all(|family| origins.get(*family).is_some()) {
                break;
            }
        }
        origins
    }

    /// Records whose link this node does not have (any more).
    pub(crate) fn without_link<'a>(&'a self, observed: &'a ObservedNode) -> impl Iterator<Item = &'a Entry> {
        let names: BTreeSet<&str> = observed.links.values().map(|link| link.name.as_str()).collect();
        let entries = self.entries.iter().map(|(_, entry)| entry);
        entries.filter(move |entry| !names.contains(entry.record.wiring.host_link.as_str()))
    }
}

fn links_by_name(observed: &ObservedNode) -> BTreeMap<&str, &ObservedLink> {
    observed.links.values().map(|link| (link.name.as_str(), link)).collect()
}

fn stores(data_dir: &Path, problems: &mut Vec<String>) -> Vec<Store> {
    // Nothing is created here: a node without pods has no folder.
    let names = match networks(data_dir) {
        Ok(names) => names,
        Err(error) => {
            if data_dir.exists() {
                problems.push(error.to_string());
            }
            return Vec::new();
        }
    };
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        match Store::find(data_dir, &name) {
            Ok(store) => found.extend(store),
            Err(error) => problems.push(error.to_string()),
        }
    }
    found
}

/// What was done for pods.
#[derive(Debug, Default)]
pub(crate) struct PodsReport {
    /// Each thing that was put back or freed.
    pub(crate) done: Vec<String>,
    /// What failed or could not be read.
    pub(crate) problems: Vec<String>,
}

/// Makes the host ports in the kernel those of the records. A ruleset that somebody else changes at this very moment
/// is looked at in the next pass, which that change brings about.
pub(crate) fn rebuild_host_ports(
    kernel: &mut Kernel,
    observed: &ObservedNode,
    internal_ips: &PerFamily<IpAddr>,
    data_dir: &Path,
    report: &mut PodsReport,
) {
    let held = |address: &&IpAddr| observed.holder_of(**address).is_some_and(|(_, held)| held.usable);
    let own = [Family::Ipv4, Family::Ipv6].into_iter().filter_map(|family| internal_ips.get(family));
    let own: Vec<IpAddr> = own.filter(held).copied().collect();
    let dummies = observed.links.values().filter(|link| link.kind == LinkKind::Dummy);
    let excluded: Vec<IpAddr> =
        dummies.flat_map(|link| &link.addresses).map(|held| held.address.addr()).collect();
    let Kernel { netfilter, route, .. } = kernel;
    let route = RefCell::new(route);
    let link_exists = |name: &LinkName| !is_gone(&mut route.borrow_mut(), name.as_str());
    match cni_plugins::host_ports::rebuild(netfilter, data_dir, &own, &excluded, link_exists) {
        Ok(rebuilt) if rebuilt.is_empty() => {}
        Ok(rebuilt) => report.done.push(format!(
            "host ports: {}{} put back, {} removed",
            if rebuilt.declared { "table made anew, " } else { "" },
            rebuilt.added,
            rebuilt.removed
        )),
        Err(error) if error.errno == rustix::io::Errno::from_raw_os_error(ERESTART) => {}
        Err(error) => report.problems.push(error.to_string()),
    }
}

/// The ruleset was changed since it was read (`linux/errno.h`; not meant for user space, and yet what nftables says).
const ERESTART: i32 = 85;

/// Whether a link is gone at this moment. Not knowing is no proof of it.
fn is_gone(socket: &mut Socket, name: &str) -> bool {
    matches!(link::by_name(socket, name), Ok(None))
}

/// The same of the link that had this number.
fn index_is_gone(socket: &mut Socket, index: u32) -> bool {
    matches!(link::by_index(socket, index), Ok(None))
}
