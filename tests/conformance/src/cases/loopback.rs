//! `loopback`.

use serde_json::json;

use super::network;
use crate::case::{Case, add, check, del, shell, tcp};

pub(super) fn cases() -> Vec<Case> {
    let lo = || network(json!([{"type": "loopback"}]));
    vec![
        Case::new(
            "loopback",
            lo(),
            vec![
                add("a").ifname("lo"),
                tcp("a", "127.0.0.1:80", "a", 80),
                check("a").ifname("lo"),
                add("a").ifname("lo").after_switch(),
                del("a").ifname("lo"),
                del("a").ifname("lo"),
            ],
        ),
        Case::new(
            "loopback-check-down",
            lo(),
            vec![
                add("a").ifname("lo"),
                shell("a", "ip link set lo down"),
                check("a").ifname("lo"),
                del("a").ifname("lo"),
            ],
        ),
        Case::new("loopback-by-another-name", lo(), vec![add("a"), check("a"), del("a")]),
        Case::new("loopback-without-netns", lo(), vec![del("a").without_netns().without_prev_result()]),
    ]
}
