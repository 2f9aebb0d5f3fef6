//! Metrics, and health as probes ask for it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::leases::LeaseTally;
use crate::reconcile::ReconcileReport;

/// Shared by the loop and the HTTP server, which run on one thread.
pub(crate) type SharedHealth = Rc<RefCell<Health>>;

/// What the last pass told.
#[derive(Debug)]
pub(crate) struct Health {
    registry: Registry,
    /// Passes come at least this often.
    longest_pause: Duration,
    last_pass: Instant,
    ready: Result<(), String>,
    passes: Counter<u64, AtomicU64>,
    changes: Counter<u64, AtomicU64>,
    failures: Counter<u64, AtomicU64>,
    reclaimed: Counter<u64, AtomicU64>,
    pass_seconds: Gauge<f64, AtomicU64>,
    pass_with_changes_seconds: Gauge<f64, AtomicU64>,
    convergence_seconds: Gauge<f64, AtomicU64>,
    first_convergence_seconds: Gauge<f64, AtomicU64>,
    /// A pass over the source's own nodes was made.
    has_converged: bool,
    synced: Gauge<i64, AtomicI64>,
    announced: Gauge<i64, AtomicI64>,
    converged: Gauge<i64, AtomicI64>,
    nodes: Gauge<i64, AtomicI64>,
    routed: Gauge<i64, AtomicI64>,
    unrouted: Gauge<i64, AtomicI64>,
    attachments: Gauge<i64, AtomicI64>,
    conditions: Gauge<i64, AtomicI64>,
    leases: LeaseTally,
}

impl Health {
    /// Before the first pass; `resync` is the longest pause between passes.
    pub(crate) fn new(resync: Duration) -> Self {
        let mut health = Self {
            registry: Registry::with_prefix("hostgw"),
            longest_pause: resync,
            last_pass: Instant::now(),
            ready: Err("no pass was made yet".to_owned()),
            passes: Counter::default(),
            changes: Counter::default(),
            failures: Counter::default(),
            reclaimed: Counter::default(),
            pass_seconds: Gauge::default(),
            pass_with_changes_seconds: Gauge::default(),
            convergence_seconds: Gauge::default(),
            first_convergence_seconds: Gauge::default(),
            has_converged: false,
            synced: Gauge::default(),
            announced: Gauge::default(),
            converged: Gauge::default(),
            nodes: Gauge::default(),
            routed: Gauge::default(),
            unrouted: Gauge::default(),
            attachments: Gauge::default(),
            conditions: Gauge::default(),
            leases: LeaseTally::default(),
        };
        let registry = &mut health.registry;
        registry.register("passes", "Passes made", health.passes.clone());
        registry.register("changes", "Changes made to the node's network", health.changes.clone());
        registry.register(
            "failures",
            "Changes that failed, and passes that could not be made",
            health.failures.clone(),
        );
        registry.register("pod_repairs", "Things put back or freed for pods", health.reclaimed.clone());
        registry.register("pass_seconds", "Duration of the last pass", health.pass_seconds.clone());
        registry.register(
            "pass_with_changes_seconds",
            "Duration of the last pass that changed something",
            health.pass_with_changes_seconds.clone(),
        );
        registry.register(
            "convergence_seconds",
            "From the parsed snapshot to the last acknowledgement, in the last pass that changed something",
            health.convergence_seconds.clone(),
        );
        registry.register(
            "first_convergence_seconds",
            "From the parsed snapshot to the last acknowledgement, in the first pass after the start; 0 before it",
            health.first_convergence_seconds.clone(),
        );
        registry.register("source_synced", "1 once the source was read whole", health.synced.clone());
        registry.register(
            "announced",
            "1 while the node is announced to the runtime",
            health.announced.clone(),
        );
        registry.register(
            "converged",
            "1 while nothing failed and no condition is an error",
            health.converged.clone(),
        );
        registry.register("nodes", "Nodes that the source lists", health.nodes.clone());
        registry.register("peer_cidrs_routed", "Peers' pod CIDRs with a route", health.routed.clone());
        registry.register("peer_cidrs_unrouted", "Peers' pod CIDRs held or refused", health.unrouted.clone());
        registry.register("attachments", "Attached pods", health.attachments.clone());
        registry.register("conditions", "Conditions of severity error", health.conditions.clone());
        health.leases.register(registry);
        health
    }

