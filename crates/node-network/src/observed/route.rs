//! Routes as the kernel holds them, and what it answers to look-ups.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

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

    /// To be asked for one destination after the other, in their order: thousands of them are found by one walk through the
    /// routes instead of a search for each.
    #[must_use]
    pub fn in_order(&self) -> RoutesInOrder<'_, 'a> {
        RoutesInOrder(&self.0)
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

/// A walk through routes.
#[derive(Clone, Debug)]
pub struct RoutesInOrder<'s, 'a>(&'s [&'a ObservedRoute]);

impl<'s, 'a> RoutesInOrder<'s, 'a> {
    /// The routes to `dst`, which does not come before what was asked for last.
    pub fn to(&mut self, dst: &IpNet) -> RoutesTo<'s, 'a> {
        let passed = self.0.iter().take_while(|route| route.key.dst < *dst).count();
        self.0 = &self.0[passed..];
        let at = self.0.iter().take_while(|route| route.key.dst == *dst).count();
        let inside = self.0[at..].iter().take_while(|route| dst.contains(&route.key.dst)).count();
        RoutesTo { at: &self.0[..at], within: &self.0[..at + inside] }
    }
}

/// The routes that concern one destination.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoutesTo<'s, 'a> {
    /// Those to it.
    pub at: &'s [&'a ObservedRoute],
    /// Those to it, and after them those to a part of it.
    pub within: &'s [&'a ObservedRoute],
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

/// A look-up's answer, or the kernel's reason for none. Thousands of peers in a row have the same one.
pub type FibLookup = Result<Arc<FibMatch>, String>;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn route(dst: IpNet, metric: u32) -> ObservedRoute {
        ObservedRoute {
            key: RouteKey { dst, table: 254, metric, tos: 0 },
            protocol: 4,
            kind: RouteKind::Unicast,
            legs: Vec::new(),
            prefsrc: None,
            uses_nexthop_object: false,
        }
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        (0_u8..4, 0_u8..4, 0_u8..=5, any::<bool>()).prop_map(|(high, low, length, is_v4)| {
            let address = if is_v4 {
                IpAddr::from([high << 6 | low << 4, 0, 0, 0])
            } else {
                IpAddr::from([u16::from(high) << 14 | u16::from(low) << 12, 0, 0, 0, 0, 0, 0, 0])
            };
            IpNet::new(address, length).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn a_walk_finds_what_looking_at_every_route_finds(
            routes in proptest::collection::vec((any_net(), 0_u32..3), 0..30),
            asked in proptest::collection::btree_set(any_net(), 0..20),
        ) {
            let routes: Vec<_> = routes.into_iter().map(|(dst, metric)| route(dst, metric)).collect();
            let by_destination = RoutesByDestination::new(routes.iter());
            let mut walk = by_destination.in_order();
            let asked: BTreeSet<IpNet> = asked;
            for dst in asked {
                let RoutesTo { at, within } = walk.to(&dst);
                prop_assert_eq!(at, by_destination.at(&dst));
                let mut expected: Vec<_> = routes.iter().filter(|route| dst.contains(&route.key.dst)).collect();
                expected.sort_by_key(|route| route.key.dst);
                prop_assert_eq!(within, expected);
            }
        }
    }
}
