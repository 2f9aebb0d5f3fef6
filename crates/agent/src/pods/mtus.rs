//! Pods whose MTU is another than that of a pod that would come now.

use std::net::IpAddr;

use attachment::{Record, State};
use node_network::observed::{ObservedLink, ObservedNode};
use node_network::pod_mtu::{self, PodLink};
use node_network::{Condition, Family, PerFamily, Settings};

use super::{Records, links_by_name};

/// What an operator should know of the MTUs of our network's pods. Those of other networks have their own configuration.
pub(crate) fn judge_mtus(
    records: &Records,
    observed: &ObservedNode,
    internal_ips: &PerFamily<IpAddr>,
    settings: &Settings,
) -> Vec<Condition> {
    let links = links_by_name(observed);
    let ours = records.entries.iter().filter(|(network, entry)| {
        network.as_str() == settings.cni.network_name && entry.state == State::Attached
    });
    let pods = ours.filter_map(|(_, entry)| {
        let link = links.get(entry.record.wiring.host_link.as_str())?;
        Some(pod_link(&entry.record, link))
    });
    pod_mtu::judge(pods, observed, internal_ips, settings)
}

fn pod_link<'a>(record: &Record, link: &'a ObservedLink) -> PodLink<'a> {
    let wiring = &record.wiring;
    let mut families = PerFamily::default();
    for allocation in &record.addresses {
        families.insert(Family::of_net(&allocation.address), ());
    }
    let name = match &wiring.pod {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None => record.attachment.to_string(),
    };
    PodLink { name, link, families, leased: wiring.leased }
}
