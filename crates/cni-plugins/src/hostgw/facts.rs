//! What ADD must know of the node and the pod before it decides anything.

use std::fmt;
use std::net::IpAddr;

use cni_spec::{CniError, ErrorCode, IpFamily, MAX_MTU, MIN_MTU_V6, Mode, NetConf, NodeAddresses};
use kernel::link::{LOOPBACK, Link};
use kernel::netlink::Socket;
use kernel::route::{Route, RouteKind};
use kernel::{link, route};
use link_name::LinkName;
use rustix::io::Errno;

use crate::answer::Answer;
use crate::failure::kernel_refused;

/// Where the node has no uplink yet, Ethernet's.
const FALLBACK_MTU: u32 = 1500;

/// What the configuration leaves to the node's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeFacts {
    /// The addresses with which the node speaks to its pods.
    pub(super) addresses: NodeAddresses,
    /// Payload of a frame.
    pub(super) mtu: u32,
    /// The link that holds the first of those addresses, or by which the node's default route leads.
    pub(super) uplink: Option<u32>,
}

impl fmt::Display for NodeFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for address in IpFamily::BOTH.into_iter().filter_map(|family| self.addresses.of(family)) {
            write!(f, "speaks from {address}, ")?;
        }
        write!(f, "pods' mtu {}", self.mtu)
    }
}

impl NodeFacts {
    /// Asks the kernel for what `conf` does not say. A configured address that the node does not hold (any more) would
    /// make the kernel refuse every pod's route: it is ignored, and `answer` is told.
    pub(super) fn gather(conf: &NetConf, socket: &mut Socket, answer: &mut Answer) -> Result<Self, CniError> {
        let mut facts =
            Self { addresses: NodeAddresses::default(), mtu: conf.mtu.unwrap_or(0), uplink: None };
        let families = IpFamily::BOTH.into_iter().filter(|family| conf.ipam.has_family(*family));
        let configured: Vec<_> = families.map(|family| (family, conf.node_addresses.of(family))).collect();
        let asked: Vec<IpAddr> = configured.iter().filter_map(|(_, address)| *address).collect();
        let mut held = holders(socket, &asked)?.into_iter();
        let mut read = None;
        for (family, configured) in configured {
            let uplink = match configured.and_then(|_| held.next().flatten()) {
                Some(link) => Some(Uplink { source: configured, link, router: None }),
                None => {
                    if let Some(address) = configured {
                        answer.warn(&format!(
                            "`nodeAddresses`: {address} is no address of this node, it is ignored"
                        ));
                    }
                    default_uplink(socket, family)?
                }
            };
            let Some(Uplink { source, link, .. }) = uplink else { continue };
            facts.set_address(source);
            facts.uplink = facts.uplink.or(link);
            if conf.mtu.is_none()
                && let Some(mtu) = uplink_mtu(socket, family, link, &mut read)?
            {
                // Where the families leave by different links, what fits the smaller fits both.
                facts.mtu = if facts.mtu == 0 { mtu } else { facts.mtu.min(mtu) };
            }
        }
        if facts.mtu == 0 {
            facts.mtu = FALLBACK_MTU;
        }
        if facts.mtu < MIN_MTU_V6 && conf.ipam.has_family(IpFamily::V6) {
            let uplinks = std::mem::replace(&mut facts.mtu, mtu_where_uplink_lacks_ipv6(conf, socket)?);
            answer.warn(&format!(
                "the uplink's MTU is {uplinks}, too small for IPv6: the pod's is {}; let the uplink carry {MIN_MTU_V6} bytes at \
                 least",
                facts.mtu
            ));
        }
        Ok(facts)
    }

    /// The node's address in each of the pods' families, or all addresses where it is not known.
    pub(super) fn listened_at(&self, conf: &NetConf) -> Vec<IpAddr> {
        let families = IpFamily::BOTH.into_iter().filter(|family| conf.ipam.has_family(*family));
        let all = |family| match family {
            IpFamily::V4 => IpAddr::from([0; 4]),
            IpFamily::V6 => IpAddr::from([0_u16; 8]),
        };
        families.map(|family| self.addresses.of(family).unwrap_or_else(|| all(family))).collect()
    }

    /// The node's link to its LAN: what the configuration names, or else where the node's own address is.
    pub(super) fn lan_link(&self, conf: &NetConf, socket: &mut Socket) -> Result<LinkName, CniError> {
        if let Some(uplink) = &conf.lan.uplink {
            return Ok(uplink.clone());
        }
        let found = match self.uplink {
            Some(index) => link::by_index(socket, index).map_err(kernel_refused)?,
            None => None,
        };
        found.and_then(|link| LinkName::new(link.name).ok()).ok_or_else(|| {
            CniError::new(
                ErrorCode::InvalidNetworkConfig,
                "mode `l2-routed`: which link leads to the LAN is not known, for this node has neither one of the \
                 `nodeAddresses` nor a default route; name the link in `uplink`",
            )
        })
    }

    fn set_address(&mut self, address: Option<IpAddr>) {
        match address {
            Some(IpAddr::V4(address)) => self.addresses.v4 = Some(address),
            Some(IpAddr::V6(address)) => self.addresses.v6 = Some(address),
            None => {}
        }
    }
}

