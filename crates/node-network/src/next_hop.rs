//! Which link leads to a peer's address, judged from the kernel's own look-up.
//!
//! A look-up nearly always matches something (the default route, a route of ours); only a connected route on a real
//! link means that the peer is on link.

use std::collections::btree_map::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::net::IpAddr;
use std::sync::Arc;

use crate::family::{Family, PerFamily};
use crate::observed::{FibLookup, Leg, LinkKind, ObservedLink, ObservedNode, ObservedRoute, RouteKind};
use crate::settings::Settings;

/// The way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnLink {
    /// Index of the outgoing link.
    pub link: u32,
    /// Its name, to be shown; the same one for all its peers.
    pub name: Arc<str>,
    /// No connected route says so, a setting does: the kernel must be told (`RTNH_F_ONLINK`).
    pub forced: bool,
    /// The link is a WireGuard tunnel: it carries pods' packets only if its AllowedIPs name the pod CIDR.
    pub wireguard: bool,
}

/// Why no route can lead to a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NextHopProblem {
    /// The kernel answered with an error; what is installed stays.
    #[error("the kernel has no route to it ({0}): check that the link towards it is up and has its address")]
    LookupFailed(String),
    /// Nothing looked it up.
    #[error("it was not looked up in this pass: wait for the next")]
    NotLookedUp,
    /// An address of this node.
    #[error("it is an address of this node too: give one of the two another")]
    Local,
    /// Only the default route matches.
    #[error(
        "only the default route leads to it, so that it is not on link: put the nodes on one network, or name \
         the prefix in routes.onLinkPrefixes if it is on link after all"
    )]
    DefaultRoute,
    /// Behind a router.
    #[error(
        "it is behind gateway {0}, and a router in between does not know the pods: put the nodes on one network"
    )]
    ViaGateway(IpAddr),
    /// One of our own routes matches.
    #[error("it lies inside pod CIDR {0}, which is routed to a node: give the node an address outside of it")]
    InsidePodCidr(ipnet::IpNet),
    /// A route of another type.
    #[error("the route to it is not unicast (type {0:?}): remove that route")]
    NotUnicast(RouteKind),
    /// A pod's link, or a bridge that somebody made for containers.
    #[error("`{0}` leads to it, which is a link of pods or containers: check for overlapping networks")]
    PodLink(String),
    /// The link vanished between look-up and list.
    #[error("the link with index {0} that leads to it is gone: wait for the next pass")]
    UnknownLink(u32),
    /// A setting names a link that does not exist, or there is no default route.
    #[error("routes.onLinkPrefixes says that it is on link, but {0}")]
    NoForcedLink(String),
}

impl NextHopProblem {
    /// Nothing was learnt, so that an installed route is kept.
    #[must_use]
    pub const fn is_ignorance(&self) -> bool {
        matches!(self, Self::LookupFailed(_) | Self::NotLookedUp | Self::UnknownLink(_))
    }
}

/// What the ways to all peers are judged by.
#[derive(Debug)]
pub struct NextHops<'a> {
    observed: &'a ObservedNode,
    own_addresses: &'a PerFamily<IpAddr>,
    settings: &'a Settings,
    looked_up: LookedUp<'a>,
    local: BTreeSet<IpAddr>,
    names: BTreeMap<u32, Arc<str>>,
}

/// What was looked up. In many clusters addresses follow pod CIDRs, so that the next one that is asked for mostly lies behind
/// the last.
#[derive(Debug)]
struct LookedUp<'a> {
    all: &'a BTreeMap<IpAddr, FibLookup>,
    behind: Peekable<Range<'a, IpAddr, FibLookup>>,
}

impl<'a> LookedUp<'a> {
    fn new(all: &'a BTreeMap<IpAddr, FibLookup>) -> Self {
        Self { all, behind: all.range::<IpAddr, _>(..).peekable() }
    }

    fn get(&mut self, address: IpAddr) -> Option<&'a FibLookup> {
        if self.behind.peek().is_none_or(|(next, _)| **next != address) {
            self.behind = self.all.range(address..).peekable();
        }
        self.behind.next_if(|(found, _)| **found == address).map(|(_, found)| found)
    }
}

