//! Child processes that run one operation, to their end or until they are killed at a chosen system call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A child inherits the descriptors of every thread, and with them their file locks: tests that fork take turns.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a traced child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, after so many system-call boundaries (each call has two: before and after).
    Done { boundaries: usize },
    /// Killed at the boundary that was asked for.
    Killed,
}

/// Starts a process that runs `operation`.
pub(crate) fn start(operation: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child runs on this thread alone, touches no lock of another thread (glibc makes its own allocator
    // usable after a fork), and leaves by `_exit`, so that nothing of the parent is run twice.
    #[allow(unsafe_code)]
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let status = i32::from(catch_unwind(AssertUnwindSafe(operation)).is_err());
        // SAFETY: ends the child; see above.
        #[allow(unsafe_code)]
        unsafe {
            libc::_exit(status)
        }
    }
    pid
}

fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the kernel to write to, and `pid` is a child of ours.
    #[allow(unsafe_code)]
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
    status
}

/// Waits for a child that must have succeeded.
pub(crate) fn finish(pid: libc::pid_t) {
    let status = wait(pid);
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "the child failed: status {status:#x}"
    );
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, data: libc::c_int) {
    // SAFETY: none of the requests used here makes the kernel read or write this process's memory.
    #[allow(unsafe_code)]
    let done = unsafe { libc::ptrace(request, pid, 0, data) };
    assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
}

/// Runs `operation` in a process and kills that at its `kill_at`-th system-call boundary, counted from 0.
pub(crate) fn run_and_kill(kill_at: usize, operation: impl FnOnce()) -> End {
    let pid = start(|| {
        ptrace(libc::PTRACE_TRACEME, 0, 0);
        // SAFETY: stops this process until the parent has seen it.
        #[allow(unsafe_code)]
        unsafe {
            libc::raise(libc::SIGSTOP)
        };
        operation();
    });
    assert!(libc::WIFSTOPPED(wait(pid)));
    ptrace(libc::PTRACE_SETOPTIONS, pid, libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD);
    let mut boundaries = 0;
    loop {
        if boundaries == kill_at {
            // SAFETY: kills the child that was started above and is stopped now.
            #[allow(unsafe_code)]
            unsafe {
                libc::kill(pid, libc::SIGKILL)
            };
            assert!(libc::WIFSIGNALED(wait(pid)));
            return End::Killed;
        }
        ptrace(libc::PTRACE_SYSCALL, pid, 0);
        let status = wait(pid);
        if libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), 0, "the operation failed");
            return End::Done { boundaries };
        }
        assert!(
            libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80,
            "status {status:#x}"
        );
        boundaries += 1;
    }
}

/// How many system-call boundaries `operation` has.
pub(crate) fn boundaries(operation: impl FnOnce()) -> usize {
    match run_and_kill(usize::MAX, operation) {
        End::Done { boundaries } => boundaries,
        End::Killed => unreachable!("it is never killed at that boundary"),
    }
}
