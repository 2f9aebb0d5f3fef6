//! Whether somebody on the node listens on a port that a pod wants: it would be cut off without a word.

use std::net::{IpAddr, SocketAddr};

use attachment::{HostPort, Protocol};
use cni_spec::{CniError, ErrorCode, ListenerCheck};
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};

use crate::answer::Answer;

/// Refuses host ports on which a socket of the node listens, or only tells of them, as configured. `addresses` are the
/// node's, in the pod's families.
pub(crate) fn refuse_listened(
    ports: &[HostPort],
    addresses: &[IpAddr],
    check: ListenerCheck,
    answer: &mut Answer,
) -> Result<(), CniError> {
    if check == ListenerCheck::Off {
        return Ok(());
    }
    for port in ports {
        if !is_listened(port, addresses) {
            continue;
        }
        let msg = format!(
            "host port {port} is taken by a program that listens on the node: stop it, use another port, or set \
             `hostPortListenerCheck` to \"warn\""
        );
        match check {
            ListenerCheck::Refuse => return Err(CniError::new(ErrorCode::HostPortTaken, msg)),
            ListenerCheck::Warn | ListenerCheck::Off => answer.warn(&msg),
        }
    }
    Ok(())
}

/// On all addresses means on any that others reach the node by: a program that listens on loopback alone, as resolvers
/// do, loses nothing.
fn is_listened(port: &HostPort, addresses: &[IpAddr]) -> bool {
    let number = port.host_port.get();
    match port.host_ip {
        Some(ip) if !ip.is_unspecified() => cannot_bind(port.protocol, SocketAddr::new(ip, number)),
        all => addresses
            .iter()
            .filter(|address| all.is_none_or(|all| all.is_ipv4() == address.is_ipv4()))
            .any(|address| cannot_bind(port.protocol, SocketAddr::new(*address, number))),
    }
}

/// Binding is the kernel's own answer to "is it free?". Only "in use" counts: an address that is not the node's, or a
/// protocol that this kernel has no sockets for (SCTP), cannot be listened on either.
fn cannot_bind(protocol: Protocol, address: SocketAddr) -> bool {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => SocketType::STREAM,
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let number = match protocol {
        Protocol::Tcp => Some(ipproto::TCP),
        Protocol::Udp => Some(ipproto::UDP),
        Protocol::Sctp => Some(ipproto::SCTP),
    };
    let Ok(socket) = socket_with(family, kind, SocketFlags::CLOEXEC, number) else { return false };
    if address.is_ipv6() && set_ipv6_v6only(&socket, true).is_err() {
        return false;
    }
    // With it, connections that use the port as their own end do not count, only those who listen.
    if protocol == Protocol::Tcp && set_socket_reuseaddr(&socket, true).is_err() {
        return false;
    }
    bind(&socket, &address) == Err(Errno::ADDRINUSE)
}
