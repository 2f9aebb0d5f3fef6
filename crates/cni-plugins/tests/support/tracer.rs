//! The real program, traced (`ptrace(2)`): stopped before and after each system call of its own and of what it forks,
//! to be killed there, or to have a call fail. What is forked runs to its end first while who forked it is held, so that
//! the boundaries of a run are one sequence, the same each time.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Output};
use std::time::{Duration, Instant};

use libc::pid_t;

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
        look(boundary, traced.current());
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
    match (victims, traced.tasks.len()) {
        (Victims::Child, 2) => {
            traced.kill_child();
            traced.let_go();
            End::Done(traced.outcome())
        }
        (Victims::Both, 2) => {
            traced.kill_child();
            traced.kill_caller();
            End::Killed { orphan: None }
        }
        // What was forked is not there (any more).
        _ => {
            traced.kill_caller();
            traced.let_go();
            End::Killed { orphan: traced.tasks.first().copied() }
        }
    }
}

/// Runs `call`, of which the system call before which boundary number `at` stands is not made: it fails with `errno`. One
/// run is not always as long as another; where a call stands there that cannot fail, it is the next that can. Gives the
/// boundary, if the run came so far.
#[cfg(target_arch = "x86_64")]
pub(crate) fn fail(call: &Call, at: usize, errno: i32) -> (Option<Boundary>, Outcome) {
    /// Offsets in `struct user` (`sys/user.h`), in bytes.
    const ORIG_RAX: usize = 15 * 8;
    const RAX: usize = 10 * 8;
    let mut traced = Traced::start(call);
    let mut passed = 0;
    let boundary = loop {
        let Some(boundary) = traced.step() else { return (None, traced.outcome()) };
        passed += 1;
        if passed >= at && boundary.may_fail() {
            break boundary;
        }
    };
    let who = traced.current();
    // No call has this number, so the kernel makes none.
    ptrace(libc::PTRACE_POKEUSER, who, ORIG_RAX, -1);
    assert!(traced.step().is_some(), "the program ended in a system call that was not made");
    ptrace(libc::PTRACE_POKEUSER, who, RAX, -i64::from(errno));
    while traced.step().is_some() {}
    (Some(boundary), traced.outcome())
}

const START: Boundary = Boundary { in_child: false, call: None, before: false };

/// A program under trace, stopped; it dies with the thread that traces it.
struct Traced {
    child: Child,
    /// The program, and what it forked while that lives. The last one runs.
    tasks: Vec<pid_t>,
    /// The call that each of them is in.
    calls: Vec<Option<i64>>,
    status: Option<ExitStatus>,
}

