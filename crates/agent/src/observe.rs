//! What this node holds now, read from the kernel and the files. Nothing is decided here.

mod forward_chains;
mod links;
mod neighbours;
mod nft;
mod obstacles;
mod own_routes;
mod own_table;
mod routes;
mod seen;
mod set_aside;
mod wireguard;

use std::path::Path;

use kernel::KernelError;
use kernel::netlink::{Protocol, Socket};
use kernel::sysctl::Sysctls;
use node_network::desired::Sysctl;
use node_network::observed::ObservedNode;
use node_network::settings::Mode;
use node_network::{DesiredNode, Settings};

use crate::atomic_file;
use crate::paths::Paths;

pub(crate) use forward_chains::{COMMENT as FORWARD_RULE_COMMENT, accept_rule, forward_chains};
pub(crate) use routes::{look_up_all, look_up_for_pod};
pub(crate) use seen::{Doubt, OwnPorts, Seen};

/// A conflist is a few kilobytes; a longer one is not ours.
const CONFLIST_MAX: u64 = 1 << 20;

/// The sockets through which a pass sees and changes the kernel. They belong to the network namespace in which they
/// were opened.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) route: Socket,
    pub(crate) netfilter: Socket,
    pub(crate) sysctls: Sysctls,
}

impl Kernel {
    /// Opens them in the calling thread's network namespace.
    pub(crate) fn open(paths: &Paths) -> Result<Self, KernelError> {
        let mut route = Socket::open(Protocol::Route)?;
        route.enlarge_receive_buffer();
        Ok(Self {
            route,
            netfilter: Socket::open(Protocol::Netfilter)?,
            sysctls: Sysctls::at(paths.sysctls()),
        })
    }

    /// By which events name this agent as the author of a change.
    pub(crate) fn ports(&self) -> Result<OwnPorts, KernelError> {
        Ok(OwnPorts { route: self.route.port()?, netfilter: self.netfilter.port()? })
    }
}

/// What the choice of desired state needs: links, addresses, routes, files. Of others' routes those count that were
/// `seen`, while nothing has put them in doubt.
pub(crate) fn observe_node(
    kernel: &mut Kernel,
    settings: &Settings,
    paths: &Paths,
    seen: &mut Seen,
) -> Result<ObservedNode, KernelError> {
    let table = settings.routes.table;
    if seen.foreign.is_none() {
        seen.hold_foreign(routes::others(&mut kernel.route, table)?);
    }
    let foreign = seen.foreign.as_deref().unwrap_or_default();
    let links = links::links(kernel, foreign)?;
    let mut routes = match seen.own.take() {
        Some(routes) => routes,
        None => routes::ours(&mut kernel.route, table)?.iter().map(routes::observed_route).collect(),
    };
    routes.extend(foreign.iter().map(routes::observed_route));
    let conflist = paths.on_node(Path::new(&settings.cni.conf_file));
    let mut observed = ObservedNode {
        routes,
        // What cannot be read is not what was written: it is written anew, and that fails or succeeds on its own.
        conflist: atomic_file::read(&conflist, CONFLIST_MAX).unwrap_or_else(|_| Some(Vec::new())),
        ready_file: paths.ready_file().exists(),
        links,
        ..ObservedNode::default()
    };
    let accept_ra = links::accept_ra_sysctls(&observed.links);
    let answering = match settings.mode {
        Mode::L2Routed => links::answering_sysctls(&observed.links),
        _ => Vec::new(),
    };
    let forwarding = [Sysctl::Ipv4Forward, Sysctl::Ipv6Forwarding];
    for sysctl in accept_ra.into_iter().chain(forwarding).chain(answering) {
        match (kernel.sysctls.read(&sysctl.path())?, &sysctl) {
            (Some(value), _) => {
                observed.sysctls.insert(sysctl, value);
            }
            // It was read a moment ago: the link went since, and its settings with it.
            (None, Sysctl::AcceptRa(name)) => observed.links.retain(|_, link| link.name != name.as_str()),
            (None, _) => {}
        }
    }
    Ok(observed)
}

/// What only the plan needs: look-ups of the peers' addresses, and nftables.
pub(crate) fn observe_for_plan(
    kernel: &mut Kernel,
    desired: &DesiredNode,
    observed: &mut ObservedNode,
    settings: &Settings,
    seen: &mut Seen,
) -> Result<(), KernelError> {
    if seen.lacks(desired) {
        seen.hold_foreign(routes::others(&mut kernel.route, settings.routes.table)?);
        observed.routes.retain(|route| route.is_ours() || route.is_pods());
        observed.routes.extend(seen.foreign.iter().flatten().map(routes::observed_route));
    }
    seen.sift_foreign(desired);
    let known = std::mem::take(&mut seen.next_hops);
    observed.next_hops = routes::look_up_next_hops(&mut kernel.route, desired, known);
    seen.hop_links = routes::links_of(&observed.next_hops);
    observed.wireguard = wireguard::peers(observed, &seen.hop_links);
    observed.neighbour_limits = neighbours::limits(&kernel.sysctls, &observed.next_hops)?;
    let Some(own) = &desired.own else { return Ok(()) };
    observed.nft = match seen.own_table.compared_with(&own.nft.chains) {
        Some(known) => known.clone(),
        None => {
            let table = nft::observed_table(&mut kernel.netfilter, &own.nft)?;
            seen.own_table.hold(own.nft.chains.clone(), table.clone());
            table
        }
    };
    let (forward_chains, refusing) = match seen.others_chains.take() {
        Some(known) => known,
        None => {
            let forward = forward_chains(&mut kernel.netfilter)?;
            let refusing = obstacles::chains(&mut kernel.netfilter, &forward)?;
            (forward, refusing)
        }
    };
    seen.others_chains = Some((forward_chains.clone(), refusing.clone()));
    (observed.forward_chains, observed.obstacles) = (forward_chains, refusing);
    observed.obstacles.extend(obstacles::legacy()?);
    observed.obstacles.extend(obstacles::links(
        &kernel.sysctls,
        observed,
        &seen.hop_links,
        settings.pod_bridge(),
    )?);
    if settings.mode == Mode::L2 {
        observed.obstacles.extend(obstacles::unfiltered(&kernel.sysctls)?);
    }
    Ok(())
}
