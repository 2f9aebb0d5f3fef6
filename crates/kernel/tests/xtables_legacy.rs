//! What iptables-legacy does, as this crate reads it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use kernel::route::Family;
use kernel::xtables_legacy::{LegacyForward, forward};
use support::{enter_fresh_netns, run};

fn chain(drops: bool, from: &[&str], to: &[&str]) -> Option<LegacyForward> {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
    Some(LegacyForward { drops, from: nets(from), to: nets(to) })
}

fn is_read_as_written(family: Family, iptables: &str, pods: &str) {
    enter_fresh_netns();
    assert_eq!(forward(family).unwrap(), None, "asking does not make the table");
    run(iptables, &["-P", "FORWARD", "ACCEPT"]);
    assert_eq!(forward(family).unwrap(), chain(false, &[], &[]));
    run(iptables, &["-P", "FORWARD", "DROP"]);
    run(iptables, &["-A", "FORWARD", "-i", "eth0", "-s", pods, "-j", "ACCEPT"]);
    run(iptables, &["-A", "FORWARD", "-p", "tcp", "-d", pods, "-j", "ACCEPT"]);
    assert_eq!(forward(family).unwrap(), chain(true, &[], &[]), "those accept only a part");
    run(iptables, &["-A", "FORWARD", "-s", pods, "-j", "ACCEPT"]);
    run(iptables, &["-A", "FORWARD", "-d", pods, "-j", "ACCEPT"]);
    assert_eq!(forward(family).unwrap(), chain(true, &[pods], &[pods]));
    run(iptables, &["-P", "FORWARD", "ACCEPT"]);
    assert_eq!(forward(family).unwrap(), chain(false, &[pods], &[pods]));
    run(iptables, &["-A", "FORWARD", "-j", "REJECT"]);
    assert_eq!(forward(family).unwrap(), chain(true, &[pods], &[pods]));
    run(iptables, &["-I", "FORWARD", "-j", "DROP"]);
    assert_eq!(forward(family).unwrap(), chain(true, &[], &[]), "what comes behind is never reached");
}

#[test]
fn an_ipv4_chain_is_read_as_it_was_written() {
    is_read_as_written(Family::V4, "iptables-legacy", "10.244.1.0/24");
}

#[test]
fn an_ipv6_chain_is_read_as_it_was_written() {
    is_read_as_written(Family::V6, "ip6tables-legacy", "fd00:10:244:1::/64");
}
