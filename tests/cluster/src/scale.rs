//! One agent before a real API server with thousands of Nodes: how long until every route is there, how much memory and
//! traffic it takes, and how soon a change of a Node is a route.

mod fleet;
mod subject;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::audit::Requests;
use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::wait::{Seen, wait_for};

use fleet::Fleet;
pub(crate) use subject::NAME as SUBJECT;
use subject::Subject;

/// What to measure.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Scale {
    /// Nodes of the cluster, besides the one whose agent is measured.
    #[arg(long, default_value_t = 5000)]
    pub nodes: u32,
    /// For how many seconds Nodes' heartbeats are followed.
    #[arg(long, default_value_t = 120)]
    pub heartbeat_seconds: u64,
    /// Folder of the hostgw program that is measured.
    #[arg(long, value_name = "DIR")]
    pub hostgw: PathBuf,
    /// Folder of Kubernetes' programs and etcd, as tests/cluster/programs/build prints it.
    #[arg(long, value_name = "DIR")]
    pub programs: PathBuf,
    /// Where logs are written; a folder that is emptied first.
    #[arg(long, value_name = "DIR")]
    pub logs: PathBuf,
}

const LIMIT: Duration = Duration::from_secs(600);
/// What may come to a node besides what its agent asked for, between two looks.
const STRAY_BYTES: u64 = 16 << 10;
/// An agent that has asked nothing for so long has told all. Bad news is written after five seconds.
const SILENCE: Duration = Duration::from_secs(10);
/// Changes of a Node that are timed.
const CHANGES: u32 = 20;
/// How often a kubelet writes its Node's status though nothing changed (`nodeStatusReportFrequency`), in seconds. Its
/// heartbeats every ten seconds are Leases, which nobody here follows.
const STATUS_PERIOD_S: u32 = 300;

/// Measures, and tells row by row, as a table of Markdown.
pub fn scale(cluster: &mut Cluster, scale: &Scale, mut tell: impl FnMut(&str)) -> Outcome {
    let fleet = Fleet { api: cluster.api, nodes: scale.nodes };
    tell("| what | measured | to reach |");
    tell("|---|---|---|");
    let mut row = |what: &str, measured: &str, to_reach: &str| {
        tell(&format!("| {what} | {measured} | {to_reach} |"));
    };
    row("Nodes, dual-stack", &scale.nodes.to_string(), "");
    let began = Instant::now();
    fleet.create()?;
    let created = began.elapsed().as_secs_f64();
    fleet.wait_for_pod_cidrs(LIMIT)?;
    let given = began.elapsed().as_secs_f64();
    row("made and given pod CIDRs in", &format!("{created:.1} s, {given:.1} s"), "");

    let mut subject = Subject::prepare(cluster, scale)?;
    full_sync(cluster, scale, &mut subject, &mut row)?;
    let settled = requests_settle(cluster)?;
    row("requests until all was told", &settled.to_string(), "");
    changes(&subject, &fleet, &mut row)?;
    heartbeats(cluster, scale, &subject, &mut row)?;
    let requests = requests(cluster)?.since(&settled);
    row(
        "requests that changed something since, with routes changed and heartbeats heard",
        &requests.writes().to_string(),
        "0",
    );
    deletes(&mut subject, &fleet, &mut row)
}

/// The agent starts, lists, and makes every route.
fn full_sync(
    cluster: &Cluster,
    scale: &Scale,
    subject: &mut Subject,
    row: &mut impl FnMut(&str, &str, &str),
) -> Outcome {
    let wanted = 2 * scale.nodes as usize;
    let idle = subject.bytes()?;
    let began = Instant::now();
    subject.start(cluster, scale)?;
    // No more of the list came than what the last look that saw some missed: after the look before it.
    let (mut received, mut looked, mut listed) = (idle, began, began);
    wait_for("every route", LIMIT, || {
        subject.check_alive()?;
        let before = std::mem::replace(&mut looked, Instant::now());
        let bytes = subject.bytes()?;
        if bytes > received + STRAY_BYTES {
            (received, listed) = (bytes, before);
        }
        let there = subject.routes()?;
        Ok(if there == wanted { Seen::Yes(()) } else { Seen::NotYet(format!("{there} of {wanted} routes")) })
    })?;
    row(
        "from the agent's start to the list's end, at the earliest",
        &seconds(listed.duration_since(began)),
        "",
    );
    row(&format!("from there to all {wanted} routes, at most"), &seconds(listed.elapsed()), "2 s");
    row("received for that", &megabytes(subject.bytes()? - idle), "");
    row("memory (RSS) then, at its highest", &memory(subject)?, "30 MiB");
    Ok(())
}

