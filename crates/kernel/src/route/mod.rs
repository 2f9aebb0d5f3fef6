//! Routes: list, add, replace and delete by their whole key, and ask which one wins (`linux/rtnetlink.h`).

mod codec;
mod dump;
mod look_up;

pub use dump::{Filter, dump};
pub use look_up::{look_up, look_up_all, look_up_forwarded, resolve};

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::netlink::{AF_INET, AF_INET6, Batch, CREATE, EXCL, REPLACE};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

/// `RTNH_F_ONLINK`: trust that the gateway is on the link.
pub const ONLINK: u32 = 4;
/// `RTNH_F_DEAD`: the link is gone or down.
pub const DEAD: u32 = 1;
/// `RTNH_F_LINKDOWN`: there is no carrier.
pub const LINKDOWN: u32 = 16;

/// The main routing table.
pub const TABLE_MAIN: u32 = 254;
/// The table of local addresses.
pub const TABLE_LOCAL: u32 = 255;

/// `RTN_…`: what a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Delivers it here.
    Local,
    /// Drops it and says "unreachable".
    Unreachable,
    /// Drops it silently.
    Blackhole,
    /// Any other kind, by number.
    Other(u8),
}

/// One way that a route goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// The router; none where the destination is on the link. It may be of the other family (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The outgoing link.
    pub index: Option<u32>,
    /// `RTNH_F_…` flags.
    pub flags: u32,
    /// Weight less one.
    pub weight: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// In which table.
    pub table: u32,
    /// Who put it there (`RTPROT_…`).
    pub protocol: u8,
    /// What it does.
    pub kind: RouteKind,
    /// `RT_SCOPE_…`: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Type of service that it is for.
    pub tos: u8,
    /// Lower wins. IPv6 routes without one are given 1024 by the kernel.
    pub metric: u32,
    /// Source address for packets of this host.
    pub source: Option<IpAddr>,
    /// The ways; several are multipath.
    pub hops: Vec<Hop>,
    /// A nexthop object (`RTA_NH_ID`) stands in the place of hops.
    pub nexthop_id: Option<u32>,
    /// MTU that the route sets.
    pub mtu: Option<u32>,
    /// Maximum segment size that TCP announces over it.
    pub advmss: Option<u32>,
}

impl Route {
    /// A unicast route in the main table, of protocol `boot`, without a hop yet.
    #[must_use]
    pub fn to(destination: IpNet) -> Self {
        Self {
            destination,
            table: TABLE_MAIN,
            protocol: 3,
            kind: RouteKind::Unicast,
            scope: 0,
            tos: 0,
            metric: 0,
            source: None,
            hops: Vec::new(),
            nexthop_id: None,
            mtu: None,
            advmss: None,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == RouteKind::Unreachable {
            f.write_str("unreachable ")?;
        }
        write!(f, "{}", self.destination)?;
        for hop in &self.hops {
            if let Some(gateway) = hop.gateway {
                write!(f, " via {gateway}")?;
            }
            if let Some(index) = hop.index {
                write!(f, " link {index}")?;
            }
        }
        Ok(())
    }
}

/// IPv4 or IPv6 routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

impl Family {
    /// As messages say it.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }
}

/// Adds a route; refused where one with the same destination, table, TOS and metric is there, whoever's it is.
pub fn add(batch: &mut Batch, route: &Route) {
    route.write(&mut batch.message("add a route", RTM_NEWROUTE, CREATE | EXCL, &route.header()));
}

/// Adds a route before those of others to the same destination, as `ip route prepend` does: of IPv4 the new one wins, of
/// IPv6 the two become one with several hops. The very same route is refused.
pub fn prepend(batch: &mut Batch, route: &Route) {
    route.write(&mut batch.message("add a route", RTM_NEWROUTE, CREATE, &route.header()));
}

/// Puts a route in the place of the one with the same destination, table, TOS and metric. The protocol is NOT part of
/// that key: only for routes that were seen to be ours.
pub fn replace(batch: &mut Batch, route: &Route) {
    route.write(&mut batch.message("replace a route", RTM_NEWROUTE, REPLACE, &route.header()));
}

/// Deletes the route that is like this one in all that is named here: table, metric, protocol, kind, hop.
pub fn delete(batch: &mut Batch, route: &Route) {
    let bare = Route { source: None, mtu: None, advmss: None, ..route.clone() };
    bare.write(&mut batch.message("delete a route", RTM_DELROUTE, 0, &route.header()));
}

/// The default destination of a family.
#[must_use]
pub fn default_destination(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::default()),
        Family::V6 => IpNet::V6(Ipv6Net::default()),
    }
}
