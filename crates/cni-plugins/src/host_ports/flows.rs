//! Tracked flows that would go past a host port, or outlive it. TCP flows have a beginning to wait for; UDP and SCTP
//! ones may go on for as long as their client sends.

use std::net::IpAddr;

use attachment::{HostPort, Protocol, Record};
use kernel::KernelError;
use kernel::netlink::{self, Socket};
use kernel::route::{self, RouteKind};
use kernel::{conntrack, link};

use super::HostPortError;
use super::elements::number;
use super::publish::failure;

/// Flows that were there before the port was opened go on past it.
pub(super) fn forget_old_flows(record: &Record, socket: &mut Socket) -> Result<(), HostPortError> {
    for port in &record.host_ports {
        for allocation in &record.addresses {
            forget_flows_to(port, allocation.address.addr(), socket)
                .map_err(|cause| failure("forget old flows to", record, cause))?;
        }
    }
    Ok(())
}

/// The same for one port, and the family of one address.
pub(crate) fn forget_flows_to(port: &HostPort, pod: IpAddr, socket: &mut Socket) -> Result<(), KernelError> {
    if port.protocol == Protocol::Tcp || port.host_ip.is_some_and(|ip| ip.is_ipv4() != pod.is_ipv4()) {
        return Ok(());
    }
    let host_ip = port.host_ip.filter(|ip| !ip.is_unspecified());
    let meant = |destination| host_ip.map_or_else(|| is_host_port(destination), |ip| ip == destination);
    conntrack::delete_to_port(socket, family(pod), number(port.protocol), port.host_port.get(), meant)
        .map(drop)
}

/// Whether a flow to this address is one to the node, as the table's rules judge it: an address of the node, but none
/// of a dummy link. Asked only where there are flows, which is seldom.
fn is_host_port(destination: IpAddr) -> bool {
    let Ok(mut socket) = Socket::open(netlink::Protocol::Route) else { return false };
    let Ok(route) = route::look_up(&mut socket, destination, None) else { return false };
    if route.kind != RouteKind::Local {
        return false;
    }
    let holder = route.hops.first().and_then(|hop| hop.index);
    let link = holder.and_then(|index| link::by_index(&mut socket, index).ok().flatten());
    link.is_none_or(|link| link.kind.as_deref() != Some("dummy"))
}

/// Flows that lead to the pod would lead to whoever gets its address next.
pub(super) fn forget_own_flows(record: &Record, socket: &mut Socket) -> Result<(), HostPortError> {
    for port in record.host_ports.iter().filter(|port| port.protocol != Protocol::Tcp) {
        for allocation in &record.addresses {
            let pod = allocation.address.addr();
            forget_flows_from(pod, number(port.protocol), port.container_port.get(), socket)
                .map_err(|cause| failure("forget flows of", record, cause))?;
        }
    }
    Ok(())
}

/// The same for one of its ports; `protocol` is `IPPROTO_…`.
pub(crate) fn forget_flows_from(
    pod: IpAddr,
    protocol: u8,
    port: u16,
    socket: &mut Socket,
) -> Result<(), KernelError> {
    conntrack::delete_replies_from(socket, pod, protocol, port).map(drop)
}

fn family(ip: IpAddr) -> route::Family {
    if ip.is_ipv4() { route::Family::V4 } else { route::Family::V6 }
}