/// Waits until the agent has told what there is to tell, and gives all requests until then.
fn requests_settle(cluster: &Cluster) -> Outcome<Requests> {
    let mut last = (requests(cluster)?, Instant::now());
    wait_for("the agent to be silent", LIMIT, || {
        let now = requests(cluster)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok(if last.1.elapsed() >= SILENCE {
            Seen::Yes(last.0.clone())
        } else {
            Seen::NotYet(format!("requests until now: {}", last.0))
        })
    })
}

fn requests(cluster: &Cluster) -> Outcome<Requests> {
    let none = || TierError::Wrong("this API server logs no requests".to_owned());
    cluster.audit.as_ref().ok_or_else(none)?.requests()
}

/// Nodes that get another address, one by one.
fn changes(subject: &Subject, fleet: &Fleet, row: &mut impl FnMut(&str, &str, &str)) -> Outcome {
    let mut changes =
        (0..CHANGES).map(|turn| subject.time_a_change(fleet, turn)).collect::<Outcome<Vec<_>>>()?;
    changes.sort();
    let at = |part: usize| format!("{:.1} ms", changes[(changes.len() - 1) * part / 100].as_secs_f64() * 1e3);
    row(
        &format!("from the API server's answer to a change of a Node to the route ({CHANGES} times)"),
        &format!("p50 {}, p95 {}, max {}", at(50), at(95), at(100)),
        "50 ms",
    );
    Ok(())
}

/// What an agent hears while every Node beats.
fn heartbeats(
    cluster: &Cluster,
    scale: &Scale,
    subject: &Subject,
    row: &mut impl FnMut(&str, &str, &str),
) -> Outcome {
    let (bytes, asked) = (subject.bytes()?, requests(cluster)?);
    let fleet = Fleet { api: cluster.api, nodes: scale.nodes };
    let began = Instant::now();
    let written = fleet.heartbeats(Duration::from_secs(scale.heartbeat_seconds), STATUS_PERIOD_S)?;
    let took = began.elapsed().as_secs_f64();
    let received = subject.bytes()? - bytes;
    if written == 0 {
        return Err(TierError::Wrong(format!("no Node's status was written in {took:.0} s")));
    }
    row(
        &format!("heartbeats of Nodes' statuses, every {STATUS_PERIOD_S} s each where the machine keeps up"),
        &format!("{written} in {took:.0} s"),
        "",
    );
    // By what one costs: a busy machine writes fewer of them than kubelets do.
    let an_hour = f64::from(scale.nodes) * 3600.0 / f64::from(STATUS_PERIOD_S);
    let each = received as f64 / f64::from(written);
    row("received by the agent, an hour", &format!("{:.0} MB", each * an_hour / 1e6), "");
    row("requests of the agent meanwhile", &requests(cluster)?.since(&asked).to_string(), "");
    row("memory after that, at its highest", &memory(subject)?, "30 MiB");
    Ok(())
}

/// Every other Node goes at once.
fn deletes(subject: &mut Subject, fleet: &Fleet, row: &mut impl FnMut(&str, &str, &str)) -> Outcome {
    let began = Instant::now();
    fleet.delete()?;
    let deleted = began.elapsed();
    wait_for("no route", LIMIT, || {
        subject.check_alive()?;
        let left = subject.routes()?;
        Ok(if left == 0 { Seen::Yes(()) } else { Seen::NotYet(format!("{left} routes")) })
    })?;
    row("all other Nodes deleted at once: until the API server has deleted the last", &seconds(deleted), "");
    row("until the last route is gone", &seconds(began.elapsed()), "");
    row("memory after that, at its highest", &memory(subject)?, "30 MiB");
    Ok(())
}

/// Memory now and at its highest.
fn memory(subject: &Subject) -> Outcome<String> {
    let (now, peak) = subject.memory()?;
    Ok(format!("{} MiB, {} MiB", now >> 10, peak >> 10))
}

fn seconds(length: Duration) -> String {
    format!("{:.2} s", length.as_secs_f64())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