/// The MTU of the link that holds the node's address. Where that is the loopback link or a dummy (nodes that announce
/// their address by BGP), packets leave by another: that of the default route. `read` is the link that was read last.
fn uplink_mtu(
    socket: &mut Socket,
    family: IpFamily,
    holder: Option<u32>,
    read: &mut Option<Link>,
) -> Result<Option<u32>, CniError> {
    *read = link_at(socket, holder, read.take())?;
    let leaves_by_another = |link: &Link| link.flags & LOOPBACK != 0 || link.kind.as_deref() == Some("dummy");
    if read.as_ref().is_some_and(leaves_by_another) {
        let uplink = default_uplink(socket, family)?.and_then(|uplink| uplink.link);
        *read = link_at(socket, uplink, read.take())?;
    }
    Ok(read.as_ref().map(|link| link.mtu.min(MAX_MTU)))
}

/// The MTU of pods with IPv6 addresses whose node's uplink carries no IPv6: that of the bridge which they join, since all on
/// a bridge are to agree on one, or the least there is. An uplink that small is about to be put right or is a mistake; it is
/// no reason to start no pod, nor to leave one slow.
fn mtu_where_uplink_lacks_ipv6(conf: &NetConf, socket: &mut Socket) -> Result<u32, CniError> {
    let bridge = match conf.mode {
        Mode::Bridge => link::by_name(socket, conf.bridge.as_str()).map_err(kernel_refused)?,
        Mode::Ptp | Mode::L2 | Mode::L2Routed => None,
    };
    // One without ports has Ethernet's, whatever its pods had.
    Ok(bridge.filter(|bridge| bridge.carrier).map_or(MIN_MTU_V6, |bridge| bridge.mtu.max(MIN_MTU_V6)))
}

/// The link of this index; `known` if that is it.
fn link_at(socket: &mut Socket, index: Option<u32>, known: Option<Link>) -> Result<Option<Link>, CniError> {
    match index {
        Some(index) if known.as_ref().is_some_and(|known| known.index == index) => Ok(known),
        Some(index) => link::by_index(socket, index).map_err(kernel_refused),
        None => Ok(None),
    }
}

/// The routers by which the node's default routes lead, in the families of the pods.
pub(super) fn routers(conf: &NetConf, socket: &mut Socket) -> Result<Vec<IpAddr>, CniError> {
    let mut routers = Vec::new();
    for family in IpFamily::BOTH.into_iter().filter(|family| conf.ipam.range_sets.has_family(*family)) {
        routers.extend(default_uplink(socket, family)?.and_then(|uplink| uplink.router));
    }
    Ok(routers)
}

/// How the node speaks to the world.
struct Uplink {
    /// With which address.
    source: Option<IpAddr>,
    /// Over which link.
    link: Option<u32>,
    /// By which router.
    router: Option<IpAddr>,
}

/// The link that holds `address`, if the node does; the inner value is missing where the kernel does not say which.
pub(super) fn holder(socket: &mut Socket, address: Option<IpAddr>) -> Result<Option<Option<u32>>, CniError> {
    let addresses: Vec<IpAddr> = address.into_iter().collect();
    Ok(holders(socket, &addresses)?.into_iter().next().flatten())
}

/// As [`holder`] of each address in turn, in one question.
fn holders(socket: &mut Socket, addresses: &[IpAddr]) -> Result<Vec<Option<Option<u32>>>, CniError> {
    let judged = route::look_up_all(socket, addresses).into_iter().map(|found| match found {
        Ok(route) if route.kind == RouteKind::Local => Ok(Some(link_of(&route))),
        Ok(_) => Ok(None),
        Err(error) if no_route(error.errno) => Ok(None),
        Err(error) => Err(kernel_refused(error)),
    });
    judged.collect()
}

fn link_of(route: &Route) -> Option<u32> {
    route.hops.first().and_then(|hop| hop.index)
}

/// The node's way to where it knows no better: its default route. None where it has none.
fn default_uplink(socket: &mut Socket, family: IpFamily) -> Result<Option<Uplink>, CniError> {
    // Addresses of documentation and benchmarks (RFC 5737, 3849, 9637, 5180): a network that has a route of its own to
    // all of them is not to be expected.
    let nowhere: [IpAddr; 3] = match family {
        IpFamily::V4 => [[203, 0, 113, 1], [198, 51, 100, 1], [192, 0, 2, 1]].map(IpAddr::from),
        IpFamily::V6 => [
            [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1],
            [0x3fff, 0, 0, 0, 0, 0, 0, 1],
            [0x2001, 2, 0, 0, 0, 0, 0, 1],
        ]
        .map(IpAddr::from),
    };
    for address in nowhere {
        match route::look_up(socket, address, None) {
            Ok(found) if found.destination.prefix_len() == 0 && found.kind == RouteKind::Unicast => {
                // The second look-up gives the source address, which the route itself does not name.
                let resolved = route::resolve(socket, address).map_err(kernel_refused)?;
                let router = resolved.hops.first().and_then(|hop| hop.gateway);
                return Ok(Some(Uplink { source: resolved.source, link: link_of(&resolved), router }));
            }
            Ok(_) => {}
            Err(error) if no_route(error.errno) => {}
            Err(error) => return Err(kernel_refused(error)),
        }
    }
    Ok(None)
}

fn no_route(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL | Errno::AFNOSUPPORT
    )
}
