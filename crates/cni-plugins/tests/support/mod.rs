//! Fresh network namespaces for tests: every test is alone in its own, and refuses to run in the machine's.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

pub(crate) mod chain;
pub(crate) mod cut;
pub(crate) mod dhcp_server;
pub(crate) mod drop_in_host;
pub(crate) mod firewalld;
pub(crate) mod lan;
pub(crate) mod node;
pub(crate) mod plugin;
pub(crate) mod ports;
pub(crate) mod scene;
pub(crate) mod sweep;
pub(crate) mod tracer;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use kernel::link;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::sysctl::Sysctls;
use rustix::thread::UnshareFlags;

/// Moves the calling thread (each test has its own) into a new network namespace that has forwarding on, and gives it.
pub(crate) fn enter_new_node() -> NetNs {
    let node = enter_new_namespace();
    let sysctls = Sysctls::default();
    sysctls.write("net/ipv4/ip_forward", "1").unwrap();
    sysctls.write("net/ipv6/conf/all/forwarding", "1").unwrap();
    node
}

/// Moves the calling thread into a new, empty network namespace with its loopback link up.
pub(crate) fn enter_new_namespace() -> NetNs {
    let before = NetNs::current().unwrap().id().unwrap();
    let initial = NetNs::open(Path::new("/proc/1/ns/net")).ok().map(|ns| ns.id().unwrap());
    // SAFETY: unsharing the network namespace of this thread breaks no memory; other threads keep theirs.
    #[allow(unsafe_code, reason = "rustix marks unshare unsafe for flags that are not used here")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)
            .expect("tests need CAP_SYS_ADMIN for a network namespace");
    }
    let fresh = NetNs::current().unwrap();
    assert_ne!(fresh.id().unwrap(), before);
    assert_ne!(Some(fresh.id().unwrap()), initial, "refusing to run in the machine's own network namespace");
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut batch = Batch::new();
    link::set_up(&mut batch, 1);
    socket.execute_all(&mut batch).unwrap();
    fresh
}

/// A new, empty namespace for a pod; the calling thread stays where it is.
pub(crate) fn new_pod() -> NetNs {
    let back = NetNs::current().unwrap();
    let pod = enter_new_namespace();
    back.enter().unwrap();
    pod
}

/// A UDP socket inside `ns`; it stays there whatever the thread does next.
pub(crate) fn udp(ns: &NetNs, address: IpAddr, port: u16) -> UdpSocket {
    ns.run(|| UdpSocket::bind(SocketAddr::new(address, port))).unwrap().unwrap()
}

/// What comes at all comes at once, on a machine that does nothing else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Sends exactly one datagram, and gives the source address that the receiver saw.
pub(crate) fn one_datagram(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> SocketAddr {
    at.set_read_timeout(Some(PATIENCE)).unwrap();
    let nonce = format!("{to}");
    from.send_to(nonce.as_bytes(), to).unwrap_or_else(|error| {
        // IPv6 says EINVAL where no neighbour can be made: the table is one for all namespaces of the machine.
        panic!("send to {to}: {error} (if `dmesg` says \"neighbor table overflow\", too much else runs here)")
    });
    let mut buffer = [0; 100];
    let (length, source) =
        at.recv_from(&mut buffer).unwrap_or_else(|error| panic!("nothing at {to}: {error}"));
    assert_eq!(&buffer[..length], nonce.as_bytes());
    source
}

/// The first packet each way between the node and a pod, and from each pod to each other one, in each family: each is
/// sent once. `pods` are namespaces with the addresses that they have.
pub(crate) fn assert_first_packets(node: &NetNs, gateways: &[IpAddr], pods: &[(&NetNs, Vec<IpAddr>)]) {
    let any = |ip: &IpAddr| -> IpAddr {
        if ip.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        }
    };
    let send = |from: &NetNs, at: &NetNs, to: IpAddr| {
        let receiver = udp(at, to, 0);
        let port = receiver.local_addr().unwrap().port();
        one_datagram(&udp(from, any(&to), 0), SocketAddr::new(to, port), &receiver).ip()
    };
    for (pod, own) in pods {
        for gateway in gateways {
            assert!(own.contains(&send(pod, node, *gateway)), "from one of {own:?} to {gateway}");
        }
        for address in own {
            send(node, pod, *address);
        }
        for (other, others) in pods.iter().filter(|(other, _)| !std::ptr::eq(*other, *pod)) {
            for address in others {
                assert!(own.contains(&send(pod, other, *address)), "from one of {own:?} to {address}");
            }
        }
    }
}
