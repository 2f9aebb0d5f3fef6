//! A nodes file: whatever it holds, an error or a snapshot comes out whose nodes keep what the planner relies on.
#![no_main]

use agent::source::parse_nodes;
use libfuzzer_sys::fuzz_target;
use node_network::cluster::{Freshness, SourceKind, snapshot_from_objects};

fuzz_target!(|bytes: &[u8]| {
    let Ok(objects) = parse_nodes(bytes) else { return };
    let snapshot = snapshot_from_objects(SourceKind::File, Freshness::Synced, objects);
    for (name, node) in &snapshot.nodes {
        assert_eq!(*name, node.name);
    }
    for problem in &snapshot.problems {
        assert!(problem.to_string().len() < 2_000, "{problem}");
    }
});
