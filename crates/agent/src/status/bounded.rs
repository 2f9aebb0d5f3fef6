//! Lists of what is wrong, short enough to be written at each pass and read by a person: a source of thousands of bad
//! nodes is one fault, not thousands.

use std::collections::BTreeMap;

use node_network::plan::ConditionDocument;
use node_network::{Condition, Severity};

use super::{StateCondition, state_condition};

/// Faults shown of one Node object.
const PER_NODE: usize = 4;
/// Entries shown of one list.
const IN_ALL: usize = 200;

/// The conditions, the worst ones where there are too many, and how many more there are.
pub(crate) fn conditions(all: &[Condition]) -> Vec<StateCondition> {
    let mut of_node: BTreeMap<&str, usize> = BTreeMap::new();
    let mut left_out: Option<(Severity, usize)> = None;
    let mut worst_first: Vec<&Condition> = all.iter().collect();
    if all.len() > IN_ALL {
        worst_first.sort_by_key(|condition| std::cmp::Reverse(condition.severity()));
    }
    let mut shown = Vec::new();
    for condition in worst_first {
        let of_this_node = match condition {
            Condition::BadNodeObject(problem) => {
                let count = of_node.entry(&problem.node).or_default();
                *count += 1;
                *count
            }
            _ => 0,
        };
        if of_this_node > PER_NODE || shown.len() >= IN_ALL {
            let (severity, count) = left_out.unwrap_or((Severity::Notice, 0));
            left_out = Some((severity.max(condition.severity()), count + 1));
        } else {
            shown.push(state_condition(&ConditionDocument::from(condition)));
        }
    }
    shown.extend(left_out.map(|(severity, count)| StateCondition {
        code: "more".to_owned(),
        severity: super::severity_name(severity).to_owned(),
        message: format!("and {count} more: correct those above first"),
    }));
    shown
}

/// The first texts, and how many more there are.
pub(crate) fn texts(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = all;
    let mut shown: Vec<String> = all.by_ref().take(IN_ALL).collect();
    let more = all.count();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_network::cluster::{Freshness, NodeProblem, SourceKind, snapshot_from_objects};

    fn bad(node: String) -> Condition {
        let text = "{kind: Node, metadata: {name: n}, status: {addresses: [{type: InternalIP, address: x}]}}";
        let objects = crate::source::parse_nodes(text.as_bytes()).unwrap();
        let snapshot = snapshot_from_objects(SourceKind::File, Freshness::Synced, objects);
        Condition::BadNodeObject(NodeProblem { node, ..snapshot.problems[0].clone() })
    }

    #[test]
    fn thousands_of_bad_nodes_are_shown_in_part_and_counted() {
        let all: Vec<_> = (0..2_000).map(|n| bad(format!("node{n}"))).collect();
        let shown = conditions(&all);
        assert_eq!(shown.len(), IN_ALL + 1);
        assert!(shown[IN_ALL].message.starts_with("and 1800 more"), "{:?}", shown[IN_ALL]);
    }

    #[test]
    fn one_node_does_not_crowd_out_the_others() {
        let mut all: Vec<_> = vec![bad("node1".to_owned()); 100_000];
        all.push(bad("node2".to_owned()));
        let shown = conditions(&all);
        assert_eq!(shown.len(), PER_NODE + 2);
        assert!(shown.iter().any(|condition| condition.message.contains("node2")));
    }

    #[test]
    fn a_short_list_is_shown_as_it_is() {
        assert_eq!(conditions(&[bad("node1".to_owned())]).len(), 1);
        assert_eq!(texts(["a".to_owned()].into_iter()), ["a"]);
        assert_eq!(texts((0..500).map(|n| n.to_string())).last().unwrap(), "and 300 more");
    }
}
