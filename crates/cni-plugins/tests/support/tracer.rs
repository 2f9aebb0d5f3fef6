//! The real program, traced (`ptrace(2)`): stopped before and after each system call of its own and of what it forks,
//! to be killed there, or to have a call fail. What is forked runs to its end first while who forked it is held, so that
//! the boundaries of a run are one sequence, the same each time.

use std::io::Read;
use std::process::{Child, ExitStatus, Output};
use std::time::{Duration, Instant};

use libc::pid_t;
use syscall_tracer::{Forked, Stop, Tracee};

use super::plugin::{Call, Outcome};

/// What no program can do without, or that cannot fail: memory, the start and the end of a process; and `close`, which
/// closes whatever it says.
pub(crate) const SPARED: [libc::c_long; 24] = [
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_arch_prctl,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prlimit64,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_getrandom,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_poll,
    libc::SYS_futex,
    libc::SYS_gettid,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_close,
];

/// Before or after one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// Whether what was forked makes the call.
    pub(crate) in_child: bool,
    /// The call's number (`asm/unistd.h`); of the start, before any call, none.
    pub(crate) call: Option<i64>,
    /// Whether the call is still to be made.
    pub(crate) before: bool,
}

impl Boundary {
    /// Whether the call can be made to fail here.
    pub(crate) fn may_fail(&self) -> bool {
        self.before && self.call.is_some_and(|call| !SPARED.contains(&call))
    }
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victims {
    /// The program itself; what it forked goes on.
    Caller,
    /// What it forked; the program goes on.
    Child,
    /// One as the other.
    Both,
}

/// How a call ended whose run was to be cut short.
#[derive(Debug)]
pub(crate) enum End {
    /// The program was killed; what it had forked may go on.
    Killed { orphan: Option<pid_t> },
    /// By itself.
    Done(Outcome),
}

/// Lets `call` run to its end; its boundaries, and what it came to.
pub(crate) fn survey(call: &Call) -> (Vec<Boundary>, Outcome) {
    let mut boundaries = vec![START];
    let outcome = watch(call, |boundary, _| boundaries.push(boundary));
    (boundaries, outcome)
}

/// Lets `call` run to its end, and has a look at each boundary, at which that process stands; what it came to.
pub(crate) fn watch(call: &Call, mut look: impl FnMut(Boundary, pid_t)) -> Outcome {
    let mut traced = Traced::start(call);
    while let Some(boundary) = traced.step() {
        look(boundary, traced.current().pid());
    }
    traced.outcome()
}

/// Runs `call` and kills `victims` at its boundary number `at`, as [`survey`] counts them.
pub(crate) fn kill(call: &Call, at: usize, victims: Victims) -> End {
    let mut traced = Traced::start(call);
    for _ in 0..at {
        if traced.step().is_none() {
            return End::Done(traced.outcome());
        }
    }
    let forked = (traced.tasks.len() == 2).then(|| traced.tasks.pop().unwrap().tracee);
    let caller = traced.tasks.remove(0).tracee;
    match (victims, forked) {
        (Victims::Child, Some(forked)) => {
            forked.kill().unwrap();
            caller.let_go().unwrap();
            End::Done(traced.outcome())
        }
        (Victims::Both, Some(forked)) => {
            forked.kill().unwrap();
            caller.kill().unwrap();
            End::Killed { orphan: None }
        }
        // What was forked is not there (any more), or lives on.
        (_, forked) => {
            caller.kill().unwrap();
            let orphan = forked.as_ref().map(Tracee::pid);
            forked.into_iter().for_each(|forked| forked.let_go().unwrap());
            End::Killed { orphan }
        }
    }
}

/// Runs `call`, of which the system call before which boundary number `at` stands is not made: it fails with `errno`. One
/// run is not always as long as another; where a call stands there that cannot fail, it is the next that can. Gives the
/// boundary, if the run came so far.
#[cfg(target_arch = "x86_64")]
pub(crate) fn fail(call: &Call, at: usize, errno: i32) -> (Option<Boundary>, Outcome) {
    let mut traced = Traced::start(call);
    let mut passed = 0;
    let boundary = loop {
        let Some(boundary) = traced.step() else { return (None, traced.outcome()) };
        passed += 1;
        if passed >= at && boundary.may_fail() {
            break boundary;
        }
    };
    traced.current().fail_call(errno).unwrap();
    while traced.step().is_some() {}
    (Some(boundary), traced.outcome())
}

const START: Boundary = Boundary { in_child: false, call: None, before: false };

/// A program under trace, stopped; it dies with the thread that traces it.
struct Traced {
    child: Child,
    /// The program, and what it forked while that lives. The last one runs.
    tasks: Vec<Task>,
    status: Option<ExitStatus>,
}

struct Task {
    tracee: Tracee,
    /// The call that it is in.
    call: Option<i64>,
}

impl Traced {
    /// The program has been loaded, and has done nothing yet.
    fn start(call: &Call) -> Self {
        let (mut child, tracee) = syscall_tracer::start(&mut call.command(), Forked::IsTraced).unwrap();
        call.feed(&mut child);
        Self { child, tasks: vec![Task { tracee, call: None }], status: None }
    }

    fn current(&self) -> &Tracee {
        &self.tasks.last().unwrap().tracee
    }

    /// Goes on to the next boundary; none when the program has ended.
    fn step(&mut self) -> Option<Boundary> {
        loop {
            match self.current().go_on().unwrap() {
                Stop::Boundary => return Some(self.boundary()),
                // It runs from now on.
                Stop::Forked(tracee) => {
                    assert_eq!(self.tasks.len(), 1, "a child of a child");
                    self.tasks.push(Task { tracee, call: None });
                }
                Stop::Ended(status) => {
                    self.tasks.pop();
                    if self.tasks.is_empty() {
                        self.status = Some(status);
                        return None;
                    }
                }
            }
        }
    }

    fn boundary(&mut self) -> Boundary {
        let in_child = self.tasks.len() > 1;
        let task = self.tasks.last_mut().unwrap();
        let next = task.tracee.call().unwrap();
        task.call = next.map_or(task.call, |next| Some(next.number));
        Boundary { in_child, call: task.call, before: next.is_some() }
    }

    /// What the program came to, which has ended or does so now.
    fn outcome(mut self) -> Outcome {
        let status = self.status.unwrap_or_else(|| self.child.wait().unwrap());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        Outcome::of(Output { status, stdout, stderr })
    }
}

/// Waits until a process that is nobody's child here has ended.
pub(crate) fn wait_for_end(orphan: pid_t) {
    let deadline = Instant::now() + super::PATIENCE;
    // Its state stands behind its name, which is in parentheses; whoever adopted it may not wait for it (Z).
    while let Ok(stat) = std::fs::read_to_string(format!("/proc/{orphan}/stat"))
        && !stat.rsplit(") ").next().unwrap().starts_with('Z')
    {
        assert!(Instant::now() < deadline, "what a killed call forked does not end: {stat}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