impl<'a> NextHops<'a> {
    /// For a node with these addresses of its own.
    #[must_use]
    pub fn new(
        observed: &'a ObservedNode,
        own_addresses: &'a PerFamily<IpAddr>,
        settings: &'a Settings,
    ) -> Self {
        let local = observed.addresses().map(|(_, held)| held.address.addr()).collect();
        let names = observed.links.values().map(|link| (link.index, link.name.as_str().into())).collect();
        let looked_up = LookedUp::new(&observed.next_hops);
        Self { observed, own_addresses, settings, looked_up, local, names }
    }

    /// The link that leads to `address`. Among equal links that of `installed` is kept.
    pub fn towards(
        &mut self,
        address: IpAddr,
        installed: Option<&ObservedRoute>,
    ) -> Result<OnLink, NextHopProblem> {
        let Self { observed, own_addresses, settings, .. } = *self;
        if self.local.contains(&address) {
            return Err(NextHopProblem::Local);
        }
        if let Some(link) = forced_link(address, observed, settings) {
            let link = link?;
            return Ok(self.on_link(link, true));
        }
        let found = match self.looked_up.get(address) {
            None => return Err(NextHopProblem::NotLookedUp),
            Some(Err(error)) => return Err(NextHopProblem::LookupFailed(error.clone())),
            Some(Ok(found)) => found,
        };
        match found.kind {
            RouteKind::Unicast => {}
            RouteKind::Local => return Err(NextHopProblem::Local),
            other => return Err(NextHopProblem::NotUnicast(other)),
        }
        if found.protocol == crate::NODE_ROUTE_PROTOCOL || found.protocol == crate::POD_ROUTE_PROTOCOL {
            return Err(NextHopProblem::InsidePodCidr(found.dst));
        }
        let direct = |leg: &&Leg| leg.via.is_none();
        let installed_link = installed.and_then(|route| route.legs.first()).map(|leg| leg.link);
        let same_link = found.legs.iter().filter(direct).find(|leg| Some(leg.link) == installed_link);
        let Some(leg) = same_link.or_else(|| found.legs.iter().find(direct)) else {
            return Err(match found.legs.iter().find_map(|leg| leg.via) {
                Some(gateway) if found.dst.prefix_len() > 0 => NextHopProblem::ViaGateway(gateway),
                _ => NextHopProblem::DefaultRoute,
            });
        };
        // A point-to-point default (`default dev ppp0`) has no gateway either.
        if found.dst.prefix_len() == 0 {
            return Err(NextHopProblem::DefaultRoute);
        }
        let link = observed.links.get(&leg.link).ok_or(NextHopProblem::UnknownLink(leg.link))?;
        if link.is_pod_link() || is_container_bridge(link, observed, own_addresses) {
            return Err(NextHopProblem::PodLink(link.name.clone()));
        }
        Ok(self.on_link(link, false))
    }

    fn on_link(&self, link: &ObservedLink, forced: bool) -> OnLink {
        let name = self.names.get(&link.index).cloned().unwrap_or_else(|| link.name.as_str().into());
        OnLink { link: link.index, name, forced, wireguard: link.kind == LinkKind::Wireguard }
    }
}

fn forced_link<'a>(
    address: IpAddr,
    observed: &'a ObservedNode,
    settings: &Settings,
) -> Option<Result<&'a ObservedLink, NextHopProblem>> {
    let matching =
        settings.routes.on_link_prefixes.iter().filter(|on_link| on_link.prefix.contains(&address));
    let setting = matching.max_by_key(|on_link| on_link.prefix.prefix_len())?;
    let (link, missing) = match &setting.link {
        Some(name) => {
            let link = observed.links.values().find(|link| link.name == name.as_str());
            (link, format!("link `{name}` does not exist: correct the name"))
        }
        None => {
            let family = Family::of(address);
            let missing = format!("there is no {family} default route whose link it could be: name the link");
            (observed.default_route_link(family), missing)
        }
    };
    Some(link.ok_or(NextHopProblem::NoForcedLink(missing)))
}

/// docker0, cni0 and their like hold only containers' ports. A bridge with a NIC in it, or with this node's own
/// address on it, is an uplink.
fn is_container_bridge(link: &ObservedLink, observed: &ObservedNode, own: &PerFamily<IpAddr>) -> bool {
    let holds_own = link.addresses.iter().any(|held| own.values().any(|own| *own == held.address.addr()));
    let mut ports = observed.links.values().filter(|port| port.master == Some(link.index));
    link.kind == LinkKind::Bridge
        && !holds_own
        && ports.all(|port| matches!(port.kind, LinkKind::Veth | LinkKind::Tun))
}

#[cfg(test)]
mod tests;
