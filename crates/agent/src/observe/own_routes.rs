//! Our routes as the kernel last told of them: listed once, then kept in step with each change that it tells of. To list
//! them anew the kernel walks all routes there are, of whatever protocol; with 100,000 of others that takes longer than
//! all else of a pass.

use std::net::IpAddr;

use ipnet::IpNet;
use node_network::observed::ObservedRoute;

/// More changes than this are listed sooner than they are put in one by one.
const MOST_TOLD: usize = 256;

/// Routes to peers, guards and pods' own routes.
#[derive(Debug, Default)]
pub(super) struct OwnRoutes {
    /// In order of their keys; none while they are in doubt.
    known: Option<Vec<ObservedRoute>>,
    /// What was told since, in order.
    told: Vec<Told>,
}

/// A change of a route of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is there now.
    New {
        /// The route.
        route: ObservedRoute,
        /// In the place of whatever had its key.
        replaces: bool,
    },
    /// It is gone.
    Gone(ObservedRoute),
}

impl Told {
    fn route(&self) -> &ObservedRoute {
        match self {
            Self::New { route, .. } | Self::Gone(route) => route,
        }
    }
}

impl OwnRoutes {
    /// They have to be listed anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// They were listed.
    pub(super) fn hold(&mut self, mut routes: Vec<ObservedRoute>) {
        routes.sort_by_key(|route| route.key);
        *self = Self { known: Some(routes), told: Vec::new() };
    }

    /// One of them was changed.
    pub(super) fn tell(&mut self, told: Told) {
        if self.known.is_none() || self.told.len() >= MOST_TOLD {
            return self.forget();
        }
        self.told.push(told);
    }

    /// The routes as they are now, without keeping them; none where they have to be listed.
    pub(super) fn take(&mut self) -> Option<Vec<ObservedRoute>> {
        let Self { known, told } = std::mem::take(self);
        let mut routes = known?;
        told.into_iter().all(|told| put_in(&mut routes, told)).then_some(routes)
    }

    /// Whether one of them leads over the link `index`, or is said to.
    pub(super) fn lead_over(&self, index: u32) -> bool {
        self.all().any(|route| route.legs.iter().any(|leg| leg.link == index))
    }

    /// Whether one of them gives packets this source, or is said to.
    pub(super) fn come_from(&self, source: IpAddr) -> bool {
        self.all().any(|route| route.prefsrc == Some(source))
    }

    fn all(&self) -> impl Iterator<Item = &ObservedRoute> {
        self.known.iter().flatten().chain(self.told.iter().map(Told::route))
    }

    /// Whether one of them has this destination, or is said to.
    pub(super) fn lead_to(&self, destination: &IpNet) -> bool {
        let known = self.known.as_deref().unwrap_or_default();
        let at = known.partition_point(|route| route.key.dst < *destination);
        let told = self.told.iter().any(|told| told.route().key.dst == *destination);
        told || known.get(at).is_some_and(|route| route.key.dst == *destination)
    }
}

