//! What ADD must know of the node and the pod before it decides anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use cni_spec::{CniError, ErrorCode, IpFamily, NetConf, NodeAddresses};
use kernel::netlink::Socket;
use kernel::netns::{NetNs, NetNsId};
use kernel::route::{Route, RouteKind};
use kernel::{KernelError, link, route};
use rustix::io::Errno;

use crate::answer::Answer;
use crate::failure::kernel_refused;

/// Where the node has no uplink yet, Ethernet's.
const FALLBACK_MTU: u32 = 1500;

/// The node's and the pod's namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    pub(super) node: NetNs,
    pub(super) pod: NetNs,
    pub(super) pod_id: NetNsId,
}

impl Namespaces {
    /// Opens both, and refuses a pod that would be the node itself.
    pub(super) fn open(pod_path: &Path, may_be_node: bool) -> Result<Self, CniError> {
        let node = NetNs::current().map_err(kernel_refused)?;
        let pod = NetNs::open(pod_path).map_err(|error| namespace_error(pod_path, &error))?;
        let pod_id = pod.id().map_err(kernel_refused)?;
        if pod_id == node.id().map_err(kernel_refused)? && !may_be_node {
            return Err(CniError::new(
                ErrorCode::InvalidNetworkNamespace,
                format!(
                    "`CNI_NETNS` {} is the node's own network namespace: a pod of the host network is not attached; \
                     give the pod's",
                    pod_path.display()
                ),
            ));
        }
        Ok(Self { node, pod, pod_id })
    }
}

/// The specification's code for "gone" differs from that for "not one".
fn namespace_error(path: &Path, error: &KernelError) -> CniError {
    let path = path.display();
    match error.errno {
        Errno::NOENT => CniError::new(
            ErrorCode::NetworkNamespaceGone,
            format!("`CNI_NETNS` {path} does not exist: the pod is gone; let the runtime make a new one"),
        ),
        Errno::INVAL => CniError::new(
            ErrorCode::InvalidNetworkNamespace,
            format!("`CNI_NETNS` {path} is no network namespace: its mount is missing, or the path is wrong"),
        ),
        _ => CniError::new(ErrorCode::InvalidNetworkNamespace, format!("`CNI_NETNS`: {error}")),
    }
}

/// What the configuration leaves to the node's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeFacts {
    /// The addresses with which the node speaks to its pods.
    pub(super) addresses: NodeAddresses,
    /// Payload of a frame.
    pub(super) mtu: u32,
}

impl NodeFacts {
    /// Asks the kernel for what `conf` does not say. A configured address that the node does not hold (any more) would
    /// make the kernel refuse every pod's route: it is ignored, and `answer` is told.
    pub(super) fn gather(conf: &NetConf, socket: &mut Socket, answer: &mut Answer) -> Result<Self, CniError> {
        let mut facts = Self { addresses: conf.node_addresses, mtu: conf.mtu.unwrap_or(0) };
        for family in IpFamily::BOTH {
            let Some(address) = facts.addresses.of(family) else { continue };
            if !is_local(socket, address)? {
                answer.warn(&format!("`nodeAddresses`: {address} is no address of this node, it is ignored"));
                match family {
                    IpFamily::V4 => facts.addresses.v4 = None,
                    IpFamily::V6 => facts.addresses.v6 = None,
                }
            }
        }
        let held = facts.addresses;
        let missing = |family| conf.ipam.range_sets.has_family(family) && held.of(family).is_none();
        for family in IpFamily::BOTH {
            if !missing(family) && facts.mtu != 0 {
                continue;
            }
            let Some(uplink) = uplink(socket, family)? else { continue };
            if missing(family) {
                match uplink.source {
                    Some(IpAddr::V4(source)) => facts.addresses.v4 = Some(source),
                    Some(IpAddr::V6(source)) => facts.addresses.v6 = Some(source),
                    None => {}
                }
            }
            if facts.mtu == 0 {
                facts.mtu = mtu_of(socket, &uplink)?.unwrap_or(0);
            }
        }
        if facts.mtu == 0 {
            facts.mtu = FALLBACK_MTU;
        }
        Ok(facts)
    }
}

fn is_local(socket: &mut Socket, address: IpAddr) -> Result<bool, CniError> {
    match route::look_up(socket, address, None) {
        Ok(route) => Ok(route.kind == RouteKind::Local),
        Err(error) if no_route(error.errno) => Ok(false),
        Err(error) => Err(kernel_refused(error)),
    }
}

/// How the node reaches what it knows nothing of: over its default route. None where it has none.
fn uplink(socket: &mut Socket, family: IpFamily) -> Result<Option<Route>, CniError> {
    // Addresses that are documentation's (RFC 5737, RFC 3849): no network has a route of its own to them.
    let anywhere = match family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
    };
    match route::resolve(socket, anywhere) {
        Ok(route) => Ok(Some(route)),
        Err(error) if no_route(error.errno) => Ok(None),
        Err(error) => Err(kernel_refused(error)),
    }
}

fn no_route(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL | Errno::AFNOSUPPORT
    )
}

fn mtu_of(socket: &mut Socket, uplink: &Route) -> Result<Option<u32>, CniError> {
    let Some(index) = uplink.hops.first().and_then(|hop| hop.index) else { return Ok(None) };
    Ok(link::by_index(socket, index).map_err(kernel_refused)?.map(|link| link.mtu))
}