    /// Where the keeper of leases counts.
    pub(crate) fn leases(&self) -> LeaseTally {
        self.leases.clone()
    }

    /// Takes over what a pass found and did.
    pub(crate) fn update(&mut self, report: &ReconcileReport) {
        use node_network::plan::PeerState;
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.last_pass = Instant::now();
        self.passes.inc();
        self.changes.inc_by(report.applied.made() as u64);
        self.failures.inc_by(report.applied.failures().count() as u64);
        self.reclaimed.inc_by(report.pods_done.len() as u64);
        self.pass_seconds.set(report.duration.as_secs_f64());
        if report.changed_something() {
            self.pass_with_changes_seconds.set(report.duration.as_secs_f64());
            self.convergence_seconds.set(report.applied_after.as_secs_f64());
        }
        if report.synced && !std::mem::replace(&mut self.has_converged, true) {
            self.first_convergence_seconds.set(report.applied_after.as_secs_f64());
        }
        self.synced.set(i64::from(report.synced));
        self.announced.set(i64::from(report.announced));
        self.converged.set(i64::from(report.synced && report.converged()));
        self.nodes.set(count(report.nodes));
        let routed = report.peers.iter().filter(|peer| peer.state == PeerState::Routed).count();
        self.routed.set(count(routed));
        self.unrouted.set(count(report.peers.len() - routed));
        self.attachments.set(count(report.attachments));
        let errors = report.conditions.iter().filter(|c| c.severity() == node_network::Severity::Error);
        self.conditions.set(count(errors.count()));
        self.ready = match (report.synced, report.announced) {
            (true, true) => Ok(()),
            (false, _) => Err(format!(
                "the source was not read yet{}",
                report.source_problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default()
            )),
            (true, false) => Err("the node is not announced yet: see `hostgw status`".to_owned()),
        };
    }

    /// Takes over that no pass could be made.
    pub(crate) fn fail(&mut self) {
        self.last_pass = Instant::now();
        self.failures.inc();
        self.converged.set(0);
    }

    /// The loop is alive. That the source is silent, or a peer is lost, is no reason to restart the agent.
    pub(crate) fn alive(&self) -> Result<(), String> {
        let silent = self.last_pass.elapsed();
        if silent > self.longest_pause * 3 + Duration::from_secs(30) {
            return Err(format!("the last pass was {} s ago", silent.as_secs()));
        }
        Ok(())
    }

    /// The data path was up.
    pub(crate) fn ready(&self) -> &Result<(), String> {
        &self.ready
    }

    /// All metrics in OpenMetrics' text format.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(health: &Health, name: &str) -> String {
        let text = health.metrics();
        let line =
            text.lines().find_map(|line| line.strip_prefix("hostgw_")?.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_default().to_owned()
    }

    #[test]
    fn the_first_convergence_is_that_of_the_first_pass_over_what_the_source_says() {
        let mut health = Health::new(Duration::from_secs(60));
        let pass = |synced, seconds| ReconcileReport {
            synced,
            pods_done: vec!["route to 10.244.1.7/32 put back".to_owned()],
            applied_after: Duration::from_secs(seconds),
            ..ReconcileReport::default()
        };
        health.update(&pass(false, 9));
        assert_eq!(value(&health, "first_convergence_seconds"), "0.0", "those were nodes of an earlier run");
        health.update(&pass(true, 4));
        health.update(&pass(true, 2));
        let both = ["first_convergence_seconds", "convergence_seconds"].map(|name| value(&health, name));
        assert_eq!(both, ["4.0", "2.0"]);
    }
}
