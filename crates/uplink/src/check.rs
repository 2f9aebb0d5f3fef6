//! Whether a link may be moved at all. Pure; asked before anything is touched.

use kernel::link::{LOOPBACK, Link};
use link_name::LinkName;

use crate::configured_by::Program;
use crate::holdings::{Dumped, Holdings, Unmovable};
use crate::object::LinkRef;

/// Links that sit on the frames of another in a way that a bridge does not allow.
const EXCLUSIVE_UPPERS: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];
/// Links of pods, and of their shaping.
const POD_PREFIXES: [&str; 2] = ["hgw", "hgi"];
/// The protocol of routes to pods.
const POD_ROUTES: u8 = 105;

/// Why a move is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is told by its message")]
pub enum Refusal {
    #[error("there is no link {link}: `ip link` lists them")]
    NoLink { link: String },
    #[error("link {link} is a port of {master} already: name another link, or take it out first")]
    AlreadyPort { link: String, master: String },
    #[error("link {link} {what}, which cannot be a port of a bridge: name a NIC, bond or VLAN link")]
    NoPort { link: String, what: &'static str },
    #[error(
        "link {link} is wireless, and an access point takes frames of its own address only: use `mode: ptp`"
    )]
    Wireless { link: String },
    #[error("link {link} is down or has no carrier: bring it up first")]
    Down { link: String },
    #[error(
        "link {link} carries {uppers}, and a link cannot carry those and be a bridge's port: move them to the bridge's place first"
    )]
    Uppers { link: String, uppers: String },
    #[error("link {link} is a pod's: name the node's uplink")]
    PodLink { link: String },
    #[error(
        "link {link} has no address: there is nothing to move; `ip link set {link} master BRIDGE` does it"
    )]
    NoAddress { link: String },
    #[error("a link named {bridge} exists already ({kind}): give --bridge a name that is free")]
    BridgeTaken { bridge: String, kind: String },
    #[error("link {link} is managed by {program}, which would undo the move: {remedy}")]
    Managed { link: String, program: String, remedy: &'static str },
    #[error("link {link}: {source}")]
    Unmovable { link: String, source: Unmovable },
    #[error("link {link} has no gateway that could be probed: give --probe an address that must answer")]
    NothingToProbe { link: String },
    #[error("bridge {bridge} has further ports ({ports}): they would lose their network; delete them first")]
    BridgeInUse { bridge: String, ports: String },
    #[error("{link} is no port of {bridge}, as the record of its join says: see `hostgw uplink status`")]
    NotJoined { link: String, bridge: String },
}

/// What is known about the link before a join.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// All links.
    pub links: &'a [Link],
    /// Every address, route, rule and neighbour.
    pub all: &'a Dumped,
    /// Whether the link is a radio's.
    pub wireless: bool,
    /// Who configures it.
    pub program: Option<&'a Program>,
    /// That program's configuration is changed too, so that it does not undo the move.
    pub persist: bool,
    /// How many addresses were given to be probed.
    pub probes: usize,
}

/// Checks a join; gives the link.
pub fn join<'a>(link: &LinkName, bridge: &LinkName, facts: &Facts<'a>) -> Result<&'a Link, Refusal> {
    let name = link.to_string();
    let Some(found) = facts.links.iter().find(|other| other.name == name) else {
        return Err(Refusal::NoLink { link: name });
    };
    if let Some(master) = found.master {
        let master = facts.links.iter().find(|other| other.index == master);
        let master = master.map_or_else(|| "another link".to_owned(), |master| master.name.clone());
        return Err(Refusal::AlreadyPort { link: name, master });
    }
    if let Some(what) = unfit(found) {
        return Err(Refusal::NoPort { link: name, what });
    }
    if facts.wireless {
        return Err(Refusal::Wireless { link: name });
    }
    let uppers: Vec<_> = facts.links.iter().filter(|other| excludes(other, found)).collect();
    if !uppers.is_empty() {
        let uppers: Vec<_> = uppers.iter().map(|upper| upper.name.as_str()).collect();
        return Err(Refusal::Uppers { link: name, uppers: uppers.join(", ") });
    }
    let reference = LinkRef::from(found);
    let held = Holdings::of(facts.all, &reference);
    let leads_to_pods =
        held.routes.iter().filter_map(|held| held.object.route()).any(|route| route.protocol == POD_ROUTES);
    if leads_to_pods || POD_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(Refusal::PodLink { link: name });
    }
    if !found.is_up() || !found.carrier {
        return Err(Refusal::Down { link: name });
    }
    if let Some(taken) = facts.links.iter().find(|other| other.name == bridge.as_str()) {
        let kind = taken.kind.clone().unwrap_or_else(|| "a physical link".to_owned());
        return Err(Refusal::BridgeTaken { bridge: bridge.to_string(), kind });
    }
    if held.addresses.iter().all(is_link_local) {
        return Err(Refusal::NoAddress { link: name });
    }
    if let Some(program) = facts.program
        && let Some(remedy) = program.objection(facts.persist)
    {
        return Err(Refusal::Managed { link: name, program: program.to_string(), remedy });
    }
    Holdings::movable(facts.all, &reference)
        .map_err(|source| Refusal::Unmovable { link: name.clone(), source })?;
    let gateways = held.routes.iter().any(|held| !held.object.default_gateways().is_empty());
    if facts.probes == 0 && !gateways {
        return Err(Refusal::NothingToProbe { link: name });
    }
    Ok(found)
}

