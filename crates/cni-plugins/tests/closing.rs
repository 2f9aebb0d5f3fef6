//! Sockets for whose last holder closing takes a grace period of the kernel's: a child of the call is the last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use support::scene::Scene;
use support::tracer::watch;

/// What a process has open, as the kernel names it: `socket:[4711]`, `pipe:[4712]`.
type Open = BTreeSet<String>;

#[test]
fn a_child_holds_the_packet_sockets_of_an_add_until_the_call_has_ended() {
    let scene = Scene::enter("l2-routed", false, false);
    // What a child waits for, and with which packet sockets, before it ends; what the call has open at its end.
    let (mut waiting, mut waited, mut left) = (None, Vec::new(), Open::new());
    let outcome = watch(&scene.call("ADD"), |at, process| match at.call.filter(|_| at.before) {
        Some(libc::SYS_poll | libc::SYS_ppoll) if at.in_child => {
            let open = open_in(process);
            let kept = open.intersection(&packet_sockets()).count();
            waiting = Some((open, kept));
        }
        Some(libc::SYS_exit_group) if at.in_child => waited.extend(waiting.take()),
        Some(libc::SYS_exit_group) => left = open_in(process),
        _ => {}
    });
    assert!(outcome.is_ok(), "{outcome:?}");
    let closer = waited.iter().find(|(_, kept)| *kept > 0);
    let (open, _) = closer.unwrap_or_else(|| panic!("no child waits with packet sockets: {waited:?}"));
    let pipe = open.iter().find(|name| name.starts_with("pipe:"));
    let pipe = pipe.unwrap_or_else(|| panic!("it waits for nobody: {open:?}"));
    assert!(left.contains(pipe), "it is told of the end before the end: {pipe} is not in {left:?}");
}

fn open_in(process: libc::pid_t) -> Open {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    entries.filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string())).collect()
}

/// Those of the calling thread's network namespace; the last column of the kernel's list is the inode.
fn packet_sockets() -> Open {
    let list = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    let inodes = list.lines().skip(1).filter_map(|line| line.split_whitespace().last());
    inodes.map(|inode| format!("socket:[{inode}]")).collect()
}
