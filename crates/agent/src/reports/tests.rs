use super::*;
use node_network::PodReference;
use node_network::plan::{PeerReport, PeerState};

fn report(announced: bool, peers: &[PeerState], conditions: Vec<Condition>) -> ReconcileReport {
    let peer = |state: &PeerState| PeerReport {
        node: NodeName::new("node2").unwrap(),
        pod_cidr: "10.244.2.0/24".parse().unwrap(),
        next_hop: None,
        link: None,
        state: *state,
    };
    ReconcileReport {
        synced: true,
        announced,
        peers: peers.iter().map(peer).collect(),
        conditions,
        ..ReconcileReport::default()
    }
}

fn unavailable(report: &ReconcileReport) -> (bool, &'static str) {
    let wanted = wanted(report, &Settings::default()).condition.unwrap();
    (wanted.unavailable, wanted.reason)
}

#[test]
fn the_network_is_unavailable_before_the_announcement_and_without_any_peer() {
    let no_cidr = Condition::NoPodCidr { node: NodeName::new("node1").unwrap() };
    let waiting = report(false, &[], vec![Condition::NotAnnounced, no_cidr.clone()]);
    assert_eq!(unavailable(&waiting), (true, "NotAnnounced"));
    assert_eq!(wanted(&waiting, &Settings::default()).condition.unwrap().message, no_cidr.to_string());
    assert_eq!(unavailable(&report(true, &[PeerState::Refused], vec![])), (true, "NoPeerReachable"));
    for peers in [&[][..], &[PeerState::Refused, PeerState::Routed], &[PeerState::Held]] {
        assert_eq!(unavailable(&report(true, peers, vec![])), (false, "RoutesInstalled"), "{peers:?}");
    }
}

#[test]
fn a_source_that_was_not_read_says_nothing() {
    let report = ReconcileReport { synced: false, ..report(true, &[], vec![]) };
    assert_eq!(wanted(&report, &Settings::default()), Wanted::default());
}

#[test]
fn only_what_matters_is_an_event_under_a_name_that_kubectl_shows() {
    let conditions = vec![Condition::NoPodCidr { node: NodeName::new("node1").unwrap() }];
    let told = occurrences(&report(true, &[], conditions), true);
    assert_eq!(told.len(), 1, "a pass that changed nothing repaired nothing");
    assert_eq!((told[0].reason.as_str(), told[0].warning, told[0].lasting), ("NoPodCidr", true, true));
}

#[test]
fn documents_are_those_of_the_api() {
    let now = Duration::new(1_714_564_800, 5_000);
    let condition = WantedCondition { unavailable: true, reason: "NotAnnounced", message: "why".to_owned() };
    let mut log = EventLog::new("node1");
    let note = events::Occurrence {
        reason: "NoPodCidr".to_owned(),
        note: "set it".to_owned(),
        warning: true,
        lasting: true,
        pod: None,
    };
    let EventRequest::New(mut event) = log.take(vec![note], now).remove(0) else { panic!("an Event begins") };
    event.name = "node1.0".to_owned();
    let status = network_status(&report(true, &[PeerState::Routed], vec![]));
    let documents = [
        documents::condition(&condition, now),
        documents::event(&event, "node1", "uid"),
        documents::network_status(&status, now),
        documents::node_network("node1", "uid"),
        documents::series(3, now),
    ];
    insta::assert_snapshot!(documents.map(|document| document.to_string()).join("\n"), @r#"
    {"status":{"conditions":[{"lastHeartbeatTime":"2024-05-01T12:00:00Z","lastTransitionTime":"2024-05-01T12:00:00Z","message":"why","reason":"NotAnnounced","status":"True","type":"NetworkUnavailable"}]}}
    {"action":"Reconcile","apiVersion":"events.k8s.io/v1","eventTime":"2024-05-01T12:00:00.000005Z","kind":"Event","metadata":{"name":"node1.0","namespace":"default"},"note":"set it","reason":"NoPodCidr","regarding":{"apiVersion":"v1","kind":"Node","name":"node1","uid":"uid"},"reportingController":"hostgw.io/agent","reportingInstance":"node1","type":"Warning"}
    {"status":{"agentVersion":"0.1.0","announced":true,"converged":true,"internalIPs":[],"podCIDRs":[],"problems":[],"since":"2024-05-01T12:00:00Z","unrouted":0}}
    {"apiVersion":"hostgw.io/v1alpha1","kind":"NodeNetwork","metadata":{"name":"node1","ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node1","uid":"uid"}]}}
    {"series":{"count":3,"lastObservedTime":"2024-05-01T12:00:00.000005Z"}}
    "#);
}

#[test]
fn what_is_wrong_with_a_pod_is_an_event_of_that_pod_in_its_namespace() {
    let pod =
        PodReference { namespace: "prod".to_owned(), name: "db-0".to_owned(), uid: Some("8e7".to_owned()) };
    let lost = Condition::LeaseLost {
        holder: "prod/db-0".to_owned(),
        pod: Some(Box::new(pod)),
        address: "192.0.2.50".parse().unwrap(),
        reason: "192.0.2.1 refused".to_owned(),
    };
    let told = occurrences(&report(true, &[], vec![lost]), false);
    let mut log = EventLog::new("node1");
    let EventRequest::New(event) = log.take(told, Duration::ZERO).remove(0) else {
        panic!("an Event begins")
    };
    let document = documents::event(&event, "node1", "uid");
    assert_eq!(document["metadata"]["namespace"], "prod");
    let regarding = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "namespace": "prod", "name": "db-0", "uid": "8e7"});
    assert_eq!((&document["regarding"], &document["reason"]), (&regarding, &serde_json::json!("LeaseLost")));
}
