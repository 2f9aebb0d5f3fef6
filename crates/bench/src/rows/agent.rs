//! The running agent: one change among many nodes, heartbeats, foreign routes, repairs, and rest.

use std::fmt::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bench::{Row, Samples, Unit};
use kernel::events::{Events, Group, Heard};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::route::{self, Route};

use crate::agent_process::{Agent, metric};
use crate::clock::{milliseconds, wait_for};
use crate::cluster_file::{Cluster, NODE_ROUTE_PROTOCOL, pod_cidr4};
use crate::error::{Attempting, BenchError};
use crate::node::{Home, ip_batch, ip_batch_file};
use crate::programs::Programs;

/// `RTM_NEWROUTE` and `RTM_DELROUTE`.
const ROUTE_WRITTEN: [u16; 2] = [24, 25];
const PATIENCE: Duration = Duration::from_secs(30);
/// A program that keeps undoing is answered once a second (`agent/src/run/pace.rs`); this is slower.
const BETWEEN_REPAIRS: Duration = Duration::from_millis(1_100);

/// One changed node among `peers`: what is written, and how long the pass takes; and heartbeats.
pub(crate) fn change(home: &Home, programs: &Programs, peers: usize) -> Result<Vec<Row>, BenchError> {
    home.node()?;
    let cluster = Cluster { peers, ..Cluster::default() };
    cluster.write()?;
    let agent = Agent::start(&programs.agent, 2 * peers)?;
    let mut events = route_events()?;
    let (mut writes, mut passes) = (Samples::default(), Samples::default());
    for round in 0..6 {
        let before = metric("changes_total")?;
        Cluster { last_peer_moved: round % 2 == 0, ..cluster }.write()?;
        wait_for("the changed node", PATIENCE, || Ok((metric("changes_total")? > before).then_some(())))?;
        passes.push(metric("pass_with_changes_seconds")? * 1e3);
        agent.rest()?;
        writes.push(f64::from(drain(&mut events)?));
    }
    let before = metric("passes_total")?;
    for heartbeat in 1..=5 {
        Cluster { heartbeat, ..cluster }.write()?;
        sleep(Duration::from_millis(500));
    }
    let woken = metric("passes_total")? - before;
    let among = format!("one node's address changes among {peers} nodes");
    Ok(vec![
        Row::limit("change-writes", Unit::Count, writes.max(), 4.0)
            .noting(format!("{among}: routes written")),
        Row::limit("change-pass", Unit::Ms, passes.median(), 30.0).noting(format!("{among}: the whole pass")),
        Row::limit("heartbeat-passes", Unit::Count, Some(woken), 0.0)
            .noting("passes after five heartbeats that change nothing else"),
    ])
}

/// How a pass grows with other people's routes: two nodes, one of them with such routes, each repairs in turn.
pub(crate) fn foreign_routes(
    home: &Home,
    programs: &Programs,
    foreign: usize,
) -> Result<Vec<Row>, BenchError> {
    const PEERS: usize = 1_000;
    const ROUNDS: usize = 20;
    let start = || {
        let node = home.node()?;
        Cluster { peers: PEERS, ..Cluster::default() }.write()?;
        Ok((node, Agent::start(&programs.agent, 2 * PEERS)?))
    };
    let (empty, _agent) = start()?;
    let (crowded, agent) = start()?;
    let file = Path::new("/run/foreign");
    let mut commands = String::new();
    for number in 0..foreign {
        // Writing to a String cannot fail.
        let _ = writeln!(
            commands,
            "route add 30.{}.{}.{}/32 dev uplink proto static",
            number >> 16,
            number >> 8 & 255,
            number & 255
        );
    }
    std::fs::write(file, commands).attempting("write foreign routes")?;
    ip_batch_file(file, false)?;
    agent.rest()?;
    let (mut without, mut with) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        for (node, samples) in [(&empty, &mut without), (&crowded, &mut with)] {
            node.enter()?;
            samples.push(time_a_repair(1 + round % PEERS)?);
        }
        sleep(BETWEEN_REPAIRS);
    }
    let mut row = Row::against_reference("foreign-routes", Unit::Ms, with.max(), without.max(), 1.5);
    row.reference = None;
    row.floor = without.max();
    let medians = [&with, &without].map(|samples| samples.median().unwrap_or_default());
    Ok(vec![row.noting(format!(
        "slowest repair with {foreign} foreign routes; floor: with none; medians {:.1} and {:.1}; {ROUNDS} each in turn, \
         {PEERS} peers",
        medians[0], medians[1]
    ))])
}

