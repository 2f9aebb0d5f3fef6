//! One change, and its line for people.

use std::fmt;

use serde::Serialize;

use super::{
    AllowedIpsChange, ElementChange, ForwardRuleChange, InstalledRoute, NftChange, RouteChange, SysctlChange,
    WantedRoute,
};
use crate::desired::{Conflist, Hook, Sysctl, TABLE_NAME};
use crate::observed::RouteKind;
use crate::{NODE_ROUTE_PROTOCOL, desired::ForwardAccept};

/// One change of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Write a sysctl.
    Sysctl(&'a SysctlChange),
    /// Change the table `inet hostgw`.
    Nft(&'a NftChange),
    /// Change a rule in a chain of iptables.
    ForwardRule(&'a ForwardRuleChange),
    /// Allow a WireGuard peer its node's pods.
    AllowedIps(&'a AllowedIpsChange),
    /// Change what one destination's route is.
    Route(&'a RouteChange),
    /// Create the file that lets STATUS succeed.
    ReadyFile,
    /// Write the CNI configuration.
    Conflist(&'a Conflist),
}

impl Change<'_> {
    /// The node is not announced while such a change has failed: without it no pod has a network. One peer's route
    /// is not of that kind.
    #[must_use]
    pub const fn announcement_needs_it(&self) -> bool {
        match self {
            Self::Nft(_) => true,
            Self::Sysctl(change) => !matches!(change.sysctl, Sysctl::AcceptRa(_)),
            Self::ForwardRule(_)
            | Self::AllowedIps(_)
            | Self::Route(_)
            | Self::ReadyFile
            | Self::Conflist(_) => false,
        }
    }

    /// This change is not made in a pass in which `earlier` failed: it would do harm without it.
    #[must_use]
    pub fn waits_for(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::ReadyFile | Self::Conflist(_), _) => earlier.announcement_needs_it(),
            (Self::Sysctl(this), Self::Nft(NftChange::Create(table) | NftChange::Rebuild(table))) => {
                let restricts = table.chains.iter().any(|chain| chain.hook == Hook::Forward);
                restricts && matches!(this.sysctl, Sysctl::Ipv4Forward | Sysctl::Ipv6Forwarding)
            }
            (Self::Sysctl(this), Self::Sysctl(earlier)) => {
                this.sysctl == Sysctl::Ipv6Forwarding && matches!(earlier.sysctl, Sysctl::AcceptRa(_))
            }
            _ => false,
        }
    }
}

/// What a change does, at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// Something new.
    Add,
    /// Something of ours becomes different.
    Change,
    /// Something of ours goes.
    Remove,
}

/// A change as one line: `+ route 10.244.2.0/24 via 192.0.2.12 dev eth0  (pods of node `node2`)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeLine {
    /// What it does.
    pub action: Sign,
    /// `sysctl`, `nftables`, `forward-rule`, `allowed-ips`, `route`, `ready-file` or `conflist`.
    pub kind: &'static str,
    /// What is changed, and into what.
    pub what: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for ChangeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action {
            Sign::Add => '+',
            Sign::Change => '~',
            Sign::Remove => '-',
        };
        write!(f, "{sign} {} {}  ({})", self.kind, self.what, self.reason)
    }
}

impl Change<'_> {
    /// The change as one line.
    #[must_use]
    pub fn line(&self) -> ChangeLine {
        match self {
            Self::Sysctl(change) => sysctl_line(change),
            Self::Nft(change) => nft_line(change),
            Self::ForwardRule(change) => forward_rule_line(change),
            Self::AllowedIps(AllowedIpsChange { link_name, peer, pod_cidr, node, .. }) => ChangeLine {
                action: Sign::Add,
                kind: "allowed-ips",
                what: format!("{pod_cidr} of peer {peer} on {link_name}"),
                reason: format!("pods of node `{node}`"),
            },
            Self::Route(change) => route_line(change),
            Self::ReadyFile => ChangeLine {
                action: Sign::Add,
                kind: "ready-file",
                what: "the file without which STATUS fails".to_owned(),
                reason: "the data path is up".to_owned(),
            },
            Self::Conflist(_) => ChangeLine {
                action: Sign::Change,
                kind: "conflist",
                what: "the CNI configuration".to_owned(),
                reason: "the runtime starts pods by it".to_owned(),
            },
        }
    }
}

