//! The scenario of DHCP: pods have addresses that a real server on the nodes' LAN lends. What servers, agents and nodes go
//! through is a trial each, and each must end as the documentation says.

mod report;
mod server;
mod stage;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use report::{DhcpReport, Trial};
pub(crate) use server::{Server, require};

use crate::cluster::Cluster;
use crate::options::DhcpServers;
use crate::{LabError, runtime};

use server::{Make, Pool};
use stage::{Stage, ensure};

/// What the pods of the cluster live on.
const MAIN: Pool = pool(200, 1, 250, 3600);
/// Another range of the same server.
const MOVED: Pool = pool(201, 1, 250, 3600);
/// A range of one.
const SCARCE: Pool = pool(202, 7, 7, 3600);
/// What a second server lends.
const SECOND: Pool = pool(203, 1, 250, 3600);
/// Leases that are renewed every five seconds.
const FLEETING: Pool = pool(204, 1, 250, 10);
/// A range in which no lease of the former is.
const ELSEWHERE: Pool = pool(205, 1, 250, 10);

const fn pool(network: u8, first: u8, last: u8, seconds: u32) -> Pool {
    use std::net::Ipv4Addr;
    Pool { first: Ipv4Addr::new(10, 10, network, first), last: Ipv4Addr::new(10, 10, network, last), seconds }
}

/// For how long a server that is overloaded answers nothing: longer than an ADD takes on a busy machine, and less than it waits.
const HELD: Duration = Duration::from_secs(3);
/// What an agent does within a lease of ten seconds has come about long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the server that lends the cluster's pods their addresses.
pub(crate) fn begin(cluster: &Cluster, servers: &DhcpServers) -> Result<Server, LabError> {
    Stage::start_at_outside(cluster, servers, Make::Dnsmasq, MAIN, "main")
}

/// What is there after the trials.
pub(crate) struct Tried {
    pub(crate) report: DhcpReport,
    /// The server of the cluster's pods.
    pub(crate) main: Server,
    /// What others have on the first node, which was booted anew.
    pub(crate) planted: Option<BTreeSet<String>>,
}

/// Everything that happens to servers, agents and nodes, one after the other, on the first node.
pub(crate) fn run(
    cluster: &mut Cluster,
    servers: &DhcpServers,
    main: Server,
    deadline: Instant,
) -> Result<Tried, LabError> {
    let mut stage = Stage::new(cluster, servers, main, deadline);
    let mut report = DhcpReport::default();
    let trials: [(&str, Course); 8] = [
        ("server-down", server_down),
        ("server-slow", server_slow),
        ("server-without-addresses", server_without_addresses),
        ("range-changed", range_changed),
        ("two-servers", two_servers),
        ("agent-restarted", agent_restarted),
        ("lease-refused", lease_refused),
        ("node-restarted", node_restarted),
    ];
    for (name, trial) in trials {
        let began = Instant::now();
        let outcome = trial(&mut stage);
        let error = match outcome {
            Ok(()) => None,
            Err(Failure::Found(what)) => Some(what),
            Err(Failure::Lab(error)) => Some(error.to_string()),
        };
        stage.tidy()?;
        report.trials.push(Trial::new(name, began.elapsed(), error));
    }
    // The cluster's pods are deleted later, and their leases given back to whom they are of.
    let planted = stage.planted.take();
    let main = stage.serve(Make::Dnsmasq, MAIN, "main")?;
    Ok(Tried { report, main, planted })
}

/// What a trial does.
type Course = fn(&mut Stage<'_>) -> Result<(), Failure>;

/// Why a trial did not end well.
#[derive(Debug)]
enum Failure {
    /// Something is not as it must be.
    Found(String),
    /// The lab itself.
    Lab(LabError),
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        Self::Lab(error)
    }
}

