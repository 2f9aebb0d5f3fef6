//! What a link holds: addresses, routes, rules that name it, neighbours; in the kernel's order. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kernel::address::{DADFAILED, TENTATIVE};
use kernel::neighbour::Neighbour;
use serde::{Deserialize, Serialize};

use crate::object::{Kind, LinkRef, Object, RouteKey};

/// A route, and its place among those of the same destination, table, type of service and metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldRoute {
    /// The route.
    pub object: Object,
    /// Another link's stands behind it: of IPv4 routes of one key the first wins, so that it must stay ahead.
    pub ahead: bool,
}

/// What lies on, leads over, or names one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holdings {
    /// In order: the first of an IPv4 subnet is its primary one.
    pub addresses: Vec<Object>,
    /// Of every table.
    pub routes: Vec<HeldRoute>,
    /// With `iif` or `oif`.
    pub rules: Vec<Object>,
    /// With known Ethernet addresses, and those answered for.
    pub neighbours: Vec<Object>,
}

/// Every object of a namespace, as dumped.
#[derive(Clone, Debug, Default)]
pub struct Dumped {
    /// Kind and payload of each, in the kernel's order.
    pub objects: Vec<(Kind, Vec<u8>)>,
}

impl Dumped {
    /// Those that are not the kernel's own affair, in their settled form.
    fn settled(&self) -> Vec<Object> {
        let settle = |(kind, payload): &(Kind, Vec<u8>)| Object::settle(*kind, payload);
        self.objects.iter().filter_map(settle).flat_map(|object| object.legs()).collect()
    }
}

/// What cannot be moved, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmovable {
    /// A nexthop object cannot be changed to another link without those who share it.
    #[error(
        "{route} over it uses nexthop object {id}, which others may share: replace it by a route that names its gateway"
    )]
    NexthopObject {
        /// The route.
        route: String,
        /// `RTA_NH_ID`.
        id: u32,
    },
    /// Whether it may be used is not known yet, or it may not.
    #[error("address {address} on it {}", if *.refused { "is used by another host: remove it" } else { "is still being checked for duplicates: try again in a few seconds" })]
    Tentative {
        /// The address.
        address: String,
        /// Somebody else has it.
        refused: bool,
    },
    /// Another link's routes of the same key stand on both sides of it.
    #[error(
        "{route} over it stands between routes of other links with the same destination and metric: give it a metric of its own"
    )]
    Between {
        /// The route.
        route: String,
    },
}

impl Holdings {
    /// What of `all` is on `link`.
    #[must_use]
    pub fn of(all: &Dumped, link: &LinkRef) -> Self {
        let mut holdings = Self::default();
        let objects = all.settled();
        let mut order = RouteOrder::of(&objects, link);
        for object in &objects {
            let (before, behind) = order.others_around(object);
            if !object.is_on(link) {
                continue;
            }
            let object = object.clone();
            match object.kind() {
                Kind::Address => holdings.addresses.push(object),
                Kind::Rule => holdings.rules.push(object),
                Kind::Neighbour => holdings.neighbours.push(object),
                Kind::Route => holdings.routes.push(HeldRoute { object, ahead: behind && !before }),
            }
        }
        holdings
    }

    /// The first thing that `link` holds and that cannot be moved.
    pub fn movable(all: &Dumped, link: &LinkRef) -> Result<(), Unmovable> {
        let objects = all.settled();
        let mut order = RouteOrder::of(&objects, link);
        for route in &objects {
            let around = order.others_around(route);
            if !route.is_on(link) {
                continue;
            }
            if let Some(id) = route.route().and_then(|route| route.nexthop_id) {
                return Err(Unmovable::NexthopObject { route: route.to_string(), id });
            }
            if around == (true, true) {
                return Err(Unmovable::Between { route: route.to_string() });
            }
        }
        for (_, payload) in all.objects.iter().filter(|(kind, _)| *kind == Kind::Address) {
            let Some(address) = kernel::address::Address::parse(payload) else { continue };
            let unfit = address.flags & (TENTATIVE | DADFAILED);
            if address.index == link.index && address.ip.addr().is_ipv6() && unfit != 0 {
                let refused = unfit & DADFAILED != 0;
                return Err(Unmovable::Tentative { address: address.ip.to_string(), refused });
            }
        }
        Ok(())
    }

    /// Everything, in the order in which it is made.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        let routes = self.routes.iter().map(|route| &route.object);
        self.addresses.iter().chain(routes).chain(&self.rules).chain(&self.neighbours)
    }

    /// The same on another link.
    #[must_use]
    pub fn moved(&self, from: &LinkRef, to: &LinkRef) -> Self {
        self.each(|object| Some(object.moved(from, to)))
    }

    /// The same `seconds` later, less what has expired.
    #[must_use]
    pub fn aged(&self, seconds: u32) -> Self {
        self.each(|object| object.aged(seconds))
    }

    fn each(&self, change: impl Fn(&Object) -> Option<Object>) -> Self {
        let all = |objects: &[Object]| objects.iter().filter_map(&change).collect();
        let route = |held: &HeldRoute| Some(HeldRoute { object: change(&held.object)?, ahead: held.ahead });
        Self {
            addresses: all(&self.addresses),
            routes: self.routes.iter().filter_map(route).collect(),
            rules: all(&self.rules),
            neighbours: all(&self.neighbours),
        }
    }

    /// What of `self` is not in `present`, learnt neighbours aside: those come and go.
    #[must_use]
    pub fn missing_from(&self, present: &Self) -> Vec<Object> {
        let there: BTreeSet<Object> = present.iter().map(Object::identity).collect();
        let fixed = |object: &&Object| {
            object.kind() != Kind::Neighbour
                || Neighbour::parse(object.bytes())
                    .is_some_and(|entry| entry.proxy || entry.state & kernel::neighbour::PERMANENT != 0)
        };
        self.iter().filter(fixed).filter(|object| !there.contains(&object.identity())).cloned().collect()
    }
}

/// For each key of IPv4 routes, whether the routes of that key lead over the link, in the kernel's order. IPv6 has no such
/// order.
#[derive(Debug)]
struct RouteOrder {
    on_link: BTreeMap<RouteKey, Vec<bool>>,
    seen: BTreeMap<RouteKey, usize>,
}

impl RouteOrder {
    fn of(objects: &[Object], link: &LinkRef) -> Self {
        let mut on_link: BTreeMap<RouteKey, Vec<bool>> = BTreeMap::new();
        for route in objects.iter().filter(|object| !object.is_ipv6()) {
            if let Some(key) = route.route_key() {
                on_link.entry(key).or_default().push(route.is_on(link));
            }
        }
        Self { on_link, seen: BTreeMap::new() }
    }

    /// Whether others' routes of the same key stand before this one, and behind it; to be asked of all in order.
    fn others_around(&mut self, object: &Object) -> (bool, bool) {
        let Some(key) = object.route_key().filter(|_| !object.is_ipv6()) else { return (false, false) };
        let Some(group) = self.on_link.get(&key) else { return (false, false) };
        let place = self.seen.entry(key).or_default();
        let (before, behind) = group.split_at((*place).min(group.len()));
        *place += 1;
        (before.contains(&false), behind.iter().skip(1).any(|on_link| !on_link))
    }
}
