//! A nodes file: whatever it holds, a snapshot comes out whose nodes keep what the planner relies on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node_network::cluster::{Freshness, NodeDocument, SourceKind, snapshot_from_objects};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let documents: Vec<NodeDocument> = if text.trim_start().starts_with('{') {
        serde_json::Deserializer::from_str(text).into_iter().map_while(Result::ok).collect()
    } else {
        serde_saphyr::from_multiple(text).unwrap_or_default()
    };
    let objects = documents.into_iter().filter_map(|document| document.into_objects().ok()).flatten();
    let snapshot = snapshot_from_objects(SourceKind::File, Freshness::Synced, objects);
    for (name, node) in &snapshot.nodes {
        assert_eq!(*name, node.name);
    }
    for problem in &snapshot.problems {
        assert!(problem.to_string().len() < 2_000, "{problem}");
    }
});
