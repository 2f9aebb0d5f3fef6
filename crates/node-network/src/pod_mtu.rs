//! Whether pods' links carry what their node's uplink does. A pod keeps the MTU of its ADD when the uplink's changes, and
//! nobody but whoever recreates it can change that.

use std::net::IpAddr;

use cni_spec::{MAX_MTU, MIN_MTU_V6};

use crate::condition::{Condition, MtuCondition};
use crate::family::{Family, PerFamily};
use crate::observed::{LinkKind, ObservedLink, ObservedNode};
use crate::settings::Settings;

/// A pod and its link.
#[derive(Clone, Debug)]
pub struct PodLink<'a> {
    /// The pod, as people know it.
    pub name: String,
    /// The node's end.
    pub link: &'a ObservedLink,
    /// The families of its addresses.
    pub families: PerFamily<()>,
    /// Its MTU may be a DHCP server's.
    pub leased: bool,
}

/// What an operator should know of the pods' MTUs; nothing where this node's uplink is not known.
#[must_use]
pub fn judge<'a>(
    pods: impl IntoIterator<Item = PodLink<'a>>,
    observed: &ObservedNode,
    internal_ips: &PerFamily<IpAddr>,
    settings: &Settings,
) -> Vec<Condition> {
    let mut uplinks = PerFamily::default();
    for family in Family::BOTH {
        if let Some(uplink) = uplink(family, observed, internal_ips) {
            uplinks.insert(family, Uplink { link: uplink, narrowest: narrowest(uplink, observed) });
        }
    }
    let (mut above, mut below) = (Found::default(), Found::default());
    for pod in pods {
        let Some(path) = path_of(&pod, &uplinks, observed, settings) else { continue };
        if pod.link.mtu > path.fits {
            above.add(pod, path);
        } else if pod.link.mtu < path.new && !pod.leased {
            below.add(pod, path);
        }
    }
    let above = above.example.map(|(pod, path)| MtuCondition::PodsAboveUplink {
        pods: above.pods,
        example: pod.name,
        mtu: pod.link.mtu,
        link: path.narrowest.name.clone(),
        link_mtu: path.narrowest.mtu,
        setting: (path.new > path.fits).then_some(path.fits),
    });
    let below = below.example.map(|(pod, path)| MtuCondition::PodsBelowUplink {
        pods: below.pods,
        example: pod.name,
        mtu: pod.link.mtu,
        new: path.new,
    });
    above.into_iter().chain(below).map(Condition::Mtu).collect()
}

/// Pods of which the same is to be told.
#[derive(Default)]
struct Found<'a> {
    pods: usize,
    example: Option<(PodLink<'a>, Path<'a>)>,
}

impl<'a> Found<'a> {
    /// The first by name is the example, so that it is the same after each look.
    fn add(&mut self, pod: PodLink<'a>, path: Path<'a>) {
        self.pods += 1;
        if self.example.as_ref().is_none_or(|(example, _)| pod.name < example.name) {
            self.example = Some((pod, path));
        }
    }
}

/// How packets of a family leave the node.
struct Uplink<'a> {
    /// The link with the node's address; ADD takes its MTU.
    link: &'a ObservedLink,
    /// The same, or the port of it that carries less.
    narrowest: &'a ObservedLink,
}

/// What a pod's packets meet.
struct Path<'a> {
    narrowest: &'a ObservedLink,
    /// The most that a pod may have without sending what the uplink does not carry, in bytes.
    fits: u32,
    /// What a new pod would get, in bytes.
    new: u32,
}

/// The link that holds the node's address, or by which its default route leads where that is none to a network; as the
/// plugin has it.
fn uplink<'a>(
    family: Family,
    observed: &'a ObservedNode,
    internal_ips: &PerFamily<IpAddr>,
) -> Option<&'a ObservedLink> {
    if internal_ips.is_empty() {
        return None;
    }
    let holder = internal_ips.get(family).and_then(|ip| observed.holder_of(*ip)).map(|(link, _)| link);
    let leads_on = |link: &&ObservedLink| !matches!(link.kind, LinkKind::Loopback | LinkKind::Dummy);
    holder.filter(leads_on).or_else(|| observed.default_route_link(family))
}

/// A bridge drops without a word what does not fit its port. Only those to a network are asked: what containers and VMs
/// take is their own affair.
fn narrowest<'a>(uplink: &'a ObservedLink, observed: &'a ObservedNode) -> &'a ObservedLink {
    let is_port = |port: &&ObservedLink| {
        uplink.kind == LinkKind::Bridge && port.master == Some(uplink.index) && port.kind == LinkKind::Other
    };
    let narrower = observed.links.values().filter(is_port).min_by_key(|port| port.mtu);
    narrower.filter(|port| port.mtu < uplink.mtu).unwrap_or(uplink)
}

fn path_of<'a>(
    pod: &PodLink<'_>,
    uplinks: &PerFamily<Uplink<'a>>,
    observed: &ObservedNode,
    settings: &Settings,
) -> Option<Path<'a>> {
    let of_pod = || pod.families.iter().filter_map(|(family, ())| uplinks.get(family));
    let narrowest = of_pod().map(|uplink| uplink.narrowest).min_by_key(|link| link.mtu)?;
    let uplinks_mtu = of_pod().map(|uplink| uplink.link.mtu.min(MAX_MTU)).min()?;
    // No pod with IPv6 can have less, whatever its uplink has.
    let least = pod.families.get(Family::Ipv6).map_or(0, |()| MIN_MTU_V6);
    let new = match settings.mtu {
        0 if uplinks_mtu < least => bridges_mtu(observed, settings).unwrap_or(least).max(least),
        0 => uplinks_mtu,
        set => set,
    };
    Some(Path { narrowest, fits: narrowest.mtu.max(least), new })
}

/// What a pod gets whose uplink is too small for it.
fn bridges_mtu(observed: &ObservedNode, settings: &Settings) -> Option<u32> {
    let name = settings.pod_bridge()?;
    observed.links.values().find(|link| link.name == name).map(|bridge| bridge.mtu)
}

#[cfg(test)]
mod tests;
