//! The lab's course: build, announce, attach, probe, remove a node, take down, compare. Each step is reported.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::chaos::restarts;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::nodes_file::{LeftOut, nodes_yaml};
use crate::options::{Fault, Sabotage};
use crate::progress::Progress;
use crate::report::{
    Binaries, NodeReport, OutsideReport, PodReport, ProbeKind, ProbeReport, RemovedNode, Report,
    SCHEMA_VERSION, Teardown,
};
use crate::topology::{HOST_PORT, NodePlan, Topology};
use crate::{LabError, Options, aftermath, binaries, chaos, dhcp, fault, foreign, probe, uplink};

/// More logs than this would bury the report.
const LOGS: usize = 3;

/// Builds and proves a lab; the cluster that is given back lives until it is dropped.
pub(crate) fn run(options: &Options, programs: binaries::Opened) -> Result<(Report, Cluster), LabError> {
    let deadline = Instant::now() + Duration::from_secs(options.limit_s());
    let mut progress = Progress::new();
    let binaries =
        progress.step("programs", || programs.copy(), |_| (true, "copied and hashed".to_owned()))?;
    let describe =
        |cluster: &Cluster| (true, format!("{} and outside on one LAN", count(cluster.nodes.len(), "node")));
    let mut cluster = progress.step("nodes", || Cluster::build(options), describe)?;
    let mut before = progress.step(
        "foreign",
        || cluster.plant_foreign(),
        |before| {
            let objects = before.iter().map(BTreeSet::len).sum();
            (true, format!("{} listed, some planted", count(objects, "object")))
        },
    )?;
    if let Some(wanted) = options.uplink {
        let moved = progress.step(
            "uplink",
            || uplink::run(&cluster, wanted, options.seed, deadline),
            |moved| (moved.ok(), format!("joined and left {}", count(moved.runs as usize, "time"))),
        )?;
        let mut report = report(options, &cluster, binaries, &[], Vec::new());
        report.uplink = Some(moved);
        report.steps = progress.steps();
        report.ok = report.verdict();
        return Ok((report, cluster));
    }
    let mut server = match &options.dhcp {
        Some(servers) => Some(progress.step(
            "server",
            || dhcp::begin(&cluster, servers),
            |_| (true, "lends addresses to pods".to_owned()),
        )?),
        None => None,
    };
    let ready = progress.step(
        "agents",
        || cluster.start_agents(left_out(options), deadline),
        |ready| (true, format!("{} announced", count(ready.len(), "node"))),
    )?;
    before.iter_mut().enumerate().try_for_each(|(at, before)| cluster.follow_uplink(at, before))?;
    let links = cluster.on_each_node(|node| {
        let name = node.plan.name.clone();
        node.place.run(move || aftermath::links(&name))
    })?;
    if options.fault == Some(Fault::FirstPacket) {
        fault::silence_pods(&cluster.nodes)?;
    }
    let first = progress.step(
        "pods",
        || cluster.attach_pods(patience(options.fault == Some(Fault::FirstPacket))),
        |first| {
            let (good, said) = passed(first);
            (good, format!("attached; of first packets, {said}"))
        },
    )?;
    if options.fault == Some(Fault::FirstPacket) {
        fault::let_pods_speak(&cluster.nodes)?;
    }
    if let Some(Fault::Probe(kind)) = options.fault {
        let planted = || fault::plant(kind, &cluster.nodes, &cluster.pods);
        progress.step("fault", planted, |()| (true, format!("planted against {}", kind.name())))?;
    }
    let send = || Ok::<_, LabError>(send_probes(&cluster, options, deadline));
    let mut probes = progress.step("probes", send, |probes| passed(probes))?;
    probes.extend(first);
    let mut report = report(options, &cluster, binaries, &ready, probe::in_order(probes));
    if let (Some(servers), Some(main)) =
        (options.dhcp.as_ref().filter(|_| options.fault.is_none()), server.take())
    {
        let tried = progress.step(
            "dhcp",
            || dhcp::run(&mut cluster, servers, main, deadline),
            |tried| (tried.report.ok(), count(tried.report.trials.len(), "trial")),
        )?;
        (report.dhcp, server) = (Some(tried.report), Some(tried.main));
        if let (Some(planted), Some(first)) = (tried.planted, before.first_mut()) {
            *first = planted;
        }
        // A node was rebooted: who has which address is told anew.
        let send = || Ok::<_, LabError>(send_probes(&cluster, options, deadline));
        report.probes.extend(progress.step("probes", send, |probes| passed(probes))?);
    }
    if let Some(chaos) = options.chaos {
        eprintln!("  the seed of chaos is {}", options.seed);
        let outcome = chaos::run(&mut cluster, options, chaos, &mut before, &mut progress)?;
        (report.repairs, report.chaos) = (outcome.repairs, Some(outcome.report));
        // Everything that was proven before holds after it.
        let send = || Ok::<_, LabError>(send_probes(&cluster, options, deadline));
        report.probes.extend(progress.step("probes", send, |probes| passed(probes))?);
    }
    if let Some(restarts) = options.restarts.filter(|_| options.fault.is_none()) {
        let (outcome, repairs) = restarts::run(&mut cluster, restarts, &mut before, &mut progress)?;
        (report.restarts, report.repairs) = (Some(outcome), repairs);
        let send = || Ok::<_, LabError>(send_probes(&cluster, options, deadline));
        report.probes.extend(progress.step("probes", send, |probes| passed(probes))?);
    }
    if options.fault == Some(Fault::RemovedNode) {
        cluster.nodes.iter().try_for_each(Node::hold_agent)?;
    }
    if matches!(options.fault, None | Some(Fault::RemovedNode)) && !options.keep {
        take_down(&mut cluster, &mut progress, &mut report, &links)?;
    }
    if options.fault.is_none() {
        report.foreign_objects = progress.step(
            "others",
            || compare_foreign(&cluster, &before),
            |found| {
                let changed: usize = found.iter().map(|node| node.changed.len()).sum();
                (changed == 0, format!("{} changed", count(changed, "object")))
            },
        )?;
    }
    if options.keep {
        cluster.dhcp_server = server.take();
    }
    drop(server);
    report.steps = progress.steps();
    report.ok = report.verdict();
    if !report.ok && options.fault.is_none() {
        show_logs(&mut cluster, &report);
    }
    Ok((report, cluster))
}

