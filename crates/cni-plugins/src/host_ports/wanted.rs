//! From what a runtime asks for to host ports.

use std::net::Ipv4Addr;

use attachment::HostPort;
use cni_spec::PortMapping;

/// The host ports that are asked for. With `on_localhost`, one on all addresses of IPv4 is one on 127.0.0.1 too, which the
/// rules for all addresses leave out.
pub(crate) fn wanted(mappings: &[PortMapping], on_localhost: bool) -> Vec<HostPort> {
    let port = |mapping: &PortMapping| {
        Some(HostPort {
            protocol: mapping.protocol,
            host_ip: mapping.host_ip,
            host_port: mapping.host_port.try_into().ok()?,
            container_port: mapping.container_port.try_into().ok()?,
        })
    };
    let mut ports: Vec<HostPort> = mappings.iter().filter_map(port).collect();
    if on_localhost {
        let on_all = |port: &&HostPort| port.host_ip.is_none_or(|ip| ip == Ipv4Addr::UNSPECIFIED);
        let local = |port: &HostPort| HostPort { host_ip: Some(Ipv4Addr::LOCALHOST.into()), ..port.clone() };
        let on_localhost: Vec<HostPort> = ports.iter().filter(on_all).map(local).collect();
        // Where a mapping is for 127.0.0.1 itself, it goes before one for all.
        let is_new = |port: &HostPort| {
            let same = |given: &HostPort| {
                (given.protocol, given.host_ip, given.host_port)
                    == (port.protocol, port.host_ip, port.host_port)
            };
            !ports.iter().any(same)
        };
        let fresh: Vec<HostPort> = on_localhost.into_iter().filter(is_new).collect();
        ports.extend(fresh);
    }
    ports
}
