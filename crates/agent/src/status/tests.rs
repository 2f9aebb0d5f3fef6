//! The state as it is written and shown.

use super::*;

fn state() -> StateDocument {
    let mut state =
        StateDocument::new(&NodeName::new("node1").unwrap(), "file:/etc/hostgw/nodes.yaml".to_owned());
    let peer = |node: &str, cidr: &str, hop: Option<&str>, state| Peer {
        node: NodeName::new(node).unwrap(),
        pod_cidr: cidr.parse().unwrap(),
        next_hop: hop.map(|hop| hop.parse().unwrap()),
        link: hop.map(|_| "eth0".into()),
        state,
    };
    state.pid = 1;
    (state.synced, state.ready, state.nodes, state.attachments, state.passes) = (true, true, 3, 4, 7);
    state.peers = vec![
        peer("node2", "10.244.2.0/24", Some("192.0.2.12"), PeerState::Routed),
        peer("node3", "fd00:10:244:3::/64", None, PeerState::Refused),
    ];
    state.conditions = vec![StateCondition {
        code: "no-internal-ip".to_owned(),
        severity: "error".to_owned(),
        message: "node `node3` has an IPv6 pod CIDR and no IPv6 InternalIP".to_owned(),
    }];
    state
}

#[test]
fn one_screen() {
    insta::assert_snapshot!(state().to_string(), @r"
    node       node1 (agent 0.1.0, 7 passes)
    source     file:/etc/hostgw/nodes.yaml, 3 nodes, read: yes
    converged  NO
    announced  yes
    pods       4 attached
    policy     NetworkPolicy is not enforced: this version routes, and does not filter between pods
    peers      1 of 2 pod CIDRs routed
      node2  10.244.2.0/24       routed   via 192.0.2.12 dev eth0
      node3  fd00:10:244:3::/64  refused
    error: node `node3` has an IPv6 pod CIDR and no IPv6 InternalIP
    ");
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/state.json");
    assert!(matches!(read_state(&path), Err(StatusError::NoState(_))));
    state().write(&path).unwrap();
    assert_eq!(read_state(&path).unwrap(), state());
    std::fs::write(&path, "{").unwrap();
    assert!(read_state(&path).unwrap_err().to_string().contains("damaged"));
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let mut state = state();
    assert_eq!(state.exit_code(), 1);
    state.converged = true;
    assert_eq!(state.exit_code(), 0);
    state.synced = false;
    assert_eq!(state.exit_code(), 3);
}

#[test]
fn an_agent_that_made_no_pass_for_three_resyncs_is_silent() {
    let state = StateDocument { updated: 1_000, resync_seconds: 30, ..state() };
    assert_eq!(state.silent_at(1_120), None);
    assert_eq!(state.silent_at(1_121), Some(121));
    assert_eq!(state.silent_at(900), None);
}

#[test]
fn the_schema_names_every_field_that_is_written() {
    let schema: serde_json::Value = serde_json::from_str(STATE_SCHEMA).unwrap();
    let written = serde_json::to_value(state()).unwrap();
    for field in written.as_object().unwrap().keys() {
        assert!(schema["properties"].get(field).is_some(), "{field}");
    }
}
