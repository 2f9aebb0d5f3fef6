//! A network namespace for each test, and what tests of the kernel need again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate that uses its own part")]
#![allow(unsafe_code, reason = "unshare has no safe wrapper: it concerns only the calling thread here")]

pub mod ruleset;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kernel::link::{self, Veth, VethEnd};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use link_name::LinkName;
use rustix::thread::UnshareFlags;

/// Moves the calling thread into a network namespace of its own, which dies with the thread. Programs it starts are in
/// it too. Fails the test where that is not possible: nothing may ever touch the machine's own network.
pub fn enter_fresh_netns() {
    let before = NetNs::current().unwrap().id().unwrap();
    // SAFETY: only the network namespace is unshared, which is an attribute of this thread alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .expect("cannot make a network namespace: run the tests as root, or in `unshare -rn`");
    let after = NetNs::current().unwrap().id().unwrap();
    assert_ne!(before, after, "still in the namespace that the test was started in");
}

/// A second namespace, beside the calling thread's.
pub fn another_netns() -> NetNs {
    std::thread::spawn(|| {
        enter_fresh_netns();
        NetNs::current().unwrap()
    })
    .join()
    .unwrap()
}

pub fn route_socket() -> Socket {
    Socket::open(Protocol::Route).unwrap()
}

pub fn netfilter_socket() -> Socket {
    Socket::open(Protocol::Netfilter).unwrap()
}

/// Sends what `write` writes; every message must be accepted.
pub fn apply(socket: &mut Socket, write: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    write(&mut batch);
    socket.execute_all(&mut batch).unwrap();
}

pub fn name(text: &str) -> LinkName {
    LinkName::new(text).unwrap()
}

/// A veth pair within the calling thread's namespace, both ends up and with carrier; gives their indices.
pub fn veth_pair(socket: &mut Socket, one: &str, other: &str) -> (u32, u32) {
    let (one, other) = (name(one), name(other));
    let end = |name| VethEnd { name, mac: None, netns: None };
    apply(socket, |batch| {
        let veth = Veth { host: end(&one), peer: end(&other), mtu: 1500, master: None, up: true };
        link::create_veth(batch, &veth);
    });
    let index =
        |socket: &mut Socket, name: &LinkName| link::by_name(socket, name.as_str()).unwrap().unwrap().index;
    let pair = (index(socket, &one), index(socket, &other));
    apply(socket, |batch| {
        link::set_up(batch, pair.1);
        link::request(batch, pair.0);
        link::request(batch, pair.1);
    });
    wait_until("both ends have a carrier", || {
        link::by_index(socket, pair.0).unwrap().is_some_and(|end| end.carrier)
    });
    pair
}

/// What a peer program prints; the test fails where it is absent or fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    run_with_input(program, arguments, "")
}

pub fn run_with_input(program: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("this test compares with `{program}`, which must be installed: {error}")
        });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed: {errors}{text}");
    text
}

/// What is waited for comes within a second or two, on a machine that does nothing else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds`, and fails the test if it never does.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