/// What is planted by the agents' own configuration.
fn left_out(options: &Options) -> Option<LeftOut> {
    let of_restarts = options.restarts.and_then(|restarts| restarts.sabotage);
    if options.fault == Some(Fault::Probe(ProbeKind::EgressNomasq)) {
        Some(LeftOut::NeverMasquerade)
    } else {
        (of_restarts.or(of_trials(options)) == Some(Sabotage::KeepDropping)).then_some(LeftOut::ForeignRules)
    }
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Whether all probes passed, and how many did.
fn passed(probes: &[ProbeReport]) -> (bool, String) {
    let passed = probes.iter().filter(|probe| probe.ok).count();
    (passed == probes.len(), format!("{passed} of {} passed", probes.len()))
}

fn send_probes(cluster: &Cluster, options: &Options, deadline: Instant) -> Vec<ProbeReport> {
    let probes = probe::matrix(&cluster.topology, &cluster.inhabitants());
    let of_restarts = options.restarts.and_then(|restarts| restarts.sabotage);
    let loses =
        matches!(options.fault, Some(Fault::Probe(_))) || of_restarts.or(of_trials(options)).is_some();
    probe::send_all(probes, options.seed, patience(loses), deadline, &|place| cluster.netns_of(place))
}

fn of_trials(options: &Options) -> Option<Sabotage> {
    options.dhcp.as_ref().and_then(|servers| servers.sabotage)
}

/// For how long an answer is waited for.
fn patience(with_damage: bool) -> Duration {
    if with_damage { probe::PATIENCE_WITH_DAMAGE } else { probe::PATIENCE }
}

fn take_down(
    cluster: &mut Cluster,
    progress: &mut Progress,
    report: &mut Report,
    links: &[BTreeSet<String>],
) -> Result<(), LabError> {
    if cluster.nodes.len() > 1 {
        let removed = progress.step(
            "removal",
            || remove_last_node(cluster),
            |removed| {
                (
                    removed.ok,
                    format!(
                        "of {}: {}",
                        removed.name,
                        if removed.ok { "its routes are gone" } else { "wrong" }
                    ),
                )
            },
        )?;
        report.removed_node = Some(removed);
    }
    report.teardown = progress.step(
        "teardown",
        || tear_down(cluster, links),
        |nodes| {
            let left = nodes.iter().map(|node| node.left.len()).sum();
            (left == 0, format!("{} left", count(left, "thing")))
        },
    )?;
    Ok(())
}

/// Takes the last node out of every list of nodes. The others must lose its routes and no other; itself, whose list
/// does not name it any more, must lose nothing.
fn remove_last_node(cluster: &Cluster) -> Result<RemovedNode, LabError> {
    let Some((last, others)) = cluster.topology.nodes.split_last() else {
        return Err(LabError::Inner { message: "there is no node to remove".to_owned(), exit: 1 });
    };
    let kept = cluster.on_each_node(|node| {
        let name = node.plan.name.clone();
        node.place.run(move || aftermath::node_routes(&name))
    })?;
    let list = nodes_yaml(others);
    let start = Instant::now();
    cluster.nodes.iter().try_for_each(|node| node.set_nodes(&list))?;
    let wanted = |node: &Node| -> BTreeSet<IpNet> {
        let own = kept.get(usize::from(node.plan.number) - 1).cloned().unwrap_or_default();
        let gone = |cidr: &IpNet| node.plan != *last && last.pod_cidrs.contains(cidr);
        own.into_iter().filter(|cidr| !gone(cidr)).collect()
    };
    let mut errors = Vec::new();
    let check = |node: &Node| {
        let (name, wanted) = (node.plan.name.clone(), wanted(node));
        node.place.run(move || aftermath::await_node_routes(&name, &wanted))
    };
    errors.extend(cluster.on_each_node(|node| if node.plan == *last { Ok(None) } else { check(node) })?);
    let absent = start.elapsed();
    // Only now: the removed node had as long as the others to do something wrong.
    errors.extend(cluster.nodes.last().map(check).transpose()?);
    let errors: Vec<_> = errors.into_iter().flatten().collect();
    let routes_absent_ms = errors.is_empty().then(|| milliseconds(absent));
    Ok(RemovedNode { name: last.name.clone(), ok: errors.is_empty(), routes_absent_ms, errors })
}

/// Deletes every pod, and looks for what it left.
fn tear_down(cluster: &mut Cluster, links: &[BTreeSet<String>]) -> Result<Vec<Teardown>, LabError> {
    cluster.delete_pods()?;
    let outside = cluster.outside.clone();
    cluster.on_each_node(|node| {
        let mut known = links.get(usize::from(node.plan.number) - 1).cloned().unwrap_or_default();
        // A bridge is the node's: it stays for the next pod.
        known.insert("cni0".to_owned());
        let name = node.plan.name.clone();
        let mut left = node.place.run(move || aftermath::await_nothing_left(&name, &known))?;
        for internal in node.plan.internal.clone() {
            left.extend(outside.run(move || aftermath::host_port_left(internal.addr(), HOST_PORT))?);
        }
        Ok(Teardown { node: node.plan.name.clone(), ok: left.is_empty(), left })
    })
}

fn compare_foreign(
    cluster: &Cluster,
    before: &[BTreeSet<String>],
) -> Result<Vec<crate::report::ForeignObjects>, LabError> {
    cluster.on_each_node(|node| {
        let before = before.get(usize::from(node.plan.number) - 1).cloned().unwrap_or_default();
        let name = node.plan.name.clone();
        node.place.run(move || Ok(foreign::compare(&name, &before, &foreign::snapshot(&name)?)))
    })
}

/// Shows what the agents say of the nodes where something went wrong.
fn show_logs(cluster: &mut Cluster, report: &Report) {
    for node in cluster.nodes.iter_mut().filter(|node| report.faults_on(&node.plan.name)).take(LOGS) {
        let status = node.agent_status().err().unwrap_or_else(|| "the agent runs".to_owned());
        eprintln!("\n{}: {status}; its log ends:\n{}", node.plan.name, node.log_end());
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn report(
    options: &Options,
    cluster: &Cluster,
    binaries: Binaries,
    ready: &[Duration],
    probes: Vec<ProbeReport>,
) -> Report {
    let Topology { nodes, outside, .. } = &cluster.topology;
    let node_report = |(at, plan): (usize, &NodePlan)| NodeReport {
        name: plan.name.clone(),
        internal_ips: plan.internal.iter().map(IpNet::addr).collect(),
        pod_cidrs: plan.pod_cidrs.clone(),
        ready_ms: ready.get(at).copied().map_or(0, milliseconds),
        pods: cluster
            .pods
            .get(at)
            .into_iter()
            .flatten()
            .map(|pod| PodReport {
                name: pod.name.clone(),
                ips: pod.ips.clone(),
                host_port: pod.host_port,
                add_us: pod.add_us,
            })
            .collect(),
    };
    Report {
        schema_version: SCHEMA_VERSION,
        ok: false,
        name: options.name.to_string(),
        kept: options.keep,
        mode: options.mode,
        family: options.family,
        seed: options.seed,
        fault: options.fault,
        binaries,
        outside: OutsideReport {
            ips: outside.lan.iter().map(IpNet::addr).collect(),
            unmasqueraded_ips: outside.unmasqueraded.iter().map(IpNet::addr).collect(),
        },
        nodes: nodes.iter().enumerate().map(node_report).collect(),
        probes,
        repairs: Vec::new(),
        chaos: None,
        uplink: None,
        restarts: None,
        dhcp: None,
        removed_node: None,
        foreign_objects: Vec::new(),
        teardown: Vec::new(),
        steps: Vec::new(),
    }
}
