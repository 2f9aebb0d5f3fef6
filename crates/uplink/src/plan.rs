//! The order of changes that moves everything from one holder to the other. Pure: the same function serves join, leave and
//! putting back, from any state between.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use kernel::link::Mac;
use serde::{Deserialize, Serialize};

use crate::holdings::{HeldRoute, Holdings};
use crate::object::{LinkRef, Object};

/// Who holds the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The link itself; there is no bridge.
    Link,
    /// The bridge, of which the link is a port.
    Bridge,
}

/// How the kernel makes a link's IPv6 link-local address (`addr_gen_mode`, `IN6_ADDR_GEN_MODE_…`).
pub type LinkLocalMode = u8;
/// Not at all.
pub const LINK_LOCAL_NONE: LinkLocalMode = 1;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets how the link's link-local address is made; none is made or taken away by this.
    LinkLocal {
        /// The link.
        link: LinkRef,
        /// The mode.
        mode: LinkLocalMode,
    },
    /// Makes the link a port of the bridge.
    Enslave {
        /// The link.
        link: LinkRef,
        /// The bridge.
        bridge: LinkRef,
    },
    /// Makes the link a port of nothing.
    Free {
        /// The link.
        link: LinkRef,
    },
    /// Makes the kernel see at once that the link has a carrier now.
    Settle {
        /// The link.
        link: LinkRef,
    },
    /// Adds an object behind others of its key; one that is there is well.
    Add(Object),
    /// Adds a route ahead of others of its key; one that is there is well.
    AddAhead(Object),
    /// Gives an address that is there the flags and lifetimes that it should have.
    Amend(Object),
    /// Takes an object away; one that is gone is well.
    Delete(Object),
    /// Deletes the bridge.
    DeleteBridge {
        /// The bridge.
        bridge: LinkRef,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkLocal { link, mode } => write!(f, "set addr_gen_mode {mode} on {}", link.name),
            Self::Enslave { link, bridge } => write!(f, "make {} a port of {}", link.name, bridge.name),
            Self::Free { link } => write!(f, "take {} out of its bridge", link.name),
            Self::Settle { link } => write!(f, "settle the carrier of {}", link.name),
            Self::Add(object) => write!(f, "add {object}"),
            Self::AddAhead(object) => write!(f, "add {object} ahead of other links'"),
            Self::Amend(object) => write!(f, "set flags and lifetimes of {object}"),
            Self::Delete(object) => write!(f, "delete {object}"),
            Self::DeleteBridge { bridge } => write!(f, "delete bridge {}", bridge.name),
        }
    }
}

/// The link that is moved, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Which.
    pub link: LinkRef,
    /// The index of its master.
    pub master: Option<u32>,
    /// How its link-local address is made.
    pub link_local: LinkLocalMode,
}

/// The bridge, before it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBridge {
    /// Its name.
    pub name: String,
    /// The link's Ethernet address, pinned, so that the LAN sees no new host.
    pub mac: Mac,
    /// The link's MTU, pinned.
    pub mtu: u32,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The link.
    pub port: Port,
    /// The bridge, if it exists.
    pub bridge: Option<LinkRef>,
    /// What the link holds.
    pub on_link: Holdings,
    /// What the bridge holds.
    pub on_bridge: Holdings,
}

/// What shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What the holder shall hold, written as on the holder.
    pub holdings: Holdings,
    /// How the link's link-local address is made while it is no port.
    pub link_local: LinkLocalMode,
}

/// Changes in order. Those of `first` may be refused by the kernel for reasons that cannot be looked up beforehand: only
/// when all of them were taken, the others follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be taken all, before anything else.
    pub first: Vec<Change>,
    /// What gives the new holder everything.
    pub then: Vec<Change>,
    /// What takes it from the old one, once the kernel answers for the addresses on the new one.
    pub last: Vec<Change>,
}

impl Plan {
    /// All changes, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.first.iter().chain(&self.then).chain(&self.last)
    }
}

