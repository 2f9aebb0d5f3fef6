//! Faults that are planted, so that it is known that the checks would see them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::pod::ask::Target;
use crate::workload::{PodSpec, delete_pods, wait_running};

use super::leaks::{nothing_left_over, settled};
use super::reach::all_answered;
use super::traffic::under_traffic;

const STRAY: &str = "/run/hostgw/ipam/hostgw/records/planted:eth0";

pub(super) fn planted_faults_are_seen(cluster: &mut Cluster) -> Outcome<String> {
    nothing_left_over(cluster)?;
    silence_is_seen(cluster)?;
    loss_is_seen(cluster)?;
    leak_is_seen(cluster)?;
    Ok("a server that is not there, packets that are dropped for a moment, a record of no pod: each was called wrong"
        .to_owned())
}

fn must_fail(what: &str, outcome: &Outcome) -> Outcome {
    match outcome {
        Ok(_) => Err(TierError::Wrong(format!("nobody noticed {what}"))),
        Err(_) => Ok(()),
    }
}

fn silence_is_seen(cluster: &Cluster) -> Outcome {
    let api = cluster.api;
    PodSpec::server("asks", "kn1").create(api)?;
    let pods = wait_running(api, &["asks"])?;
    // Nobody listens at this port.
    let nowhere: Vec<Target> =
        pods[0].ips.iter().map(|ip| Target { tcp: true, address: SocketAddr::new(*ip, 9) }).collect();
    let answers = cluster.kubectl.ask("asks", &nowhere)?;
    must_fail("that a server was silent", &all_answered("planted", &answers, &["asks"], &[]))?;
    delete_pods(api, &["asks"])
}

fn loss_is_seen(cluster: &mut Cluster) -> Outcome {
    let outcome = under_traffic(cluster, |cluster| {
        let node = cluster.node("kn1")?;
        // One datagram of a stream, on its way through the node.
        let rules = "add table inet planted; add chain inet planted forward { type filter hook forward priority -300; }; \
                     add rule inet planted forward udp dport 8080 numgen inc mod 50 0 counter drop";
        node.run("nft", &[rules])?;
        let dropped = crate::wait::wait_for("a packet to be dropped", Duration::from_secs(120), || {
            let listed = node.run("nft", &["list", "chain", "inet", "planted", "forward"])?;
            Ok(if listed.contains("packets 0 ") {
                crate::wait::Seen::NotYet(listed)
            } else {
                crate::wait::Seen::Yes(())
            })
        });
        node.run("nft", &["delete", "table", "inet", "planted"])?;
        dropped
    });
    match outcome {
        Err(TierError::Wrong(what)) if what.contains("lost") => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(TierError::Wrong("nobody noticed that packets were dropped".to_owned())),
    }
}

fn leak_is_seen(cluster: &Cluster) -> Outcome {
    let node = cluster.node("kn1")?;
    node.run("touch", &[STRAY])?;
    let outcome = settled(cluster.api, node, Duration::ZERO);
    node.run("rm", &["-f", STRAY])?;
    must_fail("a record of no pod", &outcome)
}
