//! ADD: the bridge, the addresses, the port, and what the configuration asks for besides.

use std::path::PathBuf;

use cni_spec::{
    AttachResult, AttachmentCall, BridgeConf, CniError, ErrorCode, Interface, IpFamily, MacAddress, Route,
};
use ipnet::IpNet;
use kernel::link::Link;
use kernel::netlink::{Protocol, Socket};

use super::gateway::{ensure_gateway, first_address};
use super::make::ensure_bridge;
use super::{spoof_check, vlan};
use crate::answer::Answer;
use crate::call::Call;
use crate::failure::{kernel_refused, wiring_failed};
use crate::interface::{self, Belongings, DEFAULT_MTU};
use crate::ipam::Ipam;
use crate::masquerade::Masquerade;
use crate::namespaces::Namespaces;
use crate::wiring::{LinkPlan, Port, Wanted, attach_anew, give_addresses, plan_port};

/// Attaches a pod, and answers with the result.
pub(super) fn add(
    call: &Call<'_>,
    pod: &AttachmentCall<PathBuf>,
    conf: &BridgeConf,
    answer: &mut Answer,
) -> Result<(), CniError> {
    let namespaces = Namespaces::open(&pod.netns, pod.netns_override)?;
    interface::refuse_present(&namespaces, pod)?;
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let bridge = ensure_bridge(conf, &mut host)?;
    let ipam = interface::ipam_of(call.stdin)?;
    let (late, early) = match &ipam {
        Some(ipam) if ipam.asks_on_link() => (Some(ipam), AttachResult::default()),
        Some(ipam) => (None, ipam.add(call, pod, answer)?),
        None => (None, AttachResult::default()),
    };
    let belongings = Belongings { masquerade: conf.interface.ip_masq, spoof_check: conf.mac_spoof_check };
    let ground = Ground { call, pod, conf, bridge: &bridge, namespaces: &namespaces };
    make(&ground, early, late, &mut host, answer)
        .and_then(|result| interface::give(answer, &conf.interface, result))
        .map_err(|error| interface::detach(error, call, pod, (&namespaces.pod, ipam.as_ref()), belongings))
}

/// What a port stands on.
struct Ground<'a> {
    call: &'a Call<'a>,
    pod: &'a AttachmentCall<PathBuf>,
    conf: &'a BridgeConf,
    bridge: &'a Link,
    namespaces: &'a Namespaces,
}

/// Makes what the IPAM plugin's answer and the configuration ask for. `late` is asked only once the link is there.
fn make(
    ground: &Ground<'_>,
    given: AttachResult,
    late: Option<&Ipam>,
    host: &mut Socket,
    answer: &mut Answer,
) -> Result<AttachResult, CniError> {
    let Ground { call, pod, conf, bridge, namespaces } = *ground;
    let (network, attachment) = (&call.base.name, &pod.attachment);
    let given = with_gateways(given, conf);
    let name = interface::host_link_name(network, attachment)
        .map_err(|error| CniError::new(ErrorCode::Internal, error.to_string()))?;
    let alias = interface::alias(network, attachment);
    let wanted = Wanted {
        names: (&name, attachment.ifname()),
        mac: conf.requested_mac(&pod.args).map(MacAddress::octets),
        number: interface::number(network, attachment),
        mtu: conf.interface.mtu.unwrap_or(DEFAULT_MTU),
        alias: alias.as_deref(),
        ips: &given.ips,
        routes: &given.routes,
    };
    let port = Port {
        addresses_follow: late.is_some(),
        hairpin: conf.hairpin,
        isolated: conf.port_isolation,
        detect_duplicates: conf.enable_dad,
        pod_stays_down: conf.disable_container_interface,
    };
    let plan = plan_port(&wanted, &conf.bridge, port);
    // Before the pod's side: a route through a gateway that nobody holds is no use to its first packet.
    let vlan_link = hold_gateways(conf, &given, bridge, host)?;
    let (wired, unready) =
        attach_anew(&plan, Some(bridge), &namespaces.node, &namespaces.pod, host).map_err(wiring_failed)?;
    vlan::configure(conf, wired.host_index, host)?;
    if conf.mac_spoof_check {
        spoof_check::install(attachment, &name, plan.pod_mac).map_err(kernel_refused)?;
    }
    // Its first port may have changed its address.
    let bridge = Link { mac: wired.bridge_mac, ..bridge.clone() };
    let (mut result, vlan_link, unready) = match late {
        None => (given, vlan_link, Some(unready)),
        Some(ipam) => {
            // It asks over the link.
            unready.wait(host).map_err(wiring_failed)?;
            let lent = with_gateways(ipam.add(call, pod, answer)?, conf);
            let vlan_link = hold_gateways(conf, &lent, &bridge, host)?;
            let addressed =
                plan_port(&Wanted { ips: &lent.ips, routes: &lent.routes, ..wanted }, &conf.bridge, port);
            give_addresses(&addressed, wired, &namespaces.node, &namespaces.pod).map_err(wiring_failed)?;
            (lent, vlan_link, None)
        }
    };
    if conf.interface.ip_masq && !result.ips.is_empty() {
        let pods: Vec<IpNet> = result.ips.iter().map(|ip| ip.address).collect();
        Masquerade { network, attachment }.install(conf.interface.ip_masq_backend, &pods)?;
    }
    if let Some(unready) = unready {
        unready.wait(host).map_err(wiring_failed)?;
    }
    result.interfaces = interfaces(&plan, pod, &bridge, vlan_link.as_ref());
    Ok(result)
}