/// The changes after which `bridge`, a bridge that exists, holds what is wanted, and the link is its port.
#[must_use]
pub fn into_bridge(observed: &Observed, bridge: &LinkRef, wanted: &Wanted) -> Plan {
    let link = &observed.port.link;
    let mut first = Vec::new();
    if observed.port.master != Some(bridge.index) {
        if observed.port.link_local != LINK_LOCAL_NONE {
            first.push(Change::LinkLocal { link: link.clone(), mode: LINK_LOCAL_NONE });
        }
        first.push(Change::Enslave { link: link.clone(), bridge: bridge.clone() });
    }
    first.push(Change::Settle { link: bridge.clone() });
    let then = additions(&wanted.holdings, &observed.on_bridge);
    Plan { first, then, last: deletions(&observed.on_link) }
}

/// The changes after which the link holds what is wanted, and the bridge is no more. The link gets all while it is a port
/// still: what it sends goes out, and what comes in by the bridge is for this host as well.
#[must_use]
pub fn onto_link(observed: &Observed, wanted: &Wanted) -> Plan {
    let link = &observed.port.link;
    let then = additions(&wanted.holdings, &observed.on_link);
    let mut last = Vec::new();
    if let Some(bridge) = &observed.bridge {
        if observed.port.master == Some(bridge.index) {
            last.push(Change::Free { link: link.clone() });
        }
        last.extend(deletions(&observed.on_bridge));
        last.push(Change::DeleteBridge { bridge: bridge.clone() });
    }
    if observed.port.link_local != wanted.link_local {
        last.push(Change::LinkLocal { link: link.clone(), mode: wanted.link_local });
    }
    Plan { first: Vec::new(), then, last }
}

/// Addresses first, for routes need their source; what is connected before what it leads to; the most specific first, so
/// that at no time a packet follows a wider route; rules last, for they need tables with routes.
fn additions(wanted: &Holdings, present: &Holdings) -> Vec<Change> {
    let there: BTreeSet<Object> = present.iter().map(Object::identity).collect();
    let absent = |object: &&Object| !there.contains(&object.identity());
    let mut changes = Vec::new();
    let (ipv6, ipv4): (Vec<_>, Vec<_>) = wanted.addresses.iter().partition(|address| address.is_ipv6());
    // The kernel puts a new IPv4 address behind the others, and a new IPv6 address ahead of those of its scope.
    for address in ipv4.into_iter().chain(ipv6.into_iter().rev()).filter(absent) {
        if address.is_ipv6() {
            let at_once = address.without_detection();
            changes.push(Change::Add(at_once.clone()));
            if at_once != *address {
                changes.push(Change::Amend(address.clone()));
            }
        } else {
            changes.push(Change::Add(address.clone()));
        }
    }
    changes.extend(wanted.neighbours.iter().filter(absent).cloned().map(Change::Add));
    let routes = in_order(&wanted.routes);
    changes.extend(routes.into_iter().filter(|route| absent(&&route.object)).map(|route| {
        if route.ahead { Change::AddAhead(route.object.clone()) } else { Change::Add(route.object.clone()) }
    }));
    changes.extend(wanted.rules.iter().filter(absent).cloned().map(Change::Add));
    changes
}

fn in_order(routes: &[HeldRoute]) -> Vec<&HeldRoute> {
    let mut routes: Vec<_> = routes.iter().enumerate().collect();
    // Of several that go ahead, the last one put there stands first.
    routes.sort_by_key(|(place, held)| {
        let route = held.object.route();
        let depends = route.as_ref().is_some_and(|route| route.hops.iter().any(|hop| hop.gateway.is_some()));
        let length = route.map_or(0, |route| route.destination.prefix_len());
        let place = i64::try_from(*place).unwrap_or(i64::MAX);
        (depends, Reverse(length), if held.ahead { -place } else { place })
    });
    routes.into_iter().map(|(_, route)| route).collect()
}

/// The other way round. Of an IPv4 subnet's addresses the primary one goes last, for the others go with it.
fn deletions(present: &Holdings) -> Vec<Change> {
    let rules = present.rules.iter();
    let routes = in_order(&present.routes).into_iter().rev().map(|route| &route.object);
    let neighbours = present.neighbours.iter();
    let addresses = present.addresses.iter().rev();
    rules.chain(routes).chain(neighbours).chain(addresses).cloned().map(Change::Delete).collect()
}
