//! Streams of packets between pods of two nodes, under which things are restarted: none may be lost.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::pod::PORT;
use crate::pod::stream::Flows;
use crate::wait::{Seen, wait_for};
use crate::workload::{PodSpec, create_service, delete_pods, delete_service, wait_running};

const SERVER: &str = "stream-server";
const CLIENT: &str = "stream-client";
/// How many more answers show that a flow still flows.
const ENOUGH: u64 = 100;
const LIMIT: Duration = Duration::from_secs(180);

/// Streams between two pods, over TCP and UDP, IPv4 and IPv6, to the pod's addresses and through its Service.
pub(super) struct Traffic {
    flows: usize,
}

impl Traffic {
    pub(super) fn start(cluster: &Cluster) -> Outcome<Self> {
        let api = cluster.api;
        PodSpec::server(SERVER, "kn2").create(api)?;
        let (services, _) = create_service(api, SERVER, false)?;
        let server = wait_running(api, &[SERVER])?;
        let ips = server.iter().flat_map(|server| &server.ips).chain(&services);
        let stream_to: Vec<SocketAddr> = ips.map(|ip| SocketAddr::new(*ip, PORT)).collect();
        let traffic = Self { flows: 2 * stream_to.len() };
        PodSpec { stream_to, ..PodSpec::server(CLIENT, "kn1") }.create(api)?;
        wait_running(api, &[CLIENT])?;
        wait_for("all streams to flow", LIMIT, || {
            let counts = cluster.kubectl.counts(CLIENT)?;
            let flowing = counts.values().filter(|flow| flow.answered > ENOUGH).count();
            Ok(if flowing == traffic.flows { Seen::Yes(()) } else { Seen::NotYet(format!("{counts:?}")) })
        })?;
        Ok(traffic)
    }

    /// What is lost while `work` is done is an error; else what flowed is told.
    pub(super) fn unharmed(
        &self,
        cluster: &mut Cluster,
        work: impl FnOnce(&mut Cluster) -> Outcome,
    ) -> Outcome<String> {
        let before = cluster.kubectl.counts(CLIENT)?;
        work(cluster)?;
        // Until as many answers came after the work: what it broke late is seen too.
        let middle = cluster.kubectl.counts(CLIENT)?;
        let after = wait_for("every stream to go on", LIMIT, || {
            let now = cluster.kubectl.counts(CLIENT)?;
            let stands = middle
                .iter()
                .find(|(name, flow)| now.get(*name).is_none_or(|now| now.answered < flow.answered + ENOUGH));
            Ok(stands.map_or(Seen::Yes(now.clone()), |(name, _)| Seen::NotYet(format!("{name} stands"))))
        })?;
        judge(&before, &after, self.flows)
    }

    pub(super) fn stop(self, cluster: &Cluster) -> Outcome {
        delete_service(cluster.api, SERVER)?;
        delete_pods(cluster.api, &[CLIENT, SERVER])
    }
}

fn judge(before: &Flows, after: &Flows, flows: usize) -> Outcome<String> {
    if before.len() != flows || after.len() != flows {
        return Err(TierError::Wrong(format!(
            "{flows} streams were started, {} and {} counted",
            before.len(),
            after.len()
        )));
    }
    let (mut answered, mut longest) = (0, 0);
    for (name, flow) in after {
        let since = flow.since(&before[name]);
        if since.lost > 0 || since.broken > 0 {
            return Err(TierError::Wrong(format!(
                "{name}: {} packets lost, {} connections broken, {} answered",
                since.lost, since.broken, since.answered
            )));
        }
        (answered, longest) = (answered + since.answered, longest.max(since.longest_ms));
    }
    Ok(format!(
        "{answered} packets of {flows} flows, none lost, no connection broken, longest answer {longest} ms"
    ))
}

/// Starts traffic, does `work` under it, and stops it.
pub(super) fn under_traffic(
    cluster: &mut Cluster,
    work: impl FnOnce(&mut Cluster) -> Outcome,
) -> Outcome<String> {
    let traffic = Traffic::start(cluster)?;
    let outcome = traffic.unharmed(cluster, work);
    let stopped = traffic.stop(cluster);
    let proven = outcome?;
    stopped.map(|()| proven)
}

#[cfg(test)]
mod tests {
    use crate::pod::stream::Flow;

    use super::*;

    fn flows(lost: u64, broken: u64) -> Flows {
        [("udp:10.0.0.1:80".to_owned(), Flow { answered: 10, lost, broken, longest_ms: 1 })].into()
    }

    #[test]
    fn a_lost_packet_and_a_broken_connection_are_each_an_error_unless_they_are_older() {
        assert!(judge(&flows(0, 0), &flows(0, 0), 1).is_ok());
        assert!(judge(&flows(1, 1), &flows(1, 1), 1).is_ok());
        assert!(judge(&flows(0, 0), &flows(1, 0), 1).is_err());
        assert!(judge(&flows(0, 0), &flows(0, 1), 1).is_err());
        assert!(judge(&flows(0, 0), &flows(0, 0), 2).is_err());
    }
}