/// Puts one change in; whether it fits what is known.
fn put_in(routes: &mut Vec<ObservedRoute>, told: Told) -> bool {
    let key = told.route().key;
    let at = routes.partition_point(|known| known.key < key);
    let here = routes.get(at..).unwrap_or_default().iter().take_while(|known| known.key == key).count();
    let same_place =
        |known: &ObservedRoute, route: &ObservedRoute| (known.kind, &known.legs) == (route.kind, &route.legs);
    match told {
        // Of several legs an event may tell of one alone.
        ref of_several if of_several.route().legs.len() > 1 || of_several.route().uses_nexthop_object => {
            false
        }
        Told::Gone(_) if here == 0 => true,
        Told::Gone(route) if here == 1 && same_place(&routes[at], &route) => {
            routes.remove(at);
            true
        }
        Told::New { route, .. } if here == 0 => {
            routes.insert(at, route);
            true
        }
        Told::New { route, replaces } if here == 1 && (replaces || routes[at] == route) => {
            routes[at] = route;
            true
        }
        // A further one at the same key, or one gone that was never told of.
        Told::New { .. } | Told::Gone(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_network::observed::{Leg, RouteKey, RouteKind};
    use proptest::prelude::*;

    fn route(number: u8, hop: u8) -> ObservedRoute {
        let dst = format!("10.244.{number}.0/24").parse().unwrap();
        let via = Some(format!("192.0.2.{hop}").parse().unwrap());
        ObservedRoute {
            key: RouteKey { dst, table: 254, metric: 104, tos: 0 },
            protocol: 104,
            kind: RouteKind::Unicast,
            legs: vec![Leg { via, link: u32::from(hop % 3) }],
            prefsrc: None,
            uses_nexthop_object: false,
        }
    }

    fn holding(routes: Vec<ObservedRoute>) -> OwnRoutes {
        let mut own = OwnRoutes::default();
        own.hold(routes);
        own
    }

    fn after(told: Told) -> Option<Vec<ObservedRoute>> {
        let mut own = holding(vec![route(2, 12), route(3, 13)]);
        own.tell(told);
        own.take()
    }

    #[test]
    fn what_does_not_fit_what_is_known_has_them_listed_anew() {
        assert_eq!(after(Told::Gone(route(2, 99))), None);
        assert_eq!(after(Told::New { route: route(2, 99), replaces: false }), None);
        let mut legs = route(4, 14);
        legs.legs.push(legs.legs[0]);
        assert_eq!(after(Told::New { route: legs.clone(), replaces: false }), None);
        assert_eq!(after(Told::Gone(legs)), None);
    }

    #[test]
    fn what_was_in_the_list_already_changes_nothing() {
        let both = Some(vec![route(2, 12), route(3, 13)]);
        assert_eq!(after(Told::New { route: route(3, 13), replaces: false }), both);
        assert_eq!(after(Told::Gone(route(4, 14))), both);
    }

    #[test]
    fn routes_in_doubt_stay_so_until_they_are_listed() {
        let mut own = OwnRoutes::default();
        own.tell(Told::New { route: route(2, 12), replaces: false });
        assert_eq!(own.take(), None);
        let mut own = holding(Vec::new());
        for _ in 0..=MOST_TOLD {
            own.tell(Told::Gone(route(2, 12)));
        }
        assert_eq!(own.take(), None);
    }

    #[test]
    fn a_link_or_destination_of_a_route_is_known_also_before_it_is_put_in() {
        let mut own = holding(vec![route(2, 12)]);
        assert!(own.lead_over(0) && !own.lead_over(2));
        own.tell(Told::New { route: route(3, 14), replaces: false });
        assert!(own.lead_over(2) && own.lead_to(&route(3, 14).key.dst) && own.lead_to(&route(2, 12).key.dst));
        assert!(!own.lead_to(&"10.244.0.0/16".parse().unwrap()));
    }

    /// What the kernel does when it is asked to, and what it tells.
    fn change(kernel: &mut Vec<ObservedRoute>, number: u8, hop: Option<u8>) -> Option<Told> {
        let at = kernel.iter().position(|known| known.key == route(number, 0).key);
        match (at, hop) {
            (None, None) => None,
            (Some(at), None) => Some(Told::Gone(kernel.remove(at))),
            (None, Some(hop)) => {
                kernel.push(route(number, hop));
                Some(Told::New { route: route(number, hop), replaces: false })
            }
            (Some(at), Some(hop)) => {
                kernel[at] = route(number, hop);
                Some(Told::New { route: route(number, hop), replaces: true })
            }
        }
    }

    proptest! {
        /// The list is younger than the first things that are told.
        #[test]
        fn what_is_told_late_never_leaves_another_state_than_the_last_one(
            changes in proptest::collection::vec((0u8..6, proptest::option::of(1u8..5)), 1..40), late in 0usize..8,
        ) {
            let mut kernel = Vec::new();
            let mut events = Vec::new();
            let mut lists = Vec::new();
            for (number, hop) in &changes {
                events.push(change(&mut kernel, *number, *hop));
                lists.push(kernel.clone());
            }
            let listed = changes.len() - 1 - late.min(changes.len() - 1) / 2;
            let first_told = changes.len().saturating_sub(late);
            let mut own = OwnRoutes::default();
            own.hold(lists[listed].clone());
            events.into_iter().skip(first_told.min(listed + 1)).flatten().for_each(|told| own.tell(told));
            kernel.sort_by_key(|route| route.key);
            match own.take() {
                Some(routes) => prop_assert_eq!(routes, kernel),
                None => prop_assert!(first_told <= listed, "nothing was told twice"),
            }
        }
    }
}
