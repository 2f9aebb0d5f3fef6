//! A program that can be killed before each of its system calls that can change anything.

#![allow(unsafe_code, reason = "ptrace has no safe wrapper")]
#![allow(dead_code, reason = "each test file uses a part")]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use libc::pid_t;

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
    /// The program's process.
    pub(crate) pid: pid_t,
}

impl Traced {
    /// Starts it, up to its first instruction.
    pub(crate) fn start(command: &mut Command) -> Self {
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
    pub(crate) fn step_to(&self, every: bool) -> bool {
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
    pub(crate) fn let_go(mut self) -> Option<i32> {
        // SAFETY: the kernel reads no memory of ours for this request.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, self.pid, 0, 0) }, 0);
        self.child.wait().unwrap().code()
    }

    /// `kill -9` where it stands.
    pub(crate) fn kill(mut self) {
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
