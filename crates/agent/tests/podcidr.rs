//! `hostgw podcidr assign`: nodes without pod CIDRs get them, those with keep theirs, and one at a time gives them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use agent::{Ended, Location, PodCidrOptions, assign_once, assign_until};
use node_network::pod_cidr_allocation::{ClusterRange, cluster_ranges};
use serde_json::{Value, json};
use support::api_server::{ApiServer, Fault, dual_object, node_object};
use support::{enter_new_namespace, wait_until};
use tempfile::TempDir;
use tokio::sync::oneshot;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/hostgw-podcidr";

struct Cluster {
    server: ApiServer,
    folder: TempDir,
}

impl Cluster {
    fn new() -> Self {
        enter_new_namespace();
        Self { server: ApiServer::start(), folder: tempfile::tempdir().unwrap() }
    }

    fn options(&self, identity: &str) -> PodCidrOptions {
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, self.server.kubeconfig()).unwrap();
        let range = |cidr: &str, bits| ClusterRange::new(cidr.parse().unwrap(), bits).unwrap();
        PodCidrOptions {
            location: Location::Kubeconfig { path, context: None },
            ranges: cluster_ranges([range("10.244.0.0/16", 24), range("fd00:10:244::/48", 64)]).unwrap(),
            identity: identity.to_owned(),
            lease_namespace: "kube-system".to_owned(),
            lease_name: "hostgw-podcidr".to_owned(),
        }
    }

    fn bare(&self, name: &str) {
        self.server.apply(node_object(name, &[], &["192.0.2.50"]));
    }

    fn cidrs(&self, name: &str) -> Value {
        self.server
            .object(&format!("/api/v1/nodes/{name}"))
            .map_or(Value::Null, |mut node| node["spec"]["podCIDRs"].take())
    }
}

#[test]
fn nodes_without_pod_cidrs_get_them_and_the_others_keep_theirs() {
    let cluster = Cluster::new();
    cluster.server.apply(dual_object(1));
    cluster.bare("a");
    cluster.bare("b");
    let report = assign_once(&cluster.options("one")).unwrap();
    assert_eq!((report.assigned.len(), report.unchanged, report.problems.len()), (2, 1, 0), "{report}");
    assert_eq!(cluster.cidrs("a"), json!(["10.244.0.0/24", "fd00:10:244::/64"]));
    assert_eq!(cluster.cidrs("b"), json!(["10.244.2.0/24", "fd00:10:244:2::/64"]));
    assert_eq!(cluster.cidrs("node1"), json!(["10.244.1.0/24", "fd00:10:244:1::/64"]));
    assert_eq!(cluster.server.object("/api/v1/nodes/a").unwrap()["spec"]["podCIDR"], "10.244.0.0/24");
    assert_eq!(cluster.server.object(LEASE).unwrap()["spec"]["holderIdentity"], "", "it was given back");
    let again = assign_once(&cluster.options("one")).unwrap();
    assert_eq!((again.assigned.len(), again.unchanged), (0, 3));
}

#[test]
fn nodes_that_join_get_theirs_and_a_second_allocator_waits() {
    let cluster = Cluster::new();
    let stop_first = start(cluster.options("first"));
    wait_until("the first holds the Lease", || holder(&cluster) == "first");
    let stop_second = start(cluster.options("second"));
    cluster.bare("a");
    wait_until("a has its own", || cluster.cidrs("a") == json!(["10.244.0.0/24", "fd00:10:244::/64"]));
    for n in 0..20 {
        cluster.bare(&format!("n{n}"));
    }
    wait_until("all have theirs", || (0..20).all(|n| cluster.cidrs(&format!("n{n}")) != json!([])));
    let mut all: Vec<String> = (0..20).map(|n| cluster.cidrs(&format!("n{n}")).to_string()).collect();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), holder(&cluster).as_str()), (20, "first"));
    // It gives the Lease back, and the second goes on.
    stop_first();
    wait_until("the second holds the Lease", || holder(&cluster) == "second");
    cluster.bare("b");
    wait_until("b has its own", || cluster.cidrs("b") == json!(["10.244.21.0/24", "fd00:10:244:15::/64"]));
    stop_second();
}

#[test]
fn a_server_that_refuses_is_told_and_nothing_is_given() {
    let cluster = Cluster::new();
    cluster.bare("a");
    cluster.server.set_fault(Fault::Refuses(403, "leases is forbidden"));
    let error = assign_once(&cluster.options("one")).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("leases is forbidden"), "{error}");
    cluster.server.set_fault(Fault::None);
    assert_eq!(cluster.cidrs("a"), json!([]));
    cluster.server.refuse_writes("/api/v1/nodes", 422);
    let report = assign_once(&cluster.options("one")).unwrap();
    assert!(report.assigned.is_empty() && report.problems[0].contains("node `a`"), "{report}");
}

#[test]
fn an_allocator_that_watches_says_why_it_gives_nothing() {
    let cluster = Cluster::new();
    cluster.bare("a");
    cluster.server.forbid("GET", "/api/v1/nodes");
    let log = cluster.folder.path().join("log");
    let stop = start_logged(cluster.options("one"), &log);
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("the refusal is told", || told().contains("403") && told().contains("grant it"));
    assert_eq!(cluster.cidrs("a"), json!([]));
    cluster.server.allow_all();
    wait_until("a has its own", || cluster.cidrs("a") == json!(["10.244.0.0/24", "fd00:10:244::/64"]));
    // A backup from before that: somebody may have what it no longer knows.
    cluster.server.restore(500, &[node_object("b", &[], &["192.0.2.51"])]);
    wait_until("that nothing is given is told", || told().contains("went back from version"));
    assert_eq!(cluster.cidrs("b"), json!([]));
    stop();
}

fn holder(cluster: &Cluster) -> String {
    let lease = cluster.server.object(LEASE).unwrap_or_default();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// Runs until what is returned is called.
fn start(options: PodCidrOptions) -> impl FnOnce() {
    start_logged(options, "/dev/null".as_ref())
}

fn start_logged(options: PodCidrOptions, log: &std::path::Path) -> impl FnOnce() + use<> {
    let log = std::sync::Arc::new(std::fs::File::create(log).unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log).finish();
        let _logged = tracing::subscriber::set_default(subscriber);
        let stop = async move {
            stopped.await.ok();
            Ok(Ended::Terminated)
        };
        assign_until(&options, stop).unwrap();
    });
    move || {
        stop.send(()).unwrap();
        thread.join().unwrap();
    }
}
