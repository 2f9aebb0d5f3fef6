//! The cluster itself changes: nodes come and go, move, and boot anew.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use kernel::link::Mac;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::sysctl::Sysctls;
use kernel::{address, link};

use crate::chaos::field::Field;
use crate::chaos::setback::Setback;
use crate::cluster::Cluster;
use crate::options::Family;
use crate::probe::{self, Probe, Server};
use crate::report::{ProbeKind, Transport};
use crate::runtime;
use crate::topology::{ECHO_PORT, NodePlan, is_of};
use crate::{LabError, lan};

/// A conflist, or a node's readiness, comes within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// A clock that was set right by a day leaves files that were written tomorrow.
const A_DAY: Duration = Duration::from_secs(86_400);

/// The node is taken off every list; its own is no exception.
pub(crate) fn remove_node(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    remove(field, at, SystemTime::UNIX_EPOCH)
}

/// The same, in a list that was written before the clock was set back.
pub(crate) fn remove_node_in_the_future(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    remove(field, at, SystemTime::now() + A_DAY)
}

fn remove(field: &mut Field<'_>, at: usize, written: SystemTime) -> Result<(), Setback> {
    (field.listed[at], field.estranged) = (false, Some(at));
    field.see_what_is_wrong();
    field.send_pulses()?;
    Ok(field.tell_nodes(written)?)
}

/// It comes back.
pub(crate) fn add_node(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    (field.listed[at], field.estranged) = (true, None);
    field.see_what_is_wrong();
    field.send_pulses()?;
    Ok(field.tell_nodes(SystemTime::UNIX_EPOCH)?)
}

/// The node gets other addresses.
pub(crate) fn change_address(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    readdress(field, at, true)
}

/// And its own again.
pub(crate) fn change_address_back(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    readdress(field, at, false)
}

fn readdress(field: &mut Field<'_>, at: usize, moved: bool) -> Result<(), Setback> {
    let families = field.cluster.topology.families.each();
    let node = field.cluster.node(at)?;
    let old = node.plan.internal.clone();
    let new = NodePlan::internal_ips(node.plan.number, moved, families);
    let uplink = field.uplinks[at];
    if old != new {
        field.in_netns(at, || exchange_addresses(uplink, &old, &new))?;
    }
    field.cluster.replan(at, |node| node.internal.clone_from(&new))?;
    field.see_what_is_wrong();
    field.cluster.reroute_outside()?;
    field.cluster.serve_node(at)?;
    field.tell_nodes(SystemTime::UNIX_EPOCH)?;
    Ok(field.send_pulses()?)
}

/// New ones first, so that the link is never without; the kernel keeps the routes through the link's network then.
fn exchange_addresses(uplink: &str, old: &[IpNet], new: &[IpNet]) -> Result<(), kernel::KernelError> {
    Sysctls::default().write(&format!("net/ipv4/conf/{uplink}/promote_secondaries"), "1")?;
    let mut socket = Socket::open(Protocol::Route)?;
    let mut batch = Batch::new();
    let index = lan::index_of(&mut socket, uplink)?;
    for net in new {
        address::add(&mut batch, index, *net, if net.addr().is_ipv6() { address::NODAD } else { 0 });
    }
    old.iter().for_each(|net| address::delete(&mut batch, index, *net));
    link::request(&mut batch, index);
    socket.execute_all(&mut batch)
}

/// The node is given other pod CIDRs. Its old pods run on; others cannot reach them any more.
pub(crate) fn change_pod_cidrs(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    field.estranged = Some(at);
    renumber(field, at, true)
}

/// And its own again.
pub(crate) fn change_pod_cidrs_back(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    field.estranged = None;
    renumber(field, at, false)
}

fn renumber(field: &mut Field<'_>, at: usize, moved: bool) -> Result<(), Setback> {
    let families = field.cluster.topology.families.each();
    let number = field.cluster.node(at)?.plan.number;
    let new = NodePlan::pod_cidrs_of(number, moved, families);
    field.cluster.replan(at, |node| node.pod_cidrs.clone_from(&new))?;
    field.see_what_is_wrong();
    field.tell_nodes(SystemTime::UNIX_EPOCH)?;
    Ok(field.send_pulses()?)
}

