//! A store that is new, because the node booted or because the old one was lost (a tmpfs mounted again, a folder
//! deleted): what pods that live already hold is claimed for them, before anything is handed out.
//!
//! Such a pod gets a stand-in's record, named after its link, which is all that is known of it. That record ends with
//! the link, as any other does; the pod's own DEL finds it.

use std::net::IpAddr;

use attachment::{
    Attachment, HostPort, Mode, Netns, NetworkName, Range, Request, ReserveError, Store, Wiring,
};
use kernel::link;
use kernel::netlink::Socket;
use link_name::LinkName;

use crate::answer::Answer;
use crate::host_ports;
use crate::living::{LivingPod, living_pods};
use crate::wiring::host_link_name;

/// What begins the container id of a stand-in; the name of the link follows.
const STAND_IN: &str = "lost-";

/// What of the node goes into a stand-in's record.
pub(super) struct Node<'a> {
    pub(super) range_sets: &'a [Vec<Range>],
    pub(super) addresses: Vec<IpAddr>,
    /// How this network's pods are wired.
    pub(super) mode: Mode,
    pub(super) boot_id: &'a str,
    pub(super) now: u64,
}

/// Claims for the living, unless that was done since the store was made. Two that do so at once claim the same. What
/// fails is told, and tried again by the next ADD: a pod route that exists refuses a second pod all the same.
pub(super) fn survey(store: &Store, node: &Node<'_>, host: &mut Socket, answer: &mut Answer) {
    match store.is_surveyed() {
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => return answer.warn(&error.to_string()),
    }
    let pods = match living_pods(host) {
        Ok(pods) => pods,
        Err(error) => return answer.warn(&format!("which pods live already is not known: {error}")),
    };
    let mut complete = true;
    for pod in &pods {
        match claim_for(store, node, pod, host) {
            Ok(None) => {}
            Ok(Some(addresses)) => answer.warn(&format!(
                "the record of the pod behind link {} was lost: {addresses:?} are claimed for it",
                pod.link.name
            )),
            Err(error) => {
                complete = false;
                answer.warn(&format!("failed to claim what the pod behind {} holds: {error}", pod.link.name));
            }
        }
    }
    if complete && let Err(error) = store.mark_surveyed() {
        answer.warn(&error.to_string());
    }
}

/// The attachment that stands in for one whose record was lost.
pub(super) fn stand_in(network: &NetworkName, attachment: &Attachment) -> Option<Attachment> {
    stand_in_of(&host_link_name(network, attachment), attachment.ifname().as_str())
}

/// Whether this is a stand-in, of which a runtime knows nothing.
pub(super) fn is_stand_in(attachment: &Attachment) -> bool {
    attachment.container_id().starts_with(STAND_IN)
}

fn stand_in_of(link: &LinkName, ifname: &str) -> Option<Attachment> {
    format!("{STAND_IN}{link}:{ifname}").parse().ok()
}

/// The addresses that were claimed; none where nothing of this network's ranges is the pod's, or all has an owner.
fn claim_for(
    store: &Store,
    node: &Node<'_>,
    pod: &LivingPod,
    host: &mut Socket,
) -> Result<Option<Vec<IpAddr>>, Box<dyn std::error::Error>> {
    let mut range_sets = Vec::new();
    let mut requested = Vec::new();
    for address in pod.addresses.iter().map(ipnet::IpNet::addr) {
        let holds = |set: &&Vec<Range>| set.iter().any(|range| range.addresses.contains(address));
        if let Some(set) = node.range_sets.iter().find(holds) {
            range_sets.push(set.clone());
            requested.push(address);
        }
    }
    let host_link = LinkName::new(&pod.link.name)?;
    // Of the interface's name nothing is known either; a pod has one of ours, as a rule.
    let Some(attachment) = stand_in_of(&host_link, "eth0").filter(|_| !requested.is_empty()) else {
        return Ok(None);
    };
    let ports = host_ports::leading_to(&requested)?;
    let mode = match pod.link.master {
        Some(bridge) => match link::by_index(host, bridge)? {
            Some(bridge) if node.mode.bridge().is_some_and(|own| own.as_str() == bridge.name) => {
                node.mode.clone()
            }
            Some(bridge) => Mode::Bridge(LinkName::new(bridge.name)?),
            None => return Ok(None),
        },
        None if node.mode.bridge().is_none() => node.mode.clone(),
        None => Mode::Ptp,
    };
    let wiring = Wiring {
        netns: Netns { path: String::new(), dev: 0, inode: 0 },
        boot_id: node.boot_id.to_owned(),
        host_link,
        mode,
        pod_mac: None,
        host_mac: pod.link.mac.and_then(|mac| attachment::MacAddress::new(mac).ok()),
        mtu: pod.link.mtu,
        node_addresses: node.addresses.clone(),
        pod_routes: Vec::new(),
        leased: false,
        bandwidth: None,
        pod: None,
        result: None,
    };
    let reserve = |host_ports: &[HostPort]| {
        let request =
            Request { attachment: &attachment, range_sets: &range_sets, requested: &requested, host_ports };
        store.reserve(&request, node.now, |_| wiring.clone())
    };
    let reserved = match reserve(&ports) {
        // Somebody was quicker; the address is the pod's all the same.
        Err(ReserveError::HostPortTaken { .. }) => reserve(&[]),
        other => other,
    };
    match reserved {
        Ok(reservation) => {
            reservation.mark_attached()?;
            Ok(Some(requested))
        }
        // It has a record after all, or the configuration hands such addresses to nobody.
        Err(
            ReserveError::AddressTaken { .. }
            | ReserveError::AttachmentExists { .. }
            | ReserveError::Excluded { .. }
            | ReserveError::SecondOfSet { .. },
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