/// The IPAM plugin's answer with the gateways, and the default routes, that the configuration wishes.
fn with_gateways(mut given: AttachResult, conf: &BridgeConf) -> AttachResult {
    for ip in &mut given.ips {
        ip.interface = Some(2);
        if conf.is_gateway {
            ip.gateway = ip.gateway.or_else(|| first_address(ip.address));
        }
    }
    if !conf.is_default_gateway {
        return given;
    }
    for family in IpFamily::BOTH {
        let gateway = given.ips.iter().find(|ip| IpFamily::of(ip.address.addr()) == family);
        let Some(gateway) = gateway.and_then(|ip| ip.gateway) else { continue };
        let default = family.default_route();
        if !given.routes.iter().any(|route| route.gw.is_some() && route.dst == default) {
            given.routes.push(Route::new(default, Some(gateway)));
        }
    }
    given
}

/// Gives the bridge, or its link in the VLAN, the pod's gateways, and turns forwarding on; that link.
fn hold_gateways(
    conf: &BridgeConf,
    result: &AttachResult,
    bridge: &Link,
    host: &mut Socket,
) -> Result<Option<Link>, CniError> {
    if !conf.is_gateway || result.ips.is_empty() {
        return Ok(None);
    }
    let vlan_link = match conf.vlan {
        Some(id) => Some(vlan::ensure_gateway_link(conf, bridge, id, host)?),
        None => None,
    };
    let holder = vlan_link.as_ref().unwrap_or(bridge);
    let mut held: Vec<IpNet> = Vec::new();
    for ip in &result.ips {
        let gateway = ip.gateway.and_then(|gateway| IpNet::new(gateway, ip.address.prefix_len()).ok());
        let Some(gateway) = gateway.filter(|gateway| !held.contains(gateway)) else { continue };
        ensure_gateway(holder, gateway, conf.force_address, host)?;
        held.push(gateway);
    }
    interface::enable_forwarding(held.iter().map(|gateway| IpFamily::of(gateway.addr())), host)?;
    Ok(vlan_link)
}

/// The links of the result: bridge, node's end, pod's end, and the bridge's link in the VLAN.
fn interfaces(
    plan: &LinkPlan,
    pod: &AttachmentCall<PathBuf>,
    bridge: &Link,
    vlan_link: Option<&Link>,
) -> Vec<Interface> {
    let told = |link: &Link| Interface {
        name: link.name.clone(),
        mac: link.mac.and_then(|mac| MacAddress::new(mac).ok()).map(String::from),
        ..Interface::default()
    };
    let mut interfaces = vec![told(bridge)];
    interfaces.extend(interface::ends(plan, &pod.netns));
    interfaces.extend(vlan_link.map(told));
    interfaces
}
