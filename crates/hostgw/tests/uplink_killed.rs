//! `kill -9` before and after every system call of join and leave: the watchdog brings back what was; and where it is
//! killed as well, `hostgw uplink status` does. `HOSTGW_SWEEP=full` takes every boundary, otherwise some.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "how many boundaries there are, and which were taken, is worth knowing"
)]
#![allow(unsafe_code, reason = "ptrace has no safe wrapper")]

#[path = "uplink_support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use kernel::netns;
use libc::pid_t;
use support::{Node, wait_until};

/// So many kills a sweep make a sample.
const SAMPLES: usize = 12;

/// A program stopped at each of its own system calls; what it forks runs free.
struct Traced {
    child: Child,
    pid: pid_t,
}

impl Traced {
    fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec, only a system call is made.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().unwrap();
        let pid = pid_t::try_from(child.id()).unwrap();
        assert!(libc::WIFSTOPPED(wait(pid)));
        let options = i64::from(libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD);
        // SAFETY: the kernel reads no memory of ours for this request.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) }, 0);
        Self { child, pid }
    }

    /// Goes on to the next boundary; whether there was one before the end.
    fn step(&self) -> bool {
        let mut signal = 0_i64;
        loop {
            // SAFETY: the kernel reads no memory of ours for this request.
            assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.pid, 0, signal) }, 0);
            let status = wait(self.pid);
            if !libc::WIFSTOPPED(status) {
                return false;
            }
            match libc::WSTOPSIG(status) {
                stop if stop == libc::SIGTRAP | 0x80 => return true,
                other => signal = i64::from(other),
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        while libc::WIFSTOPPED(wait(self.pid)) {}
    }
}

fn wait(pid: pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the kernel to write to, and `pid` is a tracee of this thread.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
    status
}

/// Processes of this namespace that are none of this program: watchdogs.
fn others() -> BTreeSet<pid_t> {
    let here = netns::id_of("/proc/thread-self/ns/net".as_ref()).unwrap();
    let own = pid_t::try_from(std::process::id()).unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<pid_t>().ok());
    pids.filter(|pid| *pid != own && netns::id_of(format!("/proc/{pid}/ns/net").as_ref()) == Some(here))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Command,
    CommandAndWatchdog,
}

/// Of so many boundaries all, or some, one from each stretch.
fn chosen(boundaries: usize, salt: u64) -> (Vec<usize>, String) {
    let said = std::env::var("HOSTGW_SWEEP").ok();
    if said.as_deref() == Some("full") {
        return ((0..boundaries).collect(), "HOSTGW_SWEEP=full".to_owned());
    }
    let time = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 100_000;
    let seed: u64 = said.map_or_else(time, |seed| seed.parse().expect("HOSTGW_SWEEP is `full` or a number"));
    let mut state = seed ^ salt;
    let places = (0..SAMPLES).map(|sample| {
        let (begin, end) = (sample * boundaries / SAMPLES, (sample + 1) * boundaries / SAMPLES);
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        begin + usize::try_from(state >> 33).unwrap() % (end - begin).max(1)
    });
    (places.collect(), format!("HOSTGW_SWEEP={seed}"))
}

/// Everything but the links' list: a bridge that is made anew has another index.
fn unnumbered(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with("[\"-o\", \"link")).collect()
}

/// Kills `verb` at the chosen boundaries; what was before must come back each time.
fn sweep(verb: &'static str, victims: Victims) {
    let node = Node::new();
    let join = ["join", "--link", "eth0", "--bridge", "br0", "--confirm-within", "0s"];
    let leave = ["leave", "--link", "eth0", "--confirm-within", "0s"];
    let (arguments, undo): (&[&str], &[&str]) =
        if verb == "join" { (&join, &leave) } else { (&leave, &join) };
    if verb == "leave" {
        node.run_well(&join);
    }
    let before = unnumbered(node.dump());
    let survey = Traced::start(&mut node.command(arguments));
    let mut boundaries = 0;
    while survey.step() {
        boundaries += 1;
    }
    drop(survey);
    node.run_well(undo);
    assert_eq!(unnumbered(node.dump()), before, "{verb} and its contrary, without a kill");
    assert!(boundaries > 100, "only {boundaries} boundaries: was it traced?");
    let (places, again) = chosen(boundaries, verb.len() as u64);
    for at in &places {
        let traced = Traced::start(&mut node.command(arguments));
        let ended = (0..*at).any(|_| !traced.step());
        if ended {
            // It had less to read this time, and was done before.
            node.run_well(undo);
            continue;
        }
        let when =
            format!("{verb} was killed ({victims:?}) at boundary {at} of {boundaries}; again: {again}");
        let command = traced.pid;
        if victims == Victims::CommandAndWatchdog {
            for watchdog in others().into_iter().filter(|pid| *pid != command) {
                // SAFETY: a process of this test's own namespace, which is a watchdog that it started.
                unsafe { libc::kill(watchdog, libc::SIGKILL) };
            }
        }
        traced.kill();
        wait_until("the watchdog has ended", || others().is_empty());
        if victims == Victims::CommandAndWatchdog {
            node.run_well(&["status"]);
        }
        // It was settled already, and killed between that and its end: that is done, not broken off.
        let settled = node.is_port() == (verb == "join") && !node.journal().exists();
        if settled {
            node.run_well(undo);
        }
        assert!(!node.journal().exists(), "{when}: the journal is left");
        let now = unnumbered(node.dump());
        let (gone, new) = support::difference(&before, &now);
        assert!(gone.is_empty() && new.is_empty(), "{when}:\ngone {gone:#?}\nnew {new:#?}");
    }
    let taken = if places.len() == boundaries { "all".to_owned() } else { format!("{places:?}") };
    println!("{verb} {victims:?}: {boundaries} boundaries, taken: {taken}; again: {again}");
}

#[test]
fn a_killed_join_is_put_back_by_the_watchdog() {
    sweep("join", Victims::Command);
}

#[test]
fn a_killed_leave_is_put_back_by_the_watchdog() {
    sweep("leave", Victims::Command);
}

#[test]
fn a_join_whose_watchdog_is_killed_too_is_put_back_by_status() {
    sweep("join", Victims::CommandAndWatchdog);
}

#[test]
fn a_leave_whose_watchdog_is_killed_too_is_put_back_by_status() {
    sweep("leave", Victims::CommandAndWatchdog);
}
