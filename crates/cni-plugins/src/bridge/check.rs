//! CHECK: besides what every link has, the bridge and the pod's port of it.

use std::path::PathBuf;

use cni_spec::{AttachmentCall, BridgeConf, CniError};
use ipnet::IpNet;
use kernel::link::{Link, PROMISCUOUS};

use super::spoof_check;
use crate::call::Call;
use crate::failure::kernel_refused;
use crate::inspection::{Place, Side, difference, gateway_difference};
use crate::interface::{self, Checked, mac_difference};
use crate::wiring::Step;

/// Verifies all of it.
pub(super) fn check(
    call: &Call<'_>,
    pod: &AttachmentCall<PathBuf>,
    conf: &BridgeConf,
) -> Result<(), CniError> {
    let mut checked = interface::check(call, pod, &conf.interface, !conf.disable_container_interface)?;
    let found = bridge_differences(conf, &checked);
    checked.differences.extend(found);
    if conf.mac_spoof_check
        && let Some(link) = &checked.host_link
        && !spoof_check::is_installed(&pod.attachment, &link.name).map_err(kernel_refused)?
    {
        checked.differences.push("what checks the Ethernet address that it sends with is gone".to_owned());
    }
    checked.verdict(call)
}

fn bridge_differences(conf: &BridgeConf, checked: &Checked) -> Vec<String> {
    let name = &conf.bridge;
    let Some(bridge) = checked.node.link(name.as_str()) else {
        return vec![format!("bridge `{name}` is gone")];
    };
    let mut differences = Vec::new();
    let told = checked.expected.interfaces.iter().find(|it| it.sandbox.is_none() && it.name == name.as_str());
    match told {
        Some(told) => differences.extend(mac_difference(&format!("bridge `{name}`"), told, bridge)),
        None => differences.push(format!("`prevResult` says nothing of bridge `{name}`")),
    }
    differences.extend(difference(&Step::Up, bridge, &checked.node, Place::Node));
    if (bridge.flags & PROMISCUOUS != 0) != conf.promiscuous {
        let not = if conf.promiscuous { " not" } else { "" };
        differences.push(format!("bridge `{name}` is{not} promiscuous"));
    }
    let Some(link) = &checked.host_link else { return differences };
    if link.master != Some(bridge.index) {
        differences.push(format!("link `{}` is no port of bridge `{name}`", link.name));
    }
    let steps = conf.hairpin.then_some(Step::Hairpin).into_iter();
    let steps = steps.chain(conf.port_isolation.then_some(Step::Isolated));
    differences.extend(steps.filter_map(|step| difference(&step, link, &checked.node, Place::Node)));
    if conf.is_gateway {
        differences.extend(gateway_differences(conf, bridge, checked));
    }
    differences
}

/// The holder of the gateways must hold them.
fn gateway_differences(conf: &BridgeConf, bridge: &Link, checked: &Checked) -> Vec<String> {
    let node: &Side = &checked.node;
    let holder = match conf.vlan {
        Some(id) => node.link(&format!("{}.{id}", conf.bridge)),
        None => Some(bridge),
    };
    let Some(holder) = holder else { return vec!["the bridge's link into the VLAN is gone".to_owned()] };
    let gateways =
        checked.expected.ips.iter().filter_map(|ip| IpNet::new(ip.gateway?, ip.address.prefix_len()).ok());
    gateways.filter_map(|gateway| gateway_difference(gateway, holder, node)).collect()
}
