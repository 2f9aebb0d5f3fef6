//! One agent before a real API server with thousands of Nodes: how long until every route is there, how much memory and
//! traffic it takes, and how soon a change of a Node is a route.

mod fleet;
mod subject;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::wait::{Seen, wait_for};

use fleet::Fleet;
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
/// Changes of a Node that are timed.
const CHANGES: u32 = 20;
/// How often a kubelet writes its Node's status though nothing changed (`nodeStatusReportFrequency`), in seconds. Its
/// heartbeats every ten seconds are Leases, which nobody here follows.
const STATUS_PERIOD_S: u32 = 300;

/// Measures, and tells row by row, as a table of Markdown.
pub fn scale(cluster: &mut Cluster, scale: &Scale, mut tell: impl FnMut(&str)) -> Outcome {
    let api = cluster.api;
    let fleet = Fleet { api, nodes: scale.nodes };
    let began = Instant::now();
    fleet.create()?;
    let created = began.elapsed();
    fleet.wait_for_pod_cidrs(LIMIT)?;
    tell("| what | measured |");
    tell("|---|---|");
    let mut row = |what: &str, measured: String| tell(&format!("| {what} | {measured} |"));
    row("Nodes, dual-stack", scale.nodes.to_string());
    row(
        "made and given pod CIDRs in",
        format!("{:.1} s, {:.1} s", created.as_secs_f64(), began.elapsed().as_secs_f64()),
    );

    let wanted = 2 * scale.nodes as usize;
    let mut subject = Subject::prepare(cluster, scale)?;
    let idle = subject.bytes()?;
    let began = Instant::now();
    subject.start(cluster, scale)?;
    wait_for("every route", LIMIT, || {
        subject.check_alive()?;
        let there = subject.routes()?;
        Ok(if there == wanted { Seen::Yes(()) } else { Seen::NotYet(format!("{there} of {wanted} routes")) })
    })?;
    row(
        &format!("from the agent's start to all {wanted} routes"),
        format!("{:.2} s", began.elapsed().as_secs_f64()),
    );
    let listed = subject.bytes()? - idle;
    row("received for that", megabytes(listed));
    let (now, peak) = subject.memory()?;
    row("memory (RSS) then, at its highest", format!("{} MiB, {} MiB", now >> 10, peak >> 10));

    let mut changes =
        (0..CHANGES).map(|turn| subject.time_a_change(&fleet, turn)).collect::<Outcome<Vec<_>>>()?;
    changes.sort();
    let at = |part: usize| format!("{:.1} ms", changes[(changes.len() - 1) * part / 100].as_secs_f64() * 1e3);
    row(
        &format!("from the API server's answer to a change of a Node to the route ({CHANGES} times)"),
        format!("p50 {}, p95 {}, max {}", at(50), at(95), at(100)),
    );

    let (bytes, requests) = (subject.bytes()?, node_watches(api)?);
    let began = Instant::now();
    let written = fleet.heartbeats(Duration::from_secs(scale.heartbeat_seconds), STATUS_PERIOD_S)?;
    let took = began.elapsed().as_secs_f64();
    let received = subject.bytes()? - bytes;
    if written == 0 {
        return Err(TierError::Wrong(format!("no Node's status was written in {took:.0} s")));
    }
    row(
        &format!("heartbeats of Nodes' statuses, every {STATUS_PERIOD_S} s each where the machine keeps up"),
        format!("{written} in {took:.0} s"),
    );
    // By what one costs: a busy machine writes fewer of them than kubelets do.
    let an_hour = f64::from(scale.nodes) * 3600.0 / f64::from(STATUS_PERIOD_S);
    let each = received as f64 / f64::from(written);
    row("received by the agent, an hour", format!("{:.0} MB", each * an_hour / 1e6));
    row(
        "lists and watches of Nodes begun meanwhile, by all clients of the API server",
        format!("{}", node_watches(api)? - requests),
    );
    let (now, peak) = subject.memory()?;
    row("memory after that, at its highest", format!("{} MiB, {} MiB", now >> 10, peak >> 10));

    let began = Instant::now();
    fleet.delete()?;
    wait_for("no route", LIMIT, || {
        let left = subject.routes()?;
        Ok(if left == 0 { Seen::Yes(()) } else { Seen::NotYet(format!("{left} routes")) })
    })?;
    row(
        "all other Nodes deleted at once: until the last route is gone",
        format!("{:.1} s", began.elapsed().as_secs_f64()),
    );
    let (now, peak) = subject.memory()?;
    row("memory after that, at its highest", format!("{} MiB, {} MiB", now >> 10, peak >> 10));
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Requests to list or watch Nodes that the API server has begun.
fn node_watches(api: Api) -> Outcome<u64> {
    let metrics = api.get_text("/metrics")?;
    let counted = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{") && line.contains(r#"resource="nodes""#))
        .filter(|line| line.contains(r#"verb="LIST""#) || line.contains(r#"verb="WATCH""#))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    let total: u64 = counted.sum();
    if total == 0 {
        return Err(TierError::Wrong("the API server counts no request for Nodes".to_owned()));
    }
    Ok(total)
}
