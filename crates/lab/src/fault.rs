//! For each kind of probe, and each check, damage that it must notice: one that never fails proves nothing. The agents are held
//! meanwhile, for they would repair most of it.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::route::{Family as RouteFamily, Filter, Hop, Route, RouteKind};
use kernel::{KernelError, link, neighbour, route};

use crate::LabError;
use crate::foreign;
use crate::lan::index_of;
use crate::node::Node;
use crate::options::Family;
use crate::policy_rule::{self, PolicyRule};
use crate::report::ProbeKind;
use crate::ruleset::{self, AGENT_TABLE, HOST_PORT_TABLE, delete_our_table};
use crate::runtime::Pod;
use crate::topology::{POD_LINK, UPLINK, is_of};

/// The agent's protocol number.
const NODE_ROUTES: u8 = 104;
/// A table and a rule's place that nobody else uses.
const TABLE: u32 = 250;

/// Breaks the first node, and nothing else. [`ProbeKind::EgressNomasq`] is broken by the agent's configuration, before
/// it starts.
pub(crate) fn plant(kind: ProbeKind, nodes: &[Node], pods: &[Vec<Pod>]) -> Result<(), LabError> {
    nodes.iter().try_for_each(Node::hold_agent)?;
    let (Some(node), Some([first, rest @ ..])) = (nodes.first(), pods.first().map(Vec::as_slice)) else {
        return Ok(());
    };
    let name = node.plan.name.clone();
    let in_node = |work: Box<dyn FnOnce() -> Result<(), KernelError> + Send>| {
        let name = name.clone();
        node.place.run(move || work().map_err(LabError::kernel(name)))
    };
    match kind {
        ProbeKind::PodPodRemote => in_node(Box::new(delete_node_routes)),
        ProbeKind::PodPodSame => {
            let host_link = host_link(rest.last().unwrap_or(first))?;
            in_node(Box::new(move || {
                execute(|_, batch| {
                    link::set_down(batch, host_link);
                    Ok(())
                })
            }))
        }
        ProbeKind::PodNode => {
            let node_ips: Vec<_> = node.plan.internal.iter().map(IpNet::addr).collect();
            let done = first.netns.run(|| blackhole(&node_ips)).map_err(LabError::kernel(&*first.name))?;
            done.map_err(LabError::kernel(&*first.name))
        }
        ProbeKind::NodePod => {
            let host_link = host_link(first)?;
            let mut ways = Vec::new();
            for ip in &first.ips {
                let family = if is_of(Family::Ipv4, *ip) { Family::Ipv4 } else { Family::Ipv6 };
                ways.push((*ip, foreign::link_address(family)?.addr()));
            }
            in_node(Box::new(move || wrong_sources(host_link, &ways)))
        }
        ProbeKind::HostportOutside | ProbeKind::HostportNode | ProbeKind::HostportHairpin => {
            in_node(Box::new(|| delete_our_table(HOST_PORT_TABLE)))
        }
        ProbeKind::EgressMasq => in_node(Box::new(|| delete_our_table(AGENT_TABLE))),
        ProbeKind::EgressNomasq => Ok(()),
        ProbeKind::LanPod => in_node(Box::new(cut_off_from_lan)),
        ProbeKind::Mtu => in_node(Box::new(|| {
            execute(|socket, batch| {
                link::set_mtu(batch, index_of(socket, UPLINK)?, 1300);
                Ok(())
            })
        })),
    }
}

/// Lets nothing through of what the first node's pods send.
pub(crate) fn silence_pods(nodes: &[Node]) -> Result<(), LabError> {
    nodes.first().map_or(Ok(()), |node| {
        let (name, cidrs) = (node.plan.name.clone(), node.plan.pod_cidrs.clone());
        node.place.run(move || ruleset::silence(&cidrs).map_err(LabError::kernel(name)))
    })
}

/// Ends that.
pub(crate) fn let_pods_speak(nodes: &[Node]) -> Result<(), LabError> {
    nodes.first().map_or(Ok(()), |node| {
        let name = node.plan.name.clone();
        node.place.run(move || ruleset::end_silence().map_err(LabError::kernel(name)))
    })
}

/// Carries out what `write` asks for.
pub(crate) fn execute(
    write: impl FnOnce(&mut Socket, &mut Batch) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut batch = Batch::new();
    write(&mut socket, &mut batch)?;
    socket.execute_all(&mut batch)
}

/// The index of the node's end of a pod's link, which the pod's end knows.
fn host_link(pod: &Pod) -> Result<u32, LabError> {
    let find = || {
        let found = link::by_name(&mut Socket::open(Protocol::Route)?, POD_LINK)?;
        let missing = || KernelError::new(format!("find the peer of {POD_LINK}"), rustix::io::Errno::NODEV);
        found.and_then(|link| link.peer).ok_or_else(missing)
    };
    pod.netns.run(find).map_err(LabError::kernel(&*pod.name))?.map_err(LabError::kernel(&*pod.name))
}

fn delete_node_routes() -> Result<(), KernelError> {
    delete_routes(NODE_ROUTES)
}

/// The node answers for none of its pods any more; where they answer for themselves, they are not heard.
fn cut_off_from_lan() -> Result<(), KernelError> {
    execute(|socket, batch| {
        if let Some(uplink) = link::by_name(socket, UPLINK)?.filter(|uplink| uplink.master.is_some()) {
            link::set_down(batch, uplink.index);
        }
        delete_answers(socket, batch)
    })
}

/// The node answers for nobody any more.
pub(crate) fn forget_answers() -> Result<(), KernelError> {
    execute(delete_answers)
}

fn delete_answers(socket: &mut Socket, batch: &mut Batch) -> Result<(), KernelError> {
    for proxied in neighbour::dump(socket, true)? {
        neighbour::delete_proxy(batch, proxied.index, proxied.ip);
    }
    Ok(())
}

/// Deletes the unicast routes of a protocol, as `ip route flush proto` does.
pub(crate) fn delete_routes(protocol: u8) -> Result<(), KernelError> {
    execute(|socket, batch| {
        for family in [RouteFamily::V4, RouteFamily::V6] {
            let filter = Filter { protocol: Some(protocol), ..Filter::default() };
            for route in route::dump(socket, family, filter)? {
                if route.kind == RouteKind::Unicast {
                    route::delete(batch, &route);
                }
            }
        }
        Ok(())
    })
}

fn blackhole(ips: &[IpAddr]) -> Result<(), KernelError> {
    execute(|_, batch| {
        for ip in ips {
            route::add(batch, &Route { kind: RouteKind::Blackhole, ..Route::to(IpNet::from(*ip)) });
        }
        Ok(())
    })
}

/// Makes the node's own packets to a pod leave with a wrong source, as a foreign link with an earlier address does.
fn wrong_sources(host_link: u32, ways: &[(IpAddr, IpAddr)]) -> Result<(), KernelError> {
    execute(|_, batch| {
        for (pod, source) in ways {
            let hops = vec![Hop { index: Some(host_link), ..Hop::default() }];
            route::add(
                batch,
                &Route { table: TABLE, source: Some(*source), hops, ..Route::to(IpNet::from(*pod)) },
            );
            let to = Some(IpNet::from(*pod));
            policy_rule::add(
                batch,
                &PolicyRule {
                    priority: 100,
                    to,
                    incoming: Some("lo"),
                    table: TABLE,
                    ..PolicyRule::default()
                },
            );
        }
        Ok(())
    })
}
