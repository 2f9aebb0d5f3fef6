//! The LAN: a bridge in the tier's own network namespace, with the control plane's address, and a port for each node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use ipnet::IpNet;
use kernel::link::{Veth, VethEnd};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::route::{self, Hop, Route};
use kernel::sysctl::Sysctls;
use kernel::{KernelError, address, link};
use link_name::LinkName;
use rustix::io::Errno;

use crate::error::{Outcome, TierError};

/// The link of a node.
pub const UPLINK: &str = "eth0";
const BRIDGE: &str = "lan0";
const MTU: u32 = 1500;

/// The address of the host with this number, in both families; 10 is the control plane's.
#[must_use]
pub fn addresses(host: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(172, 30, 0, host).into(),
        Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, u16::from(host)).into(),
    ]
}

/// The LAN, in both families.
#[must_use]
pub fn subnets() -> [IpNet; 2] {
    addresses(0).map(|ip| IpNet::new(ip, prefix_len(ip)).unwrap_or_else(|_| ip.into()))
}

/// The part of the LAN from which pods of a node may have their addresses: 32 of them for each node.
#[must_use]
pub fn slice_of(node: u8) -> [IpNet; 2] {
    let [v4, v6] = addresses(128 + 32 * (node % 4));
    [(v4, 27), (v6, 123)].map(|(ip, length)| IpNet::new(ip, length).map_or(ip.into(), |net| net.trunc()))
}

/// Number of the control plane among the hosts.
pub const CONTROL_PLANE: u8 = 10;
/// The routers' number. Nobody has it: some programs want to see a default route.
const ROUTER: u8 = 1;

const fn prefix_len(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 24 } else { 64 }
}

fn prefix(ip: IpAddr) -> Result<IpNet, KernelError> {
    IpNet::new(ip, prefix_len(ip)).map_err(|_| KernelError::new("name a prefix", Errno::INVAL))
}

fn name(text: &str) -> Result<LinkName, KernelError> {
    LinkName::new(text).map_err(|_| KernelError::new(format!("name a link {text}"), Errno::INVAL))
}

fn index_of(socket: &mut Socket, name: &str) -> Result<u32, KernelError> {
    let missing = || KernelError::new(format!("find link {name}"), Errno::NODEV);
    link::by_name(socket, name)?.map(|link| link.index).ok_or_else(missing)
}

fn in_place(place: &str) -> impl FnOnce(KernelError) -> TierError + '_ {
    move |error| TierError::Wrong(format!("the LAN of {place}: {error}"))
}

/// Makes the bridge in the calling thread's network namespace, which must be the tier's own.
pub fn create() -> Outcome {
    let create = || {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        link::create_bridge(&mut batch, &name(BRIDGE)?, [0x02, 0, 0, 0, 0, CONTROL_PLANE], MTU, true);
        let loopback = index_of(&mut socket, "lo")?;
        link::set_up(&mut batch, loopback);
        socket.execute_all(&mut batch)?;
        // Frames between nodes are not the control plane's packets.
        for key in ["iptables", "ip6tables", "arptables"] {
            let key = format!("net/bridge/bridge-nf-call-{key}");
            let sysctls = Sysctls::default();
            if sysctls.read(&key)?.is_some() {
                sysctls.write(&key, "0")?;
            }
        }
        give_addresses(&mut socket, BRIDGE, CONTROL_PLANE)
    };
    create().map_err(in_place("the control plane"))
}

/// Takes the port of a node that lost power away: called where the bridge is. The kernel takes down what a network namespace
/// leaves in its own time.
fn unplug(socket: &mut Socket, node: &str) -> Result<(), KernelError> {
    let Some(port) = link::by_name(socket, node)? else { return Ok(()) };
    let mut batch = Batch::new();
    link::delete(&mut batch, port.index);
    // It may have gone by now.
    socket.execute_all(&mut batch).or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })
}

/// Plugs a node in: called where the bridge is.
pub fn plug_in(node: &str, netns: &NetNs, host: u8) -> Outcome {
    let plug = || {
        let mut socket = Socket::open(Protocol::Route)?;
        unplug(&mut socket, node)?;
        let bridge = index_of(&mut socket, BRIDGE)?;
        let (port, uplink) = (name(node)?, name(UPLINK)?);
        let veth = Veth {
            host: VethEnd { name: &port, mac: None, netns: None },
            // A machine that boots again has the address that its neighbours remember.
            peer: VethEnd { name: &uplink, mac: Some([0x02, 0, 0, 0, 0, host]), netns: Some(netns.as_fd()) },
            mtu: MTU,
            master: Some(bridge),
            up: true,
        };
        let mut batch = Batch::new();
        link::create_veth(&mut batch, &veth);
        socket.execute_all(&mut batch)?;
        netns.run(|| {
            let mut socket = Socket::open(Protocol::Route)?;
            let mut batch = Batch::new();
            let loopback = index_of(&mut socket, "lo")?;
            link::set_up(&mut batch, loopback);
            socket.execute_all(&mut batch)?;
            give_addresses(&mut socket, UPLINK, host)?;
            let uplink = index_of(&mut socket, UPLINK)?;
            let mut batch = Batch::new();
            for router in addresses(ROUTER) {
                let family = if router.is_ipv4() { route::Family::V4 } else { route::Family::V6 };
                let hop = Hop { gateway: Some(router), index: Some(uplink), ..Hop::default() };
                route::add(
                    &mut batch,
                    &Route { hops: vec![hop], ..Route::to(route::default_destination(family)) },
                );
            }
            socket.execute_all(&mut batch)
        })?
    };
    plug().map_err(in_place(node))
}

fn give_addresses(socket: &mut Socket, link: &str, host: u8) -> Result<(), KernelError> {
    // Nobody else is on this LAN: waiting a second for duplicates would only delay the link-local address.
    Sysctls::default().write(&format!("net/ipv6/conf/{link}/accept_dad"), "0")?;
    let index = index_of(socket, link)?;
    let mut batch = Batch::new();
    link::set_up(&mut batch, index);
    for ip in addresses(host) {
        let flags = if ip.is_ipv6() { address::NODAD } else { 0 };
        address::add(&mut batch, index, prefix(ip)?, flags);
    }
    // Asking finishes the pending carrier change, which would hold up the first packet.
    link::request(&mut batch, index);
    socket.execute_all(&mut batch)
}
