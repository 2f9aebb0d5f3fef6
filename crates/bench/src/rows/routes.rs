//! Ten thousand routes into an empty table, beside `ip -batch` and what the kernel takes for them.

use std::fmt::Write;
use std::path::Path;

use bench::{Row, Samples, Unit};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::route::{self, Hop, Route};

use crate::agent_process::{Agent, metric};
use crate::clock::timed;
use crate::cluster_file::{Cluster, NODE_ROUTE_PROTOCOL as OURS, addresses, pod_cidr4, pod_cidr6};
use crate::error::{Attempting, BenchError};
use crate::node::{Home, ip_batch_file};
use crate::programs::Programs;

/// Peers with a pod CIDR in each family.
const PEERS: usize = 5_000;

/// From the parsed snapshot to the kernel's last acknowledgement, in the agent's first pass, as its
/// `first_convergence_seconds` says.
pub(crate) fn rows(home: &Home, programs: &Programs, rounds: usize) -> Result<Vec<Row>, BenchError> {
    let (mut ours, mut batch) = (Samples::default(), Samples::default());
    let (mut floor, mut one_router) = (Samples::default(), Samples::default());
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

        home.node()?;
        floor.push(kernel_alone(|peer| peer)?);
        home.node()?;
        one_router.push(kernel_alone(|_| 1)?);
    }
    let shown =
        |samples: &Samples| samples.median().map_or_else(|| "–".to_owned(), |value| format!("{value:.0} ms"));
    let note = format!(
        "{} routes, median of {rounds}; reference: ip -batch; floor: the kernel's answer to 32 KiB batches, and {} where all \
         routes have one router",
        2 * PEERS,
        shown(&one_router)
    );
    let row =
        Row::against_reference("routes-10000", Unit::Ms, ours.median(), batch.median(), 0.4).noting(note);
    Ok(vec![Row { floor: floor.median(), ..row }])
}

/// The milliseconds from the first byte that is sent to the last acknowledgement; the routes of a peer lead to `router`.
fn kernel_alone(router: impl Fn(usize) -> usize) -> Result<f64, BenchError> {
    let mut socket = Socket::open(Protocol::Route).attempting("open a socket for routes")?;
    socket.enlarge_receive_buffer();
    let uplink = kernel::link::by_name(&mut socket, "uplink").attempting("look for the uplink")?;
    let index = uplink.map(|link| link.index);
    let mut routes = Batch::new();
    for peer in 1..=PEERS {
        let (router4, router6) = addresses(router(peer));
        for (destination, router) in [(pod_cidr4(peer), router4), (pod_cidr6(peer), router6)] {
            let destination = destination.parse().attempting("write a route's destination")?;
            let gateway = Some(router.parse().attempting("write a route's router")?);
            let hops = vec![Hop { gateway, index, ..Hop::default() }];
            route::add(&mut routes, &Route { protocol: OURS, hops, ..Route::to(destination) });
        }
    }
    timed(|| socket.execute_all(&mut routes).attempting("add the routes"))
}

/// The same routes, for `ip -batch`.
fn commands() -> String {
    let mut commands = String::new();
    for peer in 1..=PEERS {
        let (router4, router6) = addresses(peer);
        let (pods4, pods6) = (pod_cidr4(peer), pod_cidr6(peer));
        // Writing to a String cannot fail.
        let _ = writeln!(
            commands,
            "route add {pods4} via {router4} dev uplink proto {OURS}\nroute add {pods6} via {router6} dev uplink proto {OURS}"
        );
    }
    commands
}
