//! `kill -9` before and after every system call of join and leave that can change anything: the watchdog brings back what
//! was; and where it is killed as well, `hostgw uplink status` does. `HOSTGW_SWEEP=full` takes each of these boundaries,
//! `every` also those of calls that only read, and otherwise it is some.

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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kernel::netns;
use libc::pid_t;
use support::{Node, wait_until};

/// So many kills a sweep make a sample.
const SAMPLES: usize = 12;
/// So many nodes, each in namespaces of its own, share the kills of a whole sweep: most of each goes by in waiting.
const NODES: usize = 2;

/// Calls by which nobody else sees a difference, and which a kill undoes: they read, or concern memory and descriptors of
/// the process alone. Between two others, it is the same where it is killed.
const HARMLESS: [libc::c_long; 49] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_uname,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_prlimit64,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_socket,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_wait4,
];

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

    /// Goes on to the next boundary; none when the program has ended, and else whether it is of a call that can change
    /// anything.
    fn step(&self) -> Option<bool> {
        let mut signal = 0_i64;
        loop {
            // One that its watchdog has ended, because the machine is too busy, is only to be waited for.
            // SAFETY: the kernel reads no memory of ours for this request.
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.pid, 0, signal) };
            let status = wait(self.pid);
            if !libc::WIFSTOPPED(status) {
                return None;
            }
            match libc::WSTOPSIG(status) {
                stop if stop == libc::SIGTRAP | 0x80 => return Some(self.may_change_something()),
                other => signal = i64::from(other),
            }
        }
    }

    /// Goes on to the next boundary of the sweep; whether there was one before the end.
    fn step_to(&self, every: bool) -> bool {
        std::iter::from_fn(|| self.step()).any(|changes| changes || every)
    }

    /// Whether it stands before a call that can. Behind one is the same place as before the next.
    fn may_change_something(&self) -> bool {
        /// `struct ptrace_syscall_info` (`linux/ptrace.h`): what it is about in the first byte, of an entry the number in
        /// the fourth word, and the arguments behind it.
        const WORDS: usize = 11;
        const ENTRY: u8 = 1;
        /// What makes `openat` more than looking.
        const MAKES: u64 = (libc::O_CREAT | libc::O_TRUNC | libc::O_ACCMODE) as u64;
        let mut info = [0_u64; WORDS];
        let size = size_of_val(&info);
        // SAFETY: the kernel writes at most `size` bytes to `info`.
        let told = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, info.as_mut_ptr()) };
        assert!(told > 0, "ptrace: {}", std::io::Error::last_os_error());
        if info[0].to_ne_bytes()[0] != ENTRY {
            return false;
        }
        let call = info[3].cast_signed();
        if call == libc::SYS_openat { info[6] & MAKES != 0 } else { !HARMLESS.contains(&call) }
    }

    /// Lets it run to its end, untraced; its exit code.
    fn let_go(mut self) -> Option<i32> {
        // SAFETY: the kernel reads no memory of ours for this request.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, self.pid, 0, 0) }, 0);
        self.child.wait().unwrap().code()
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

/// Which boundaries a run takes.
#[derive(Clone, Copy, Debug)]
enum Sweep {
    /// All of them, and those of calls that only read.
    Every,
    /// All of them.
    Full,
    /// Some, by a seed.
    Sample(u64),
}

impl Sweep {
    fn chosen() -> Self {
        let time = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 100_000;
        match std::env::var("HOSTGW_SWEEP").as_deref() {
            Ok("every") => Self::Every,
            Ok("full") => Self::Full,
            Ok(seed) => Self::Sample(seed.parse().expect("HOSTGW_SWEEP is `every`, `full` or a number")),
            Err(_) => Self::Sample(time()),
        }
    }

    /// Of so many boundaries all, or some, one from each stretch.
    fn of(self, boundaries: usize, salt: u64) -> Vec<usize> {
        let Self::Sample(seed) = self else { return (0..boundaries).collect() };
        let mut state = seed ^ salt;
        let place = |sample: usize| {
            let (begin, end) = (sample * boundaries / SAMPLES, (sample + 1) * boundaries / SAMPLES);
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            begin + usize::try_from(state >> 33).unwrap() % (end - begin).max(1)
        };
        (0..SAMPLES).map(place).collect()
    }
}

impl std::fmt::Display for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Every => f.write_str("HOSTGW_SWEEP=every"),
            Self::Full => f.write_str("HOSTGW_SWEEP=full"),
            Self::Sample(seed) => write!(f, "HOSTGW_SWEEP={seed}"),
        }
    }
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
        let every = matches!(self.sweep, Sweep::Every);
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
        let done = (0..=at).any(|_| !traced.step_to(matches!(sweep, Sweep::Every)));
        let when = format!("{verb} was killed ({victims:?}) at boundary {at}; again: {sweep}");
        let command = traced.pid;
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
    let places = sweep.of(boundaries, verb.len() as u64);
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
    assert!(kill_watchdogs(traced.pid), "no watchdog watches a move that is being made");
    assert_eq!(traced.let_go(), Some(1));
    node.assert_same(&before, "the watchdog was killed");
    assert!(!node.journal().exists());
}
