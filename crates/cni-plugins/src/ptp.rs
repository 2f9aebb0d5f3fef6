//! The plugin `ptp`, as a drop-in for the reference's: each pod on a routed link of its own.

use std::path::PathBuf;

use cni_spec::{AttachResult, AttachmentCall, CallEnvironment, CniError, ErrorCode, InterfaceConf, IpFamily};
use ipnet::IpNet;
use kernel::netlink::{Protocol, Socket};

use crate::answer::Answer;
use crate::call::Call;
use crate::failure::{kernel_refused, wiring_failed};
use crate::inspection::gateway_difference;
use crate::interface::{self, Belongings, DEFAULT_MTU, Place};
use crate::masquerade::Masquerade;
use crate::namespaces::Namespaces;
use crate::wiring::{PodAddress, Wanted, attach_anew, host_route, plan_routed};

/// Serves one call of the plugin.
pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    match call.environment {
        CallEnvironment::Add(pod) => add(call, pod, &InterfaceConf::parse(call.stdin)?, answer),
        CallEnvironment::Check(pod) => check(call, pod, &InterfaceConf::parse(call.stdin)?),
        CallEnvironment::Del(pod) => interface::del(call, pod, false),
        CallEnvironment::Gc => interface::gc(call, Some(&Place::Routed), false, answer),
        CallEnvironment::Status => interface::status(call),
        CallEnvironment::Version => Ok(()),
    }
}

fn add(
    call: &Call<'_>,
    pod: &AttachmentCall<PathBuf>,
    conf: &InterfaceConf,
    answer: &mut Answer,
) -> Result<(), CniError> {
    let namespaces = Namespaces::open(&pod.netns, pod.netns_override)?;
    interface::refuse_present(&namespaces, pod)?;
    let Some(ipam) = interface::ipam_of(call.stdin)? else {
        return Err(CniError::new(
            ErrorCode::InvalidNetworkConfig,
            "`ipam.type` is missing: a routed pod has addresses; name the plugin that gives them",
        ));
    };
    if ipam.asks_on_link() {
        return Err(CniError::new(
            ErrorCode::InvalidNetworkConfig,
            "`ipam.type` is `dhcp`, but no server of the LAN is on a routed link, nor can the reference's `ptp` ask one; \
             use `bridge`, or type `hostgw` in mode `l2-routed`",
        ));
    }
    let given = ipam.add(call, pod, answer)?;
    let belongings = Belongings { masquerade: conf.ip_masq, spoof_check: false };
    make(call, pod, conf, given, &namespaces)
        .and_then(|result| interface::give(answer, conf, result))
        .map_err(|error| interface::detach(error, call, pod, (&namespaces.pod, Some(&ipam)), belongings))
}

/// Makes the link that the IPAM plugin's answer asks for.
fn make(
    call: &Call<'_>,
    pod: &AttachmentCall<PathBuf>,
    conf: &InterfaceConf,
    given: AttachResult,
    namespaces: &Namespaces,
) -> Result<AttachResult, CniError> {
    if let Some(ip) = given.ips.iter().find(|ip| ip.gateway.is_none()) {
        return Err(CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!(
                "address {} of the IPAM plugin has no gateway, which the node's end of the link holds: give one",
                ip.address
            ),
        ));
    }
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let families = given.ips.iter().map(|ip| IpFamily::of(ip.address.addr()));
    interface::enable_forwarding(families, &mut host)?;
    let (network, attachment) = (&call.base.name, &pod.attachment);
    let name = interface::host_link_name(network, attachment)
        .map_err(|error| CniError::new(ErrorCode::Internal, error.to_string()))?;
    let alias = interface::alias(network, attachment);
    let plan = plan_routed(&Wanted {
        names: (&name, attachment.ifname()),
        mac: None,
        number: interface::number(network, attachment),
        mtu: conf.mtu.unwrap_or(DEFAULT_MTU),
        alias: alias.as_deref(),
        ips: &given.ips,
        routes: &given.routes,
    });
    let (_, unready) =
        attach_anew(&plan, None, &namespaces.node, &namespaces.pod, &mut host).map_err(wiring_failed)?;
    if conf.ip_masq {
        let pods: Vec<IpNet> = given.ips.iter().map(|ip| ip.address).collect();
        Masquerade { network, attachment }.install(conf.ip_masq_backend, &pods)?;
    }
    unready.wait(&mut host).map_err(wiring_failed)?;
    let mut result = AttachResult { interfaces: interface::ends(&plan, &pod.netns).to_vec(), ..given };
    for ip in &mut result.ips {
        ip.interface = Some(1);
    }
    Ok(result)
}

fn check(call: &Call<'_>, pod: &AttachmentCall<PathBuf>, conf: &InterfaceConf) -> Result<(), CniError> {
    let mut checked = interface::check(call, pod, conf, true)?;
    if let Some(link) = &checked.host_link {
        for ip in &checked.expected.ips {
            let Some(gateway) = ip.gateway else { continue };
            let gone = gateway_difference(IpNet::from(gateway), link, &checked.node);
            checked.differences.extend(gone);
            let address = PodAddress { subnet: ip.address, gateway, node_address: None };
            let wanted = host_route(&address);
            let is_there = checked.node.routes.iter().any(|found| {
                found.destination == wanted.destination
                    && found.hops.iter().any(|hop| hop.index == Some(link.index))
            });
            if !is_there {
                checked.differences.push(format!("the node's route to {} is gone", ip.address.addr()));
            }
        }
    }
    checked.verdict(call)
}