/// A pod that comes now has addresses of the new CIDRs, and pods elsewhere reach it.
pub(crate) fn new_pod_is_reached(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    let name = field.fresh_pod(at, "moved");
    let node = field.cluster.node(at)?;
    let cidrs = node.plan.pod_cidrs.clone();
    let within = |ips: &[std::net::IpAddr]| ips.iter().all(|ip| cidrs.iter().any(|cidr| cidr.contains(ip)));
    let deadline = Instant::now() + PATIENCE;
    // The agent writes the configuration after the routes.
    let (conflist, pod) = loop {
        let (list, wanted) = (node.conflist()?, name.clone());
        let (list, pod) = node.place.run(move || {
            let pod = runtime::add(&list, &wanted, None)?;
            Ok((list, pod))
        })?;
        if within(&pod.ips) {
            break (list, pod);
        }
        let ips = format!("{:?}", pod.ips);
        node.place.run(move || runtime::delete(&list, &pod))?;
        if Instant::now() >= deadline {
            let message = format!("{name} got {ips}, which are not of {cidrs:?}");
            return Err(Setback::found("not_restored", message));
        }
    };
    let _answers = Server::start(&pod.name, &pod.netns, &pod.ips)?;
    let others = field.cluster.pods.iter().enumerate().filter(|(other, _)| *other != at);
    let mut errors = Vec::new();
    for from in others.filter_map(|(_, pods)| pods.first()) {
        for to in &pod.ips {
            let family = if is_of(Family::Ipv4, *to) { Family::Ipv4 } else { Family::Ipv6 };
            let probe = Probe {
                from: from.name.clone(),
                to: pod.name.clone(),
                family,
                kind: ProbeKind::PodPodRemote,
                transport: Transport::Udp,
                target: (*to, ECHO_PORT).into(),
                responder: pod.name.clone(),
                sources: from.ips.clone(),
            };
            let report = probe::send_once(&probe, &from.netns, probe::PATIENCE);
            errors.extend(report.error.map(|error| format!("{} → {}: {error}", from.name, pod.name)));
        }
    }
    node.place.run(move || runtime::delete(&conflist, &pod))?;
    if errors.is_empty() { Ok(()) } else { Err(Setback::found("not_restored", errors.join("; "))) }
}

/// The node's namespaces, processes and `/run` go; it is built anew from its disk and plugged in.
pub(crate) fn reboot(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    field.churn.stop();
    field.flows.excuse(at);
    field.number += 1;
    let boot_id = format!("00000000-0000-4000-8000-{:012x}", field.number);
    field.foreign[at] = boot_again(field.cluster, at, &boot_id, field.macs[at])?;
    Ok(())
}

/// Builds a node anew from its disk, without its agent; gives what is there that is not ours.
pub(super) fn boot_again(
    cluster: &mut Cluster,
    at: usize,
    boot_id: &str,
    mac: Option<Mac>,
) -> Result<BTreeSet<String>, LabError> {
    cluster.forget_pods(at)?;
    lan::unplug(&cluster.node(at)?.plan.name)?;
    cluster.node_mut(at)?.reboot(boot_id)?;
    // The network card is the same.
    cluster.plug_in(cluster.node(at)?, mac)?;
    let foreign = cluster.plant_foreign_again(at)?;
    cluster.serve_node(at)?;
    Ok(foreign)
}

/// The agent is started; once it says that the node is ready, pods come back.
pub(crate) fn finish_boot(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    start_announced(field.cluster, at)?;
    field.cluster.attach_pods_again(at)?;
    field.flows.open(&field.cluster.pods, Some(at))?;
    field.send_pulses()?;
    Ok(field.churn.start(field.cluster)?)
}

/// Starts a node's agent, and waits until it says that the node is ready.
pub(super) fn start_announced(cluster: &mut Cluster, at: usize) -> Result<(), Setback> {
    cluster.node_mut(at)?.start_agent()?;
    let node = cluster.node(at)?;
    let ready = || node.place.run(|| Ok::<_, LabError>(std::path::Path::new("/run/hostgw/ready").exists()));
    if Field::poll(PATIENCE, || ready().unwrap_or(false).then_some(())).is_none() {
        let (name, log) = (&node.plan.name, node.log_end());
        let message = format!("{name} was not announced after its boot; its log ends:\n{log}");
        return Err(Setback::found("not_restored", message));
    }
    Ok(())
}
