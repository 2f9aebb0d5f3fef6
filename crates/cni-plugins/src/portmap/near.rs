//! How the node stands to a pod's address: over which link it reaches it, and as whom.

use std::net::IpAddr;

use cni_spec::{AttachResult, IpConfig};
use ipnet::IpNet;
use kernel::KernelError;
use kernel::link::{self, Link};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::route;
use link_name::LinkName;

/// One address of the pod.
#[derive(Clone, Debug)]
pub(super) struct Near {
    /// With the length of its subnet's prefix.
    pub(super) pod: IpNet,
    /// The node's address that the pod sees; none where no route leads there.
    pub(super) node: Option<IpAddr>,
    /// The node's link towards the pod, if no router is between.
    pub(super) link: Option<NearLink>,
    /// The node's end of the pod's own pair, as far as the result tells.
    pub(super) pair: Option<LinkName>,
}

#[derive(Clone, Debug)]
pub(super) struct NearLink {
    pub(super) index: u32,
    pub(super) name: LinkName,
    pub(super) is_bridge: bool,
}

pub(super) fn all(pods: &[&IpConfig], result: &AttachResult) -> Result<Vec<Near>, KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    pods.iter().map(|pod| near(&mut socket, pod, result)).collect()
}

fn near(socket: &mut Socket, pod: &IpConfig, result: &AttachResult) -> Result<Near, KernelError> {
    let address = pod.address.addr();
    // Without a route the port is opened all the same: whoever routes to the pod may come later.
    let route = route::resolve(socket, address).ok();
    let hop = route.as_ref().and_then(|route| route.hops.first());
    let on_link = hop.filter(|hop| hop.gateway.is_none()).and_then(|hop| hop.index);
    let link = match on_link {
        Some(index) => link::by_index(socket, index)?.and_then(NearLink::of),
        None => None,
    };
    let own = route.as_ref().and_then(|route| route.source);
    Ok(Near { pod: pod.address, node: own.or(pod.gateway), link, pair: pair_of(result, socket)? })
}

/// A link of the node in the result that is no bridge.
fn pair_of(result: &AttachResult, socket: &mut Socket) -> Result<Option<LinkName>, KernelError> {
    for interface in result.interfaces.iter().filter(|interface| interface.sandbox.is_none()) {
        let Some(found) = link::by_name(socket, &interface.name)? else { continue };
        if found.kind.as_deref() == Some("veth") {
            return Ok(LinkName::new(found.name).ok());
        }
    }
    Ok(None)
}

impl NearLink {
    fn of(link: Link) -> Option<Self> {
        let is_bridge = link.kind.as_deref() == Some("bridge");
        Some(Self { index: link.index, name: LinkName::new(link.name).ok()?, is_bridge })
    }
}

impl Near {
    /// Lets packets from the node's own loopback cross the link to the pod.
    pub(super) fn route_localnet(&self) -> Result<(), KernelError> {
        let Some(link) = self.link.as_ref().filter(|_| self.pod.addr().is_ipv4()) else { return Ok(()) };
        let mut batch = Batch::new();
        link::set_route_localnet(&mut batch, link.index);
        Socket::open(Protocol::Route)?.execute_all(&mut batch)
    }
}
