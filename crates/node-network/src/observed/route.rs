//! Routes as the kernel holds them, and what it answers to look-ups.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{NODE_ROUTE_PROTOCOL, POD_ROUTE_PROTOCOL};

/// What distinguishes two routes in the kernel. The protocol is not part of it: a replace of the same key overwrites
/// anybody's route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// Destination prefix.
    pub dst: IpNet,
    /// Routing table.
    pub table: u32,
    /// `RTA_PRIORITY`.
    pub metric: u32,
    /// `rtm_tos`; IPv4 only, 0 else.
    pub tos: u8,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} table {} metric {}", self.dst, self.table, self.metric)?;
        if self.tos == 0 { Ok(()) } else { write!(f, " tos {}", self.tos) }
    }
}

/// `rtm_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Towards a next hop or a link.
    Unicast,
    /// Delivered to this node.
    Local,
    /// Answered with an ICMP unreachable.
    Unreachable,
    /// Any other, by its number (`RTN_*` in `linux/rtnetlink.h`).
    Other(u8),
}

/// One way that a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The gateway; none where the destination is on link.
    pub via: Option<IpAddr>,
    /// Index of the outgoing link; 0 where there is none.
    pub link: u32,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRoute {
    /// Its place in the kernel's tables.
    pub key: RouteKey,
    /// `rtm_protocol`. Of an IPv6 multipath route it is that of the first leg only.
    pub protocol: u8,
    /// `rtm_type`.
    pub kind: RouteKind,
    /// Where it leads; several when multipath.
    pub legs: Vec<Leg>,
    /// `RTA_PREFSRC`.
    pub prefsrc: Option<IpAddr>,
    /// It stands on a nexthop object (`RTA_NH_ID`), which ours never do.
    pub uses_nexthop_object: bool,
}

impl ObservedRoute {
    /// A node route or guard of ours.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        self.protocol == NODE_ROUTE_PROTOCOL
    }

    /// Ours alone: not a multipath set, of which one leg may be somebody else's.
    #[must_use]
    pub fn is_ours_alone(&self) -> bool {
        self.is_ours() && self.legs.len() <= 1 && !self.uses_nexthop_object
    }

    /// A pod's own route.
    #[must_use]
    pub const fn is_pods(&self) -> bool {
        self.protocol == POD_ROUTE_PROTOCOL
    }
}

/// Routes in order of their destinations, to be searched.
#[derive(Clone, Debug)]
pub struct RoutesByDestination<'a>(Vec<&'a ObservedRoute>);

impl<'a> RoutesByDestination<'a> {
    /// Those that are given; of one destination in the order in which they are.
    #[must_use]
    pub fn new(routes: impl Iterator<Item = &'a ObservedRoute>) -> Self {
        let mut routes: Vec<_> = routes.collect();
        routes.sort_by_key(|route| route.key.dst);
        Self(routes)
    }

    /// The routes to `dst`.
    #[must_use]
    pub fn at(&self, dst: &IpNet) -> &[&'a ObservedRoute] {
        let from = self.from(dst);
        &from[..from.iter().take_while(|route| route.key.dst == *dst).count()]
    }

    /// The routes to `dst` or to a part of it.
    #[must_use]
    pub fn within(&self, dst: &IpNet) -> &[&'a ObservedRoute] {
        let from = self.from(dst);
        &from[..from.iter().take_while(|route| dst.contains(&route.key.dst)).count()]
    }

    /// The routes to each destination, in order.
    pub fn each(&self) -> impl Iterator<Item = (IpNet, &[&'a ObservedRoute])> {
        let groups = self.0.chunk_by(|a, b| a.key.dst == b.key.dst);
        groups.filter_map(|here| Some((here.first()?.key.dst, here)))
    }

    fn from(&self, dst: &IpNet) -> &[&'a ObservedRoute] {
        let at = self.0.partition_point(|route| route.key.dst < *dst);
        self.0.get(at..).unwrap_or_default()
    }
}

/// The route that a look-up matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibMatch {
    /// The destination of the matched route, not of the look-up.
    pub dst: IpNet,
    /// Its table.
    pub table: u32,
    /// Its protocol.
    pub protocol: u8,
    /// Its type.
    pub kind: RouteKind,
    /// Its metric.
    pub metric: u32,
    /// Where it leads.
    pub legs: Vec<Leg>,
}

/// A look-up's answer, or the kernel's reason for none.
pub type FibLookup = Result<FibMatch, String>;