fn sysctl_line(change: &SysctlChange) -> ChangeLine {
    let reason = match change.sysctl {
        Sysctl::AcceptRa(_) => "the link goes on learning from router advertisements once IPv6 is forwarded",
        Sysctl::Ipv4Forward | Sysctl::Ipv6Forwarding => "pods' packets are forwarded",
        Sysctl::ProxyNdp(_) => "the node answers neighbour solicitations for its pods",
        Sysctl::ProxyDelay(..) => "the node answers for its pods at once",
    };
    ChangeLine {
        action: Sign::Change,
        kind: "sysctl",
        what: format!("{} {} -> {}", change.sysctl, change.from, change.to),
        reason: reason.to_owned(),
    }
}

fn nft_line(change: &NftChange) -> ChangeLine {
    let line =
        |action, what, reason: &str| ChangeLine { action, kind: "nftables", what, reason: reason.to_owned() };
    match change {
        NftChange::Create(_) => line(Sign::Add, format!("table inet {TABLE_NAME}"), "it does not exist"),
        NftChange::Rebuild(_) => {
            line(Sign::Change, format!("table inet {TABLE_NAME}"), "its chains, sets or rules differ")
        }
        NftChange::Elements(changes) => {
            let shown: Vec<_> = changes.iter().map(elements).collect();
            line(
                Sign::Change,
                format!("table inet {TABLE_NAME}: {}", shown.join("; ")),
                "pods or nodes have changed",
            )
        }
    }
}

fn elements(change: &ElementChange) -> String {
    // A list of thousands would hide the other changes.
    const SHOWN: usize = 4;
    let part = |sign: &str, prefixes: &[ipnet::IpNet]| {
        let mut shown: Vec<_> = prefixes.iter().take(SHOWN).map(|prefix| format!("{sign}{prefix}")).collect();
        if prefixes.len() > SHOWN {
            shown.push(format!("{sign}{} more", prefixes.len() - SHOWN));
        }
        shown
    };
    let parts = [part("-", &change.remove), part("+", &change.add)].concat();
    format!("set {} {}", change.set.as_str(), parts.join(" "))
}

fn forward_rule_line(change: &ForwardRuleChange) -> ChangeLine {
    let (action, place, accept, reason): (_, _, &ForwardAccept, _) = match change {
        ForwardRuleChange::Insert { place, accept } => {
            (Sign::Add, place, accept, "the chain drops by policy what is forwarded")
        }
        ForwardRuleChange::Remove { place, accept, .. } => {
            (Sign::Remove, place, accept, "no pods there, or it stands in the wrong place")
        }
    };
    ChangeLine {
        action,
        kind: "forward-rule",
        what: format!("{} {} {}: {accept}", place.family, place.table, place.position.chain_name()),
        reason: reason.to_owned(),
    }
}

fn route_line(change: &RouteChange) -> ChangeLine {
    let line = |action, what, reason| ChangeLine { action, kind: "route", what, reason };
    let purpose = |route: &WantedRoute| match &route.node {
        Some(node) => format!("pods of node `{node}`"),
        None => "an address without a pod must not follow the default route".to_owned(),
    };
    let and_remove = |superseded: &[InstalledRoute]| match superseded {
        [] => String::new(),
        _ => {
            let old: Vec<_> = superseded.iter().map(installed).collect();
            format!(", then without {}", old.join(", "))
        }
    };
    match change {
        RouteChange::Add { route, superseded } => {
            line(Sign::Add, wanted(route), purpose(route) + &and_remove(superseded))
        }
        RouteChange::Replace { route, old, superseded } => {
            let reason = format!("{}; was {}{}", purpose(route), installed(old), and_remove(superseded));
            line(Sign::Change, wanted(route), reason)
        }
        RouteChange::Delete { routes, superseded } => {
            let reason =
                if *superseded { "another of ours has taken its place" } else { "no node holds it by right" };
            let gone: Vec<_> = routes.iter().map(installed).collect();
            line(Sign::Remove, gone.join(", "), reason.to_owned())
        }
    }
}

fn wanted(route: &WantedRoute) -> String {
    match &route.leg {
        None => format!("unreachable {} proto {NODE_ROUTE_PROTOCOL}", route.key),
        Some(leg) => {
            let on_link = if leg.on_link { " onlink" } else { "" };
            let source = leg.prefsrc.map(|source| format!(" src {source}")).unwrap_or_default();
            format!(
                "{} via {} dev {}{on_link}{source} proto {NODE_ROUTE_PROTOCOL}",
                route.key, leg.via, leg.link_name
            )
        }
    }
}

fn installed(route: &InstalledRoute) -> String {
    let via = route.leg.and_then(|leg| leg.via).map(|via| format!(" via {via}")).unwrap_or_default();
    let kind = if route.kind == RouteKind::Unreachable { "unreachable " } else { "" };
    format!("{kind}{}{via}", route.key)
}
