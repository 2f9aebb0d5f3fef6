//! Child processes that run one operation, to their end or until they are killed at a chosen system call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use syscall_tracer::End;
use syscall_tracer::{Forked, Tracee};

/// A child inherits the descriptors of every thread, and with them their file locks: tests that fork take turns.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Runs `operation` in a process and kills that at its `kill_at`-th system-call boundary, counted from 0. An operation that
/// ends before must succeed.
pub(crate) fn run_and_kill(kill_at: usize, operation: impl FnOnce()) -> End {
    let pid = start(|| {
        syscall_tracer::be_traced().unwrap();
        // SAFETY: stops this process until the parent has seen it.
        #[allow(unsafe_code)]
        unsafe {
            libc::raise(libc::SIGSTOP)
        };
        operation();
    });
    let tracee = Tracee::of_stopped(pid, Forked::RunsFree).unwrap();
    let end = tracee.kill_at(kill_at).unwrap();
    if let End::Done { status, .. } = end {
        assert!(status.success(), "the operation failed: {status}");
    }
    end
}

/// How many system-call boundaries `operation` has.
pub(crate) fn boundaries(operation: impl FnOnce()) -> usize {
    match run_and_kill(usize::MAX, operation) {
        End::Done { boundaries, .. } => boundaries,
        End::Killed => unreachable!("it is never killed at that boundary"),
    }
}