/// A pod that comes while no server is there fails in its time with code 11, and leaves nothing.
fn server_down(stage: &mut Stage<'_>) -> Result<(), Failure> {
    if stage.does_harm() {
        stage.close();
    }
    let before = stage.traces()?;
    let refused = stage.refused("down")?;
    ensure(refused.contains(r#""code":11"#), || format!("ADD did not say code 11: {refused}"))?;
    ensure(refused.contains("no DHCP server answered"), || format!("ADD did not say why: {refused}"))?;
    let after = stage.traces()?;
    ensure(before == after, || format!("left behind: {before:?} became {after:?}"))
}

/// A server that takes its time is waited for.
fn server_slow(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.serve_main()?;
    let held = if stage.does_harm() { HELD } else { Duration::ZERO };
    let (pod, waited) = stage.add_while_held("slow", held)?;
    ensure(waited >= HELD, || format!("the pod was attached after {} ms already", waited.as_millis()))?;
    stage.prove(&pod)
}

/// Of two pods that want the only address one gets it, and the other is told; once it is free, it is lent again.
fn server_without_addresses(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.replace(Make::Dnsmasq, stage.harm_or(SCARCE, MAIN), "main")?;
    let pod = stage.add("lucky")?;
    stage.prove(&pod)?;
    let refused = stage.refused("late")?;
    ensure(refused.contains(r#""code":11"#), || format!("ADD did not say code 11: {refused}"))
}

/// A pod of a name gets its address again, and another one where its server has a range of other addresses: by a NAK to
/// what it asks for first.
fn range_changed(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.serve_main()?;
    let first = stage.add("db-0")?;
    let lent = first.ips.clone();
    stage.delete(first)?;
    let again = stage.add("db-0")?;
    ensure(again.ips == lent, || format!("{lent:?} became {:?}", again.ips))?;
    stage.delete(again)?;
    stage.replace(Make::Dnsmasq, stage.harm_or(MOVED, MAIN), "main")?;
    let moved = stage.add("db-0")?;
    ensure(stage::is_of(&moved, MOVED), || format!("{:?} is not of the new range", moved.ips))?;
    stage.prove(&moved)
}

/// Of two servers one lends, whichever was first; if one ends, the other does.
fn two_servers(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.serve_main()?;
    if stage.does_harm() {
        stage.add_second(SECOND)?;
    }
    for number in 0..4 {
        let pod = stage.add(&format!("two-{number}"))?;
        let is_lent = stage::is_of(&pod, MAIN) || stage::is_of(&pod, SECOND);
        ensure(is_lent, || format!("{:?} is of neither server", pod.ips))?;
        stage.prove(&pod)?;
    }
    stage.close_first();
    let pod = stage.add("two-left")?;
    ensure(stage::is_of(&pod, SECOND), || format!("{:?} is not of the server that is left", pod.ips))?;
    stage.prove(&pod)
}

/// An agent that was killed renews what was lent before, from its files.
fn agent_restarted(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.replace(Make::Kea, FLEETING, "fleeting")?;
    let pod = stage.add("kept")?;
    stage.restart_agent()?;
    let lent = stage.confirmed_at(&pod)?;
    stage.wait(PATIENCE, "the lease is renewed", |stage| Ok(stage.confirmed_at(&pod)? > lent + 4))?;
    let lost = stage.conditions()?;
    ensure(!lost.contains("lease-lost"), || format!("the agent says {lost}"))?;
    stage.prove(&pod)
}

/// A pod whose lease its server refuses to renew is told of, and keeps its address.
fn lease_refused(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.replace(Make::Dnsmasq, FLEETING, "fleeting")?;
    let pod = stage.add("refused")?;
    let memory = if stage.does_harm() { "elsewhere" } else { "fleeting" };
    stage.replace(Make::Dnsmasq, stage.harm_or(ELSEWHERE, FLEETING), memory)?;
    stage.wait(PATIENCE, "the loss is reported", |stage| {
        let said = stage.conditions()?;
        Ok(said.contains("lease-lost") && said.contains("node1-refused"))
    })?;
    stage.prove(&pod)
}

/// After a reboot a node's pods have the addresses that they had.
fn node_restarted(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.serve_main()?;
    let addresses = |stage: &Stage<'_>| -> Vec<Vec<IpAddr>> {
        stage.cluster.pods.first().into_iter().flatten().map(|pod: &runtime::Pod| pod.ips.clone()).collect()
    };
    let before = addresses(stage);
    stage.reboot()?;
    let after = addresses(stage);
    ensure(before == after, || format!("{before:?} became {after:?}"))?;
    for pod in stage.cluster.pods.first().cloned().unwrap_or_default() {
        stage.prove(&pod)?;
    }
    Ok(())
}
