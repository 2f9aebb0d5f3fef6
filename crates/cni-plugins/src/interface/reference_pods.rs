//! GC of pods that the reference's plugins attached before the node was switched. Their links, limits and rules do not say
//! whose they are; but `host-local`'s file of an address says network, container and interface, and what carries that
//! address, and nothing else, is the attachment's (`docs/decisions/0034-gc-of-pods-that-the-reference-attached.md`).

use std::net::IpAddr;

use attachment::{Attachment, NetworkName};
use cni_spec::CniError;
use kernel::KernelError;
use kernel::link::{self, Link};
use kernel::netlink::{Protocol, Socket};
use kernel::route;
use link_name::LinkName;

use super::name::is_ours;
use crate::chained::all;
use crate::failure::kernel_refused;
use crate::host_local::Unlisted;
use crate::living::addresses_of;
use crate::wiring::delete_link;
use crate::{bandwidth_plugin, firewall, portmap};

/// How the reference names the node's ends.
const PREFIX: &str = "veth";

/// Where a network's pods are on the node.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// On ports of this bridge.
    Bridge(LinkName),
    /// Each behind a link of its own, to which its address is routed.
    Routed,
}

/// A link that the reference may have made, and what the pod's end of it holds.
struct Candidate {
    link: Link,
    addresses: Vec<IpAddr>,
}

/// Removes what the attachments have that are not listed; the names of links that are gone.
pub(super) fn collect(
    network: &NetworkName,
    place: &Place,
    unlisted: &[Unlisted],
    valid: &[Attachment],
) -> Result<Vec<String>, CniError> {
    if unlisted.is_empty() {
        return Ok(Vec::new());
    }
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let ground = Ground::find(&mut host, place).map_err(kernel_refused)?;
    let mut living = candidates(&mut host)?;
    let mut removed = Vec::new();
    let mut tried = Vec::new();
    for it in unlisted {
        let at = living.iter().position(|candidate| ground.is_of_reference(&mut host, candidate, it.address));
        let Some(gone) = at.and_then(|at| living.get(at)).map(|gone| gone.link.clone()) else { continue };
        let outcome = delete_link(&mut host, gone.index, None)
            .map_err(|error| error.attempting(format!("delete link {}", gone.name)));
        if outcome.is_ok() {
            living.retain(|other| other.link.index != gone.index);
            removed.push(gone.name);
        }
        tried.push(outcome.map_err(kernel_refused));
    }
    // An address that a link still has is somebody's.
    let is_free = |it: &&Unlisted| !living.iter().any(|pod| pod.addresses.contains(&it.address));
    let free: Vec<&Unlisted> = unlisted.iter().filter(is_free).collect();
    let addresses: Vec<IpAddr> = free.iter().map(|it| it.address).collect();
    tried.push(firewall::forget_of_reference(&addresses));
    for it in free {
        tried.push(portmap::close_at(&it.container, it.address).map_err(kernel_refused));
        // One such link leads the packets of all interfaces of a container.
        let has_more = valid.iter().any(|valid| valid.container_id() == it.container);
        if let Some(attachment) = it.attachment.as_ref().filter(|_| !has_more) {
            tried.push(bandwidth_plugin::unshape(network, attachment));
        }
    }
    all(tried)?;
    Ok(removed)
}

/// The pods' links of the node, ours and others', but for such as have both ends here.
fn candidates(host: &mut Socket) -> Result<Vec<Candidate>, CniError> {
    let mut candidates = Vec::new();
    for link in link::dump_kind(host, "veth").map_err(kernel_refused)? {
        if !link.name.starts_with(PREFIX) || link.peer_netns.is_none() {
            continue;
        }
        match addresses_of(host, &link) {
            Ok(held) => {
                let addresses = held.into_iter().map(|ip| ip.addr()).collect();
                candidates.push(Candidate { link, addresses });
            }
            // It died since the links were listed, or nothing is to be known of it.
            Err(error) if link::by_index(host, link.index).map_err(kernel_refused)?.is_some() => {
                return Err(kernel_refused(error));
            }
            Err(_) => {}
        }
    }
    Ok(candidates)
}

/// A network's [`Place`], as the kernel has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    /// The index of the bridge.
    Bridge(u32),
    Routed,
    /// There is no such bridge, so that it has no ports.
    Nowhere,
}

impl Ground {
    fn find(host: &mut Socket, place: &Place) -> Result<Self, KernelError> {
        Ok(match place {
            Place::Routed => Self::Routed,
            Place::Bridge(name) => {
                let bridge = link::by_name(host, name.as_str())?;
                bridge.map_or(Self::Nowhere, |bridge| Self::Bridge(bridge.index))
            }
        })
    }

    /// Whether the reference made this link here, for whoever has the address.
    fn is_of_reference(self, host: &mut Socket, candidate: &Candidate, address: IpAddr) -> bool {
        let link = &candidate.link;
        candidate.addresses.contains(&address)
            && !is_ours(link)
            && match self {
                Self::Bridge(index) => link.master == Some(index),
                Self::Routed => link.master.is_none() && leads_to(host, address, link),
                Self::Nowhere => false,
            }
    }
}

/// Whether the node's route to the address is one over this link.
fn leads_to(host: &mut Socket, address: IpAddr, link: &Link) -> bool {
    route::look_up(host, address, None)
        .is_ok_and(|route| route.hops.first().is_some_and(|hop| hop.index == Some(link.index)))
}
