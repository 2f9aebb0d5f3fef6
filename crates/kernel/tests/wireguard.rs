//! WireGuard where the kernel has none, and where it has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use kernel::wireguard::Wireguard;
use support::enter_fresh_netns;

/// The kernel of continuous integration may have the module: then a link that does not exist is what is refused.
#[test]
fn a_kernel_without_wireguard_and_a_link_that_is_none_are_told_apart() {
    enter_fresh_netns();
    match Wireguard::open() {
        Err(error) => {
            assert!(error.is_absent(), "{error}");
            let text = error.to_string();
            assert!(text.contains("wireguard") && text.contains("module loaded"), "{text}");
        }
        Ok(mut wireguard) => {
            let error = wireguard.peers(1).unwrap_err();
            assert!(error.to_string().contains("list the peers of a WireGuard link"), "{error}");
        }
    }
}
