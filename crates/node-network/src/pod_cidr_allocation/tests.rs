use super::*;
use crate::family::overlaps;
use crate::three_nodes::{ThreeNodes, ip, name, node, set_cidr};
use proptest::prelude::*;

fn ranges(all: &[(&str, u8)]) -> PerFamily<ClusterRange> {
    cluster_ranges(
        all.iter().map(|(cidr, prefix)| ClusterRange::new(cidr.parse().unwrap(), *prefix).unwrap()),
    )
    .unwrap()
}

fn snapshot(nodes: impl IntoIterator<Item = ClusterNode>) -> ClusterSnapshot {
    let nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
    ClusterSnapshot { nodes, ..ThreeNodes::new().snapshot }
}

fn bare(number: u8) -> ClusterNode {
    ClusterNode { pod_cidrs: PerFamily::default(), ..node(number) }
}

fn shown(snapshot: &ClusterSnapshot, ranges: &PerFamily<ClusterRange>) -> Vec<String> {
    let (assignments, problems) = allocate(snapshot, ranges, &BTreeMap::new());
    let assigned = assignments.iter().map(|assignment| {
        let cidrs: Vec<_> = assignment.pod_cidrs.values().map(ToString::to_string).collect();
        format!("{} {}", assignment.node, cidrs.join(","))
    });
    assigned.chain(problems.iter().map(ToString::to_string)).collect()
}

#[test]
fn the_oldest_node_gets_the_first_free_share_of_each_family() {
    let mut taken = bare(3);
    set_cidr(&mut taken, "10.244.1.0/24");
    set_cidr(&mut taken, "fd00:10:244::/64");
    let snapshot = snapshot([bare(1), bare(2), taken]);
    assert_eq!(
        shown(&snapshot, &ranges(&[("10.244.0.0/16", 24), ("fd00:10:244::/48", 64)])),
        ["node1 10.244.0.0/24,fd00:10:244:1::/64", "node2 10.244.2.0/24,fd00:10:244:2::/64"]
    );
}

#[test]
fn a_range_that_is_used_up_gives_nothing_of_either_family() {
    let snapshot = snapshot([bare(1), bare(2), bare(3)]);
    let shown = shown(&snapshot, &ranges(&[("10.244.0.0/23", 24), ("fd00:10:244::/48", 64)]));
    assert_eq!(
        shown[..2],
        ["node1 10.244.0.0/24,fd00:10:244::/64", "node2 10.244.1.0/24,fd00:10:244:1::/64"]
    );
    assert!(shown[2].contains("node `node3` gets no pod CIDR: cluster CIDR 10.244.0.0/23"), "{}", shown[2]);
}

#[test]
fn a_node_with_one_family_is_told_and_left_alone() {
    let mut half = bare(1);
    set_cidr(&mut half, "10.244.7.0/24");
    let shown = shown(&snapshot([half]), &ranges(&[("10.244.0.0/16", 24), ("fd00:10:244::/48", 64)]));
    assert_eq!(shown.len(), 1);
    assert!(
        shown[0].contains("has no IPv6 pod CIDR") && shown[0].contains("delete the Node"),
        "{}",
        shown[0]
    );
}

#[test]
fn shares_that_hold_a_nodes_address_or_overlap_a_larger_cidr_are_passed_over() {
    let mut large = bare(2);
    set_cidr(&mut large, "10.0.0.0/22");
    let mut address = bare(1);
    address.internal_ips.insert(Family::Ipv4, ip("10.0.4.9"));
    assert_eq!(shown(&snapshot([address, large]), &ranges(&[("10.0.0.0/16", 24)])), ["node1 10.0.5.0/24"]);
}

#[test]
fn what_was_promised_is_neither_given_again_nor_changed() {
    let promised = BTreeMap::from([(name("node1"), {
        let mut cidrs = PerFamily::default();
        cidrs.insert(Family::Ipv4, "10.244.0.0/24".parse().unwrap());
        cidrs
    })]);
    let (assignments, _) =
        allocate(&snapshot([bare(1), bare(2)]), &ranges(&[("10.244.0.0/16", 24)]), &promised);
    assert_eq!(assignments.len(), 1);
    assert_eq!(assignments[0].pod_cidrs.values().next().unwrap().to_string(), "10.244.1.0/24");
}

#[test]
fn ranges_that_cannot_be_used_are_refused_with_the_remedy() {
    let range = |cidr: &str, prefix| ClusterRange::new(cidr.parse().unwrap(), prefix);
    assert!(range("10.244.1.0/16", 24).unwrap_err().to_string().contains("write 10.244.0.0/16"));
    assert!(range("10.244.0.0/16", 15).unwrap_err().to_string().contains("use 16 to 30"));
    assert!(range("fd00::/48", 127).unwrap_err().to_string().contains("use 48 to 126"));
    let two = [range("10.0.0.0/16", 24).unwrap(), range("10.1.0.0/16", 24).unwrap()];
    assert!(cluster_ranges(two).unwrap_err().to_string().contains("second"));
    assert!(cluster_ranges([]).is_err());
}

#[test]
fn the_last_share_of_the_address_space_is_given_and_nothing_behind_it() {
    let snapshot = snapshot([bare(1), bare(2)]);
    let shown = shown(&snapshot, &ranges(&[("255.255.255.0/24", 24)]));
    assert_eq!(shown[0], "node1 255.255.255.0/24");
    assert!(shown[1].contains("none free"), "{}", shown[1]);
}

proptest! {
    #[test]
    fn shares_never_overlap_lie_in_the_range_and_leave_what_is_set(
        set in proptest::collection::btree_map(0..50u8, (0..64u32, 20..=26u8), 0..20),
        bare_nodes in proptest::collection::btree_set(50..90u8, 0..40),
        prefix in 22..=26u8,
    ) {
        let mut nodes: Vec<ClusterNode> = bare_nodes.iter().map(|n| bare(*n)).collect();
        for (number, (at, length)) in &set {
            let mut node = bare(*number);
            let cidr = Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + (at << 8)), *length).unwrap().trunc();
            set_cidr(&mut node, &cidr.to_string());
            nodes.push(node);
        }
        let snapshot = snapshot(nodes);
        let range = ranges(&[("10.0.0.0/18", prefix)]);
        let (assignments, problems) = allocate(&snapshot, &range, &BTreeMap::new());
        let whole: IpNet = "10.0.0.0/18".parse().unwrap();
        let mut all: Vec<IpNet> = snapshot.nodes.values().flat_map(|node| node.pod_cidrs.values().copied()).collect();
        for assignment in &assignments {
            prop_assert!(snapshot.nodes[&assignment.node].pod_cidrs.is_empty());
            let cidr = *assignment.pod_cidrs.get(Family::Ipv4).unwrap();
            prop_assert!(whole.contains(&cidr) && cidr.prefix_len() == prefix && cidr == cidr.trunc());
            prop_assert!(all.iter().all(|other| !overlaps(other, &cidr)), "{} overlaps", cidr);
            all.push(cidr);
        }
        prop_assert_eq!(assignments.len() + problems.len(), bare_nodes.len());
        if !problems.is_empty() {
            let free = whole.subnets(prefix).unwrap().any(|share| all.iter().all(|other| !overlaps(other, &share)));
            prop_assert!(!free, "a share is free and was not given");
        }
    }
}