impl Traced {
    /// The program has been loaded, and has done nothing yet.
    fn start(call: &Call) -> Self {
        let mut command = call.command();
        // SAFETY: between fork and exec, only a system call is made.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let mut child = command.spawn().unwrap();
        let pid = pid_t::try_from(child.id()).unwrap();
        assert!(libc::WIFSTOPPED(wait(pid)));
        call.feed(&mut child);
        let options = libc::PTRACE_O_EXITKILL
            | libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE;
        ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options.into());
        Self { child, tasks: vec![pid], calls: vec![None], status: None }
    }

    fn current(&self) -> pid_t {
        *self.tasks.last().unwrap()
    }

    /// Goes on to the next boundary; none when the program has ended.
    fn step(&mut self) -> Option<Boundary> {
        let mut signal = 0;
        loop {
            let who = self.current();
            ptrace(libc::PTRACE_SYSCALL, who, 0, signal);
            signal = 0;
            let status = wait(who);
            if !libc::WIFSTOPPED(status) {
                self.tasks.pop();
                self.calls.pop();
                if self.tasks.is_empty() {
                    self.status = Some(ExitStatus::from_raw(status));
                    return None;
                }
                continue;
            }
            match (libc::WSTOPSIG(status), status >> 16) {
                (libc::SIGTRAP, event) if event != 0 => self.welcome(who),
                (stop, _) if stop == libc::SIGTRAP | 0x80 => return Some(self.boundary(who)),
                // Such as that of a child of its own that ended.
                (other, _) => signal = i64::from(other),
            }
        }
    }

    /// What `who` has just forked runs from now on, from the stop that it is born in.
    fn welcome(&mut self, who: pid_t) {
        assert_eq!(self.tasks.len(), 1, "a child of a child");
        let mut born: libc::c_ulong = 0;
        // SAFETY: the kernel writes the number of the new process to `born`.
        #[allow(unsafe_code)]
        let asked = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, who, 0, &raw mut born) };
        assert_eq!(asked, 0, "ptrace: {}", std::io::Error::last_os_error());
        let born = pid_t::try_from(born).unwrap();
        assert!(libc::WIFSTOPPED(wait(born)));
        self.tasks.push(born);
        self.calls.push(None);
    }

    fn boundary(&mut self, who: pid_t) -> Boundary {
        let (before, number) = call_info(who);
        let call = self.calls.last_mut().unwrap();
        if before {
            *call = Some(number);
        }
        Boundary { in_child: self.tasks.len() > 1, call: *call, before }
    }

    fn kill_child(&mut self) {
        let child = self.tasks.pop().unwrap();
        self.calls.pop();
        end(child);
    }

    fn kill_caller(&mut self) {
        let caller = self.tasks.remove(0);
        self.calls.remove(0);
        end(caller);
    }

    /// Whoever is left runs on, untraced.
    fn let_go(&mut self) {
        for task in &self.tasks {
            ptrace(libc::PTRACE_DETACH, *task, 0, 0);
        }
    }

    /// What the program came to, which has ended or does so now.
    fn outcome(mut self) -> Outcome {
        let status = self.status.unwrap_or_else(|| ExitStatus::from_raw(wait(self.tasks[0])));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        Outcome::of(Output { status, stdout, stderr })
    }
}

/// Waits until a process that is nobody's child here has ended.
pub(crate) fn wait_for_end(orphan: pid_t) {
    let deadline = Instant::now() + Duration::from_secs(20);
    // Its state stands behind its name, which is in parentheses; whoever adopted it may not wait for it (Z).
    while let Ok(stat) = std::fs::read_to_string(format!("/proc/{orphan}/stat"))
        && !stat.rsplit(") ").next().unwrap().starts_with('Z')
    {
        assert!(Instant::now() < deadline, "what a killed call forked does not end: {stat}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a task stands before (or else after) a system call, and before which.
fn call_info(who: pid_t) -> (bool, i64) {
    /// `struct ptrace_syscall_info` (`linux/ptrace.h`): what it is about in the first byte, the number in the fourth word.
    const WORDS: usize = 11;
    const ENTRY: u8 = 1;
    let mut info = [0_u64; WORDS];
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes to `info`.
    #[allow(unsafe_code)]
    let told = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, who, size, info.as_mut_ptr()) };
    assert!(told > 0, "ptrace: {}", std::io::Error::last_os_error());
    (info[0].to_ne_bytes()[0] == ENTRY, info[3].cast_signed())
}

fn end(who: pid_t) {
    // SAFETY: a task that this thread traces is a process of its own until it is waited for.
    #[allow(unsafe_code)]
    let killed = unsafe { libc::kill(who, libc::SIGKILL) };
    assert_eq!(killed, 0, "kill: {}", std::io::Error::last_os_error());
    while libc::WIFSTOPPED(wait(who)) {}
}

fn wait(who: pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the kernel to write to, and `who` is a child or a tracee of this thread.
    #[allow(unsafe_code)]
    let waited = unsafe { libc::waitpid(who, &raw mut status, libc::__WALL) };
    assert_eq!(waited, who, "waitpid: {}", std::io::Error::last_os_error());
    status
}

fn ptrace(request: libc::c_uint, who: pid_t, address: usize, data: i64) {
    // SAFETY: none of the requests used here makes the kernel read or write this process's memory.
    #[allow(unsafe_code)]
    let done = unsafe { libc::ptrace(request, who, address, data) };
    assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
}
