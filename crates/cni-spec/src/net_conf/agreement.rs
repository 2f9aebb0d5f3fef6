//! Whether the parts of a configuration go together: each is good by itself here, and is refused for what another says.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Mode;
use crate::address::IpFamily;
use crate::capability::Capabilities;
use crate::dhcp_conf::DefaultRoute;
use crate::error::CniError;
use crate::field::Field;
use crate::ipam_conf::IpamConf;
use crate::route::Route;

/// On a bridge and on a LAN the ends of an IPv4 subnet mean everybody; where pods are neighbours of each other, the
/// gateway is one, too.
pub(super) fn fits_segment(conf: &Field<'_, '_>, mode: Mode, ipam: &IpamConf) -> Result<(), CniError> {
    for range in ipam.range_sets.ranges() {
        let subnet = range.subnet();
        let reserved = |address: &IpAddr| {
            *address == subnet.network() || subnet.addr().is_ipv4() && *address == subnet.broadcast()
        };
        let gateway = match mode {
            Mode::Bridge => Some(range.gateway()),
            Mode::L2 => range.given_gateway(),
            Mode::Ptp | Mode::L2Routed => None,
        };
        let fault = if let Some(gateway) = gateway.filter(|gateway| !subnet.contains(gateway)) {
            format!("gateway {gateway} is not in {subnet}; put it there")
        } else if let Some(gateway) = gateway.filter(reserved) {
            format!("gateway {gateway} is the network or broadcast address of {subnet}; give another")
        } else if let Some(end) = [range.start(), range.end()].into_iter().find(reserved) {
            format!("{end} is the network or broadcast address of {subnet}; narrow the range")
        } else {
            continue;
        };
        let mode = mode.as_str();
        return Err(conf.refuse_key_because("ipam", format!("mode `{mode}`: {fault}, or use mode `ptp`")));
    }
    Ok(())
}

/// Whether pods of this mode are where a DHCP server lends addresses.
pub(super) fn dhcp(conf: &Field<'_, '_>, mode: Mode, ipam: &IpamConf) -> Result<(), CniError> {
    let Some(dhcp) = &ipam.dhcp else { return Ok(()) };
    match (mode, dhcp.default_route) {
        (Mode::Ptp, _) => Err(conf.refuse_key_because(
            "ipam",
            "addresses of type `dhcp` are the LAN's, of which pods of mode `ptp` are no hosts; use mode `l2-routed`, `l2` \
             or `bridge`",
        )),
        (Mode::L2Routed, Some(DefaultRoute::Router)) => Err(conf.refuse_key_because(
            "ipam",
            "`defaultRoute` is `router`, but pods of mode `l2-routed` send everything to their node; remove the key, or \
             use mode `l2`",
        )),
        _ => Ok(()),
    }
}

/// Whether pods of this mode are where a router announces prefixes, and the rest of what goes with these.
pub(super) fn slaac(conf: &Field<'_, '_>, mode: Mode, ipam: &IpamConf) -> Result<(), CniError> {
    if mode.is_of_lan() {
        return Ok(());
    }
    let beside_dhcp = ipam.dhcp.is_some() && ipam.range_sets.has_family(IpFamily::V6);
    let what = match (ipam.slaac, beside_dhcp) {
        (Some(_), _) => "`slaac`: a router announces its prefixes to hosts of the LAN",
        (None, true) => "`ranges` beside a DHCP server's addresses are of the LAN",
        (None, false) => return Ok(()),
    };
    Err(conf.refuse_key_because(
        "ipam",
        format!("{what}, which pods of mode `{}` are not; use mode `l2-routed` or `l2`", mode.as_str()),
    ))
}

/// A route's next hop is looked for beside the pod's address of the same family.
pub(super) fn routes(conf: &Field<'_, '_>, routes: &[Route], ipam: &IpamConf) -> Result<(), CniError> {
    let mut keys = Vec::with_capacity(routes.len());
    for route in routes {
        if !ipam.has_family(route.family()) {
            return Err(conf.refuse_key_because(
                "routes",
                format!(
                    "{} is {}, but no range is; remove the route, or add a range",
                    route.dst,
                    route.family()
                ),
            ));
        }
        keys.push((route.dst, route.effective_table(), route.effective_priority()));
    }
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair.first() == pair.get(1)) {
        Some([(dst, ..), ..]) => Err(conf.refuse_key_because(
            "routes",
            format!("{dst} is routed twice in one table with one priority; remove one"),
        )),
        _ => Ok(()),
    }
}

/// What is on the pod's link is reached without a next hop: on a bridge the subnets, else the gateways.
pub(super) fn on_link(
    conf: &Field<'_, '_>,
    mode: Mode,
    routes: &[Route],
    ipam: &IpamConf,
) -> Result<(), CniError> {
    let on_link = |dst: IpNet| {
        ipam.range_sets.ranges().any(|range| match mode {
            Mode::Bridge | Mode::L2 => range.subnet() == dst,
            Mode::Ptp => IpNet::from(range.gateway()) == dst,
            Mode::L2Routed => range.given_gateway().is_some_and(|gateway| IpNet::from(gateway) == dst),
        })
    };
    let contradicts =
        |route: &&Route| route.gw.is_some() && route.is_as_near_as_the_link() && on_link(route.dst);
    let Some(route) = routes.iter().find(contradicts) else { return Ok(()) };
    let what = if mode.is_routed() { "the pods' gateway" } else { "the pods' own subnet" };
    let mode = mode.as_str();
    Err(conf.refuse_key_because(
        "routes",
        format!(
            "mode `{mode}`: {} is {what}, which they reach without a next hop; remove the route, or only its `gw`",
            route.dst
        ),
    ))
}

pub(super) fn host_ips(
    conf: &Field<'_, '_>,
    capabilities: &Capabilities,
    ipam: &IpamConf,
) -> Result<(), CniError> {
    for mapping in &capabilities.port_mappings {
        if let Some(host_ip) = mapping.host_ip
            && !ipam.has_family(IpFamily::of(host_ip))
        {
            return Err(conf.refuse_key_because(
                "runtimeConfig",
                format!(
                    "host port {} {} of {host_ip} is {}, but no range is; use a hostIP of the pod's family",
                    mapping.protocol,
                    mapping.host_port,
                    IpFamily::of(host_ip)
                ),
            ));
        }
    }
    Ok(())
}

pub(super) fn loopback(
    conf: &Field<'_, '_>,
    capabilities: &Capabilities,
    localhost_ports: bool,
) -> Result<(), CniError> {
    for mapping in &capabilities.port_mappings {
        if let Some(host_ip) = mapping.host_ip.filter(IpAddr::is_loopback)
            && !localhost_ports
        {
            return Err(conf.refuse_key_because(
                "runtimeConfig",
                format!(
                    "host port {} {} has the hostIP {host_ip}, and host ports are not opened on loopback: use another \
                     address of the host, or set `localhostPorts`",
                    mapping.protocol, mapping.host_port
                ),
            ));
        }
    }
    Ok(())
}
