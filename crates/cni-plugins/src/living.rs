//! Which pods live on this node, and with which addresses: asked of the kernel, not of any record. For the rare moments
//! when records cannot tell, because they are lost or somebody else's.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::KernelError;
use kernel::address::{self, Address};
use kernel::link::{self, Link};
use kernel::netlink::Socket;

use crate::wiring::HOST_LINK_PREFIX;

/// A pod's link on the node, and what the pod's end of it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LivingPod {
    /// The node's end.
    pub(crate) link: Link,
    /// The addresses of the other end, but for link-local ones.
    pub(crate) addresses: Vec<IpNet>,
}

/// Every pod that has a link of ours, whichever network it belongs to and wherever that keeps its records. One question
/// to the kernel a pod.
pub(crate) fn living_pods(socket: &mut Socket) -> Result<Vec<LivingPod>, KernelError> {
    let mut pods = Vec::new();
    for link in link::dump_kind(socket, "veth")? {
        if !link.name.starts_with(HOST_LINK_PREFIX) {
            continue;
        }
        match addresses_of(socket, &link) {
            Ok(addresses) => pods.push(LivingPod { link, addresses }),
            // It may have died since the links were listed; only then is nothing to be known of it.
            Err(error) => match link::by_index(socket, link.index)? {
                None => {}
                Some(_) => return Err(error),
            },
        }
    }
    Ok(pods)
}

/// Every address that the other end of a veth link of the node holds, whoever made the link.
pub(crate) fn addresses_behind_links(socket: &mut Socket) -> Result<Vec<IpAddr>, KernelError> {
    let mut addresses = Vec::new();
    for link in link::dump_kind(socket, "veth")? {
        match addresses_of(socket, &link) {
            Ok(held) => addresses.extend(held.into_iter().map(|ip| ip.addr())),
            Err(error) if link::by_index(socket, link.index)?.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(addresses)
}

/// What the other end of a link holds, but for link-local addresses.
pub(crate) fn addresses_of(socket: &mut Socket, link: &Link) -> Result<Vec<IpNet>, KernelError> {
    let Some(peer) = link.peer else { return Ok(Vec::new()) };
    let held: Vec<Address> = match link.peer_netns {
        Some(netns) => address::dump_in(socket, netns, peer)?,
        None => address::dump_of(socket, peer)?,
    };
    Ok(held.into_iter().map(|held| held.ip).filter(|ip| !is_link_local(ip.addr())).collect())
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
