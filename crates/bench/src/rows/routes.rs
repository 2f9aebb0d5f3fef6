//! Ten thousand routes into an empty table, beside `ip -batch`.

use std::fmt::Write;
use std::path::Path;

use bench::{Row, Samples, Unit};

use crate::agent_process::{Agent, metric};
use crate::clock::timed;
use crate::cluster_file::{Cluster, pod_cidr4, pod_cidr6};
use crate::error::{Attempting, BenchError};
use crate::node::{Home, ip_batch_file};
use crate::programs::Programs;

/// Peers with a pod CIDR in each family.
const PEERS: usize = 5_000;

/// From the parsed snapshot to the kernel's last acknowledgement, in the agent's first pass, as its
/// `first_convergence_seconds` says.
pub(crate) fn rows(home: &Home, programs: &Programs, rounds: usize) -> Result<Vec<Row>, BenchError> {
    let (mut ours, mut batch) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        home.node()?;
        Cluster { peers: PEERS, ..Cluster::default() }.write()?;
        let agent = Agent::start(&programs.agent, 2 * PEERS)?;
        ours.push(metric("first_convergence_seconds")? * 1e3);
        drop(agent);

        home.node()?;
        let file = Path::new("/run/routes");
        std::fs::write(file, commands()).attempting("write the routes for ip -batch")?;
        batch.push(timed(|| ip_batch_file(file, false))?);
    }
    let note = format!("{} routes, median of {rounds}; reference: ip -batch", 2 * PEERS);
    Ok(vec![
        Row::against_reference("routes-10000", Unit::Ms, ours.median(), batch.median(), 0.4).noting(note),
    ])
}

/// The same routes.
fn commands() -> String {
    let mut commands = String::new();
    for peer in 1..=PEERS {
        let host = peer + 256;
        // Writing to a String cannot fail.
        let _ = writeln!(
            commands,
            "route add {} via 192.0.{}.{} dev uplink proto 104\nroute add {} via 2001:db8::{host:x} dev uplink proto 104",
            pod_cidr4(peer),
            host >> 8,
            host & 255,
            pod_cidr6(peer)
        );
    }
    commands
}
