//! `kill -9` before and after every system call of join and leave that can change anything: the watchdog brings back what
//! was; and where it is killed as well, `hostgw uplink status` does. `HOSTGW_SWEEP=full` takes each of these boundaries,
//! `every` also those of calls that only read, and otherwise it is some.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "how many boundaries there are, and which were taken, is worth knowing"
)]
#![allow(unsafe_code, reason = "kill has no safe wrapper in the standard library")]

#[path = "uplink_support/mod.rs"]
mod support;
#[path = "traced/mod.rs"]
mod traced;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernel::netns;
use libc::pid_t;
use support::{Node, wait_until};
use traced::{Sweep, Traced};

/// So many kills a sweep make a sample.
const SAMPLES: usize = 4;
/// So many nodes, each in namespaces of its own, share the kills of a whole sweep: most of each goes by in waiting.
const NODES: usize = 2;

/// Processes of this namespace that are none of this program: watchdogs.
fn others() -> BTreeSet<pid_t> {
    let here = netns::id_of("/proc/thread-self/ns/net".as_ref()).unwrap();
    let own = pid_t::try_from(std::process::id()).unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<pid_t>().ok());
    pids.filter(|pid| *pid != own && netns::id_of(format!("/proc/{pid}/ns/net").as_ref()) == Some(here))
        .collect()
}

/// Whether there were any; the command itself is none.
fn kill_watchdogs(command: pid_t) -> bool {
    let watchdogs: Vec<_> = others().into_iter().filter(|pid| *pid != command).collect();
    for watchdog in &watchdogs {
        // SAFETY: a process of this test's own namespace, which is a watchdog that it started.
        unsafe { libc::kill(*watchdog, libc::SIGKILL) };
    }
    !watchdogs.is_empty()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Command,
    CommandAndWatchdog,
}

/// Everything but the links' list: a bridge that is made anew has another index.
fn unnumbered(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with("[\"-o\", \"link")).collect()
}

/// A node, and what is done to it over and over.
struct Scene {
    node: Node,
    verb: &'static str,
    victims: Victims,
    sweep: Sweep,
    before: Vec<String>,
}

impl Scene {
    const JOIN: [&str; 7] = ["join", "--link", "eth0", "--bridge", "br0", "--confirm-within", "0s"];
    const LEAVE: [&str; 5] = ["leave", "--link", "eth0", "--confirm-within", "0s"];

    /// In namespaces of its own; the calling thread is in the node.
    fn new(verb: &'static str, victims: Victims, sweep: Sweep) -> Self {
        let node = Node::new();
        if verb == "leave" {
            node.run_well(&Self::JOIN);
        }
        let before = unnumbered(node.dump());
        Self { node, verb, victims, sweep, before }
    }

    fn arguments(&self) -> &'static [&'static str] {
        if self.verb == "join" { &Self::JOIN } else { &Self::LEAVE }
    }

    fn undo(&self) {
        self.node.run_well(if self.verb == "join" { &Self::LEAVE } else { &Self::JOIN });
    }

    fn start(&self) -> Traced {
        Traced::start(&mut self.node.command(self.arguments()))
    }

    /// Lets it run to its end, and counts.
    fn boundaries(&self) -> usize {
        let survey = self.start();
        let every = self.sweep.takes_every_call();
        let boundaries = std::iter::from_fn(|| survey.step_to(every).then_some(())).count();
        drop(survey);
        self.undo();
        let now = unnumbered(self.node.dump());
        assert_eq!(now, self.before, "{} and its contrary, without a kill", self.verb);
        boundaries
    }

    /// Kills it at this boundary; what was before must come back.
    fn kill(&self, at: usize) {
        let Self { node, verb, victims, sweep, before } = self;
        let traced = self.start();
        let done = (0..=at).any(|_| !traced.step_to(sweep.takes_every_call()));
        let when = format!("{verb} was killed ({victims:?}) at boundary {at}; again: {sweep}");
        let command = traced.pid();
        if !done && *victims == Victims::CommandAndWatchdog {
            kill_watchdogs(command);
        }
        // It had less to do this time, and was done before.
        if !done {
            traced.kill();
        }
        wait_until("the watchdog has ended", || others().is_empty());
        if *victims == Victims::CommandAndWatchdog {
            node.run_well(&["status"]);
        }
        // It was settled already, and killed between that and its end: that is done, not broken off.
        if node.is_port() == (*verb == "join") && !node.journal().exists() {
            self.undo();
        }
        assert!(!node.journal().exists(), "{when}: the journal is left");
        let now = unnumbered(node.dump());
        let (gone, new) = support::difference(before, &now);
        assert!(gone.is_empty() && new.is_empty(), "{when}:\ngone {gone:#?}\nnew {new:#?}");
    }
}

/// Kills `verb` at the chosen boundaries; what was before must come back each time.
fn sweep(verb: &'static str, victims: Victims) {
    let sweep = Sweep::chosen();
    let first = Scene::new(verb, victims, sweep);
    let boundaries = first.boundaries();
    assert!(boundaries > 50, "only {boundaries} boundaries: was it traced?");
    let places = sweep.of(boundaries, SAMPLES, verb.len() as u64);
    // The next one of those that are left, for whoever is free.
    let next = AtomicUsize::new(0);
    let work = |scene: &Scene| {
        while let Some(at) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            scene.kill(*at);
        }
    };
    let helpers = if matches!(sweep, Sweep::Sample(_)) { 0 } else { NODES - 1 };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|| work(&Scene::new(verb, victims, sweep)));
        }
        work(&first);
    });
    let taken = if places.len() == boundaries { "all".to_owned() } else { format!("{places:?}") };
    println!("{verb} {victims:?}: {boundaries} boundaries, taken: {taken}; again: {sweep}");
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

#[test]
fn a_join_whose_watchdog_alone_is_killed_is_put_back_by_the_command() {
    let node = Node::new();
    let before = node.dump();
    let join = ["join", "--link", "eth0", "--bridge", "br0", "--confirm-within", "10m"];
    let traced = Traced::start(&mut node.command(&join));
    while !node.is_port() {
        assert!(traced.step_to(false), "the join ended before the link was a port");
    }
    assert!(kill_watchdogs(traced.pid()), "no watchdog watches a move that is being made");
    assert_eq!(traced.let_go(), Some(1));
    node.assert_same(&before, "the watchdog was killed");
    assert!(!node.journal().exists());
}
