//! What must follow when a node or a pod goes: its routes are gone from the others, and nothing of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use kernel::events::Group;
use kernel::netlink::{Protocol, Socket};
use kernel::route::{Family as RouteFamily, Filter, RouteKind};
use kernel::{KernelError, link, neighbour, route};

use crate::LabError;
use crate::condition::await_condition;
use crate::foreign::OUR_PROTOCOLS;

/// Where the plugin keeps addresses and host ports.
const IPAM: &str = "/run/hostgw/ipam";
/// Long after this, whatever is still there will stay. What a pod left whose DEL never came, the agent frees when it is
/// eleven seconds old.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a closed port is asked for its refusal.
const REFUSALS: usize = 5;

/// The destinations of the agent's unicast routes; runs in the node.
pub(crate) fn node_routes(node: &str) -> Result<BTreeSet<IpNet>, LabError> {
    destinations(OUR_PROTOCOLS[0]).map_err(LabError::kernel(node))
}

fn destinations(protocol: u8) -> Result<BTreeSet<IpNet>, KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut destinations = BTreeSet::new();
    for family in [RouteFamily::V4, RouteFamily::V6] {
        let filter = Filter { protocol: Some(protocol), ..Filter::default() };
        let routes = route::dump(&mut socket, family, filter)?;
        let unicast = routes.into_iter().filter(|route| route.kind == RouteKind::Unicast);
        destinations.extend(unicast.map(|route| route.destination));
    }
    Ok(destinations)
}

/// Waits until the agent's routes are exactly those to `wanted`; gives what differs at the end. Runs in the node.
pub(crate) fn await_node_routes(node: &str, wanted: &BTreeSet<IpNet>) -> Result<Option<String>, LabError> {
    await_condition(node, &[Group::Ipv4Routes, Group::Ipv6Routes], PATIENCE, || {
        let found = destinations(OUR_PROTOCOLS[0])?;
        let stale: Vec<_> = found.difference(wanted).map(IpNet::to_string).collect();
        let lost: Vec<_> = wanted.difference(&found).map(IpNet::to_string).collect();
        Ok(match (stale.is_empty(), lost.is_empty()) {
            (true, true) => None,
            (false, _) => Some(format!("{node} still has routes to {}", stale.join(", "))),
            (true, false) => Some(format!("{node} lost its routes to {}", lost.join(", "))),
        })
    })
}

/// The names of all links; runs in the node.
pub(crate) fn links(node: &str) -> Result<BTreeSet<String>, LabError> {
    link_names().map_err(LabError::kernel(node))
}

fn link_names() -> Result<BTreeSet<String>, KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    Ok(link::dump(&mut socket)?.into_iter().map(|link| link.name).collect())
}

/// Waits until no link but `known`, no route of a pod, and no reservation is left; gives what is. Runs in the node.
pub(crate) fn await_nothing_left(node: &str, known: &BTreeSet<String>) -> Result<Vec<String>, LabError> {
    let groups = [Group::Links, Group::Ipv4Routes, Group::Ipv6Routes];
    let mut left = Vec::new();
    await_condition(node, &groups, PATIENCE, || {
        left.clear();
        left.extend(link_names()?.difference(known).map(|name| format!("link {name}")));
        left.extend(destinations(OUR_PROTOCOLS[1])?.iter().map(|to| format!("route to {to}")));
        left.extend(answered()?.iter().map(|ip| format!("answer for {ip} on the LAN")));
        left.extend(reservations(Path::new(IPAM)).iter().map(|file| format!("file {}", file.display())));
        Ok((!left.is_empty()).then(String::new))
    })?;
    Ok(left)
}

/// The addresses of pods for which the node answers.
fn answered() -> Result<Vec<IpAddr>, KernelError> {
    let proxied = neighbour::dump(&mut Socket::open(Protocol::Route)?, true)?;
    let of_pods = proxied.into_iter().filter(|proxied| proxied.protocol == OUR_PROTOCOLS[1]);
    Ok(of_pods.map(|proxied| proxied.ip).collect())
}

/// What the plugin keeps of pods; runs in the node.
pub(crate) fn reserved() -> Vec<PathBuf> {
    reservations(Path::new(IPAM))
}

/// Files below folders that hold one file for each thing that is taken; what else the plugin keeps (locks, hints)
/// says nothing about pods.
fn reservations(folder: &Path) -> Vec<PathBuf> {
    let entries =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let networks: Vec<_> = entries(folder).collect();
    networks
        .iter()
        .flat_map(|network| ["records", "claims"].map(|kind| network.join(kind)))
        .flat_map(|kind| entries(&kind).collect::<Vec<_>>())
        .collect()
}

/// Whether a host port is closed again: nobody listens on the node, so it must say so, where a translation that was left
/// behind would lead nowhere. Runs outside.
pub(crate) fn host_port_left(node: IpAddr, port: u16) -> Result<Option<String>, LabError> {
    let target = SocketAddr::new(node, port);
    let ask = || {
        let any: SocketAddr = if node.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(target)?;
        let mut answer = Err(io::ErrorKind::WouldBlock.into());
        // A kernel that has said so often to the same host says it once a second (`icmp_ratelimit`).
        for _ in 0..REFUSALS {
            socket.send(b"still there?")?;
            answer = socket.recv(&mut [0; 16]);
            if !answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                break;
            }
        }
        answer
    };
    match ask() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(format!(
            "host port {target} is not refused: it is still translated to a pod that is gone"
        ))),
        Err(error) => Ok(Some(format!("host port {target} is not refused: {error}"))),
        Ok(_) => Ok(Some(format!("host port {target} answers"))),
    }
}
