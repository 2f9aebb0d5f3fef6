//! A program that can be killed before each of its system calls that can change anything.

#![allow(dead_code, reason = "each test file uses a part")]

use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use libc::pid_t;
use syscall_tracer::{Forked, Stop, SystemCall, Tracee};

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
pub(crate) struct Traced {
    child: Child,
    tracee: Tracee,
}

impl Traced {
    /// Starts it, up to its first instruction.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (child, tracee) = syscall_tracer::start(command, Forked::RunsFree).unwrap();
        Self { child, tracee }
    }

    /// The program's process.
    pub(crate) const fn pid(&self) -> pid_t {
        self.tracee.pid()
    }

    /// Goes on to the next boundary of the sweep; whether there was one before the end.
    pub(crate) fn step_to(&self, every: bool) -> bool {
        while let Stop::Boundary = self.tracee.go_on().unwrap() {
            // Behind a call is the same place as before the next.
            if every || self.tracee.call().unwrap().is_some_and(may_change_something) {
                return true;
            }
        }
        false
    }

    /// Lets it run to its end, untraced; its exit code.
    pub(crate) fn let_go(mut self) -> Option<i32> {
        self.tracee.let_go().unwrap();
        self.child.wait().unwrap().code()
    }

    /// `kill -9` where it stands.
    pub(crate) fn kill(self) {
        self.tracee.kill().unwrap();
    }
}

fn may_change_something(call: SystemCall) -> bool {
    /// What makes `openat` more than looking.
    const MAKES: u64 = (libc::O_CREAT | libc::O_TRUNC | libc::O_ACCMODE) as u64;
    match call.number {
        libc::SYS_openat => call.arguments[2] & MAKES != 0,
        other => !HARMLESS.contains(&other),
    }
}

/// Which boundaries a run takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sweep {
    /// All of them, and those of calls that only read.
    Every,
    /// All of them.
    Full,
    /// Some, by a seed.
    Sample(u64),
}

impl Sweep {
    /// As `HOSTGW_SWEEP` says.
    pub(crate) fn chosen() -> Self {
        let time = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 100_000;
        match std::env::var("HOSTGW_SWEEP").as_deref() {
            Ok("every") => Self::Every,
            Ok("full") => Self::Full,
            Ok(seed) => Self::Sample(seed.parse().expect("HOSTGW_SWEEP is `every`, `full` or a number")),
            Err(_) => Self::Sample(time()),
        }
    }

    /// Whether calls that only read are boundaries, too.
    pub(crate) const fn takes_every_call(self) -> bool {
        matches!(self, Self::Every)
    }

    /// Of so many boundaries all, or so many samples, one from each stretch.
    pub(crate) fn of(self, boundaries: usize, samples: usize, salt: u64) -> Vec<usize> {
        let Self::Sample(seed) = self else { return (0..boundaries).collect() };
        let mut state = seed ^ salt;
        let place = |sample: usize| {
            let (begin, end) = (sample * boundaries / samples, (sample + 1) * boundaries / samples);
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            begin + usize::try_from(state >> 33).unwrap() % (end - begin).max(1)
        };
        (0..samples).map(place).collect()
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
