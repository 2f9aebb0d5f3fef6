//! Traffic control: what is set is what the kernel holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use kernel::link;
use kernel::traffic_control::{self, TokenBucket};
use link_name::LinkName;
use support::{apply, enter_fresh_netns, route_socket};

#[test]
fn a_bucket_on_the_way_out_and_a_redirection_on_the_way_in_are_held_and_changed() {
    enter_fresh_netns();
    let mut socket = route_socket();
    apply(&mut socket, |batch| {
        link::create_ifb(batch, &LinkName::new("hgwifb0").unwrap(), 1500);
        link::create_bridge(batch, &LinkName::new("hgwbr0").unwrap(), [2, 0, 0, 0, 0, 1], 1500, true);
    });
    let ifb = link::by_name(&mut socket, "hgwifb0").unwrap().unwrap().index;
    let shaped = link::by_name(&mut socket, "hgwbr0").unwrap().unwrap().index;
    let bucket = TokenBucket { rate: 1_250_000, burst: 65_536, limit: 96_786 };
    apply(&mut socket, |batch| {
        traffic_control::set_token_bucket(batch, shaped, &bucket);
        traffic_control::set_token_bucket(batch, ifb, &TokenBucket { rate: 6_000_000_000, ..bucket });
        traffic_control::add_ingress(batch, shaped);
        traffic_control::redirect_ingress(batch, shaped, ifb);
    });

    let qdiscs = traffic_control::qdiscs(&mut socket, shaped).unwrap();
    let held = qdiscs.iter().find(|qdisc| qdisc.is_root()).unwrap().token_bucket.unwrap();
    assert_eq!((held.rate, held.limit), (bucket.rate, bucket.limit));
    assert!(held.burst.abs_diff(bucket.burst) < 100, "{held:?}");
    assert!(qdiscs.iter().any(|qdisc| qdisc.kind == "ingress"));
    assert_eq!(traffic_control::ingress_redirects(&mut socket, shaped).unwrap(), [ifb]);
    let fast = traffic_control::qdiscs(&mut socket, ifb).unwrap()[0].token_bucket.unwrap();
    assert_eq!(fast.rate, 6_000_000_000);

    let slower = TokenBucket { rate: 125_000, ..bucket };
    apply(&mut socket, |batch| traffic_control::set_token_bucket(batch, shaped, &slower));
    let qdiscs = traffic_control::qdiscs(&mut socket, shaped).unwrap();
    assert!(qdiscs.iter().any(|qdisc| qdisc.token_bucket.is_some_and(|held| held.rate == 125_000)));
}