/// The duration of the pass that puts back a peer's route after somebody has deleted it, in ms.
fn time_a_repair(peer: usize) -> Result<f64, BenchError> {
    let before = metric("changes_total")?;
    ip_batch(&format!("route del {} proto {NODE_ROUTE_PROTOCOL}\n", pod_cidr4(peer)), false)?;
    wait_for("a pass", PATIENCE, || Ok((metric("changes_total")? > before).then_some(())))?;
    Ok(metric("pass_with_changes_seconds")? * 1e3)
}

/// A route that somebody deletes.
pub(crate) fn repair(home: &Home, programs: &Programs, rounds: usize) -> Result<Vec<Row>, BenchError> {
    const PEERS: usize = 100;
    home.node()?;
    Cluster { peers: PEERS, ..Cluster::default() }.write()?;
    let _agent = Agent::start(&programs.agent, 2 * PEERS)?;
    let mut socket = Socket::open(Protocol::Route).attempting("open a netlink socket")?;
    let mut samples = Samples::default();
    for round in 0..rounds {
        let pod_cidr = pod_cidr4(1 + round % PEERS).parse().attempting("read a pod CIDR")?;
        let found = route::dump(
            &mut socket,
            route::Family::V4,
            route::Filter { protocol: Some(NODE_ROUTE_PROTOCOL), ..Default::default() },
        );
        let ours: Vec<Route> = found.attempting("dump routes")?;
        let Some(doomed) = ours.iter().find(|route| route.destination == pod_cidr) else {
            return Err(BenchError::new("delete a route of ours", format!("{pod_cidr} has none")));
        };
        let mut events = route_events()?;
        let mut batch = Batch::new();
        route::delete(&mut batch, doomed);
        let began = Instant::now();
        socket.execute_all(&mut batch).attempting("delete a route of ours")?;
        let mut back = false;
        while !back {
            if began.elapsed() > PATIENCE {
                return Err(BenchError::new(format!("see {pod_cidr} come back"), "it did not"));
            }
            let heard = events.read(|kind, payload| {
                back |= kind == ROUTE_WRITTEN[0]
                    && Route::parse(payload).is_some_and(|route| route.destination == pod_cidr);
            });
            if heard.attempting("hear of routes")? == Heard::Nothing {
                events.wait(PATIENCE).attempting("wait for routes")?;
            }
        }
        samples.push(milliseconds(began.elapsed()));
        sleep(BETWEEN_REPAIRS);
    }
    let note = |what: &str| format!("{what} of {rounds}, {PEERS} peers");
    Ok(vec![
        Row::limit("repair-median", Unit::Ms, samples.median(), 10.0).noting(note("median")),
        Row::limit("repair-p99", Unit::Ms, samples.percentile(99), 100.0).noting(note("99th percentile")),
    ])
}

/// Its server keeps a timer for ten seconds after the last question, and is woken by that once more.
const SERVER_FORGETS: Duration = Duration::from_secs(11);

/// An agent that has nothing to do, and is asked nothing.
pub(crate) fn idle(home: &Home, programs: &Programs, seconds: u64) -> Result<Vec<Row>, BenchError> {
    const PEERS: usize = 1_000;
    home.node()?;
    Cluster { peers: PEERS, ..Cluster::default() }.write()?;
    let agent = Agent::start(&programs.agent, 2 * PEERS)?;
    sleep(SERVER_FORGETS);
    let before = agent.wake_ups()?;
    sleep(Duration::from_secs(seconds));
    let woken = agent.wake_ups()? - before;
    Ok(vec![
        Row::limit("idle-wake-ups", Unit::Count, Some(woken), 0.0)
            .noting(format!("context switches in {seconds} s")),
        Row::limit("idle-memory", Unit::MiB, Some(agent.resident()?), 15.0)
            .noting(format!("VmRSS, {PEERS} peers")),
    ])
}

fn route_events() -> Result<Events, BenchError> {
    Events::subscribe(Protocol::Route, &[Group::Ipv4Routes, Group::Ipv6Routes], Some(1 << 20))
        .attempting("subscribe to routes")
}

/// How many routes were written since the last call.
fn drain(events: &mut Events) -> Result<u32, BenchError> {
    let mut written = 0;
    loop {
        let heard = events.read(|kind, _| written += u32::from(ROUTE_WRITTEN.contains(&kind)));
        if heard.attempting("hear of routes")? == Heard::Nothing {
            return Ok(written);
        }
    }
}