/// Checks a leave: the bridge has no port but the link.
pub fn leave(link: &LinkRef, bridge: &LinkRef, links: &[Link], all: &Dumped) -> Result<(), Refusal> {
    let ports: Vec<_> = links.iter().filter(|other| other.master == Some(bridge.index)).collect();
    if !ports.iter().any(|port| port.index == link.index) {
        return Err(Refusal::NotJoined { link: link.name.clone(), bridge: bridge.name.clone() });
    }
    let others: Vec<_> =
        ports.iter().filter(|port| port.index != link.index).map(|port| port.name.as_str()).collect();
    if !others.is_empty() {
        let shown = others.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        let ports = if others.len() > 4 { format!("{shown} and {} more", others.len() - 4) } else { shown };
        return Err(Refusal::BridgeInUse { bridge: bridge.name.clone(), ports });
    }
    Holdings::movable(all, bridge).map_err(|source| Refusal::Unmovable { link: bridge.name.clone(), source })
}

fn unfit(link: &Link) -> Option<&'static str> {
    if link.flags & LOOPBACK != 0 {
        return Some("is the loopback");
    }
    if link.mac.is_none() {
        return Some("is no Ethernet link");
    }
    match link.kind.as_deref() {
        Some("bridge") => Some("is a bridge itself"),
        Some("ipvlan" | "macvlan") => Some("shares another link's frames"),
        _ => None,
    }
}

fn excludes(upper: &Link, lower: &Link) -> bool {
    let exclusive = upper.kind.as_deref().is_some_and(|kind| EXCLUSIVE_UPPERS.contains(&kind));
    exclusive && upper.peer == Some(lower.index) && upper.peer_netns.is_none()
}

fn is_link_local(object: &crate::object::Object) -> bool {
    object.address().is_some_and(|address| match address.ip {
        ipnet::IpNet::V4(_) => false,
        ipnet::IpNet::V6(ip) => ip.addr().is_unicast_link_local(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins `name` of these links to `br0`; the machine of a test has neither radios nor every driver.
    fn refusal(name: &str, links: &[Link], wireless: bool) -> String {
        let all = Dumped::default();
        let facts = Facts { links, all: &all, wireless, program: None, persist: false, probes: 0 };
        let [link, bridge] = [name, "br0"].map(|name| LinkName::new(name).unwrap());
        join(&link, &bridge, &facts).unwrap_err().to_string()
    }

    fn nic(name: &str) -> Link {
        let mac = Some([2, 0, 0, 0, 0, 1]);
        Link {
            index: 2,
            name: name.to_owned(),
            flags: kernel::link::UP,
            mac,
            carrier: true,
            ..Link::default()
        }
    }

    fn upper(kind: &str) -> Link {
        let kind = Some(kind.to_owned());
        Link { index: 3, name: "up0".to_owned(), kind, peer: Some(2), ..nic("up0") }
    }

    #[test]
    fn each_link_that_cannot_be_a_port_is_refused_by_what_it_is() {
        let of_kind = |kind: &str| Link { kind: Some(kind.to_owned()), ..nic("eth0") };
        let refused = [
            (refusal("wlan0", &[nic("wlan0")], true), "wireless"),
            (refusal("hgw0123456789ab", &[nic("hgw0123456789ab")], false), "is a pod's"),
            (refusal("eth0", &[of_kind("ipvlan")], false), "shares another link's frames"),
            (refusal("eth0", &[of_kind("macvlan")], false), "shares another link's frames"),
            (refusal("eth0", &[of_kind("bridge")], false), "is a bridge itself"),
            (refusal("eth0", &[Link { mac: None, ..nic("eth0") }], false), "no Ethernet link"),
            (refusal("eth0", &[Link { carrier: false, ..nic("eth0") }], false), "no carrier"),
        ];
        for (said, wanted) in refused {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }

    #[test]
    fn links_that_take_all_frames_of_the_link_are_named_and_vlans_may_stay() {
        for kind in EXCLUSIVE_UPPERS {
            let said = refusal("eth0", &[nic("eth0"), upper(kind)], false);
            assert!(said.contains("carries up0"), "{kind}: {said}");
        }
        let of_another_namespace = Link { peer_netns: Some(1), ..upper("macvlan") };
        for harmless in [upper("vlan"), of_another_namespace] {
            assert!(refusal("eth0", &[nic("eth0"), harmless], false).contains("has no address"));
        }
    }
}
