//! `kill -9` of the real program at a chosen system call: the program is traced, and stopped before and after each one.

use std::os::unix::process::CommandExt;

use super::plugin::Call;

/// How a traced call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with success, after so many system-call boundaries (each call has two: before and after).
    Done { boundaries: usize },
    /// Killed at the boundary that was asked for.
    Killed,
}

/// Runs `call` and kills it at its `kill_at`-th system-call boundary, counted from 0 after its start. What it forked
/// lives on, as it would.
pub(crate) fn run_and_kill(call: &Call, kill_at: usize) -> End {
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
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // The program has been loaded, and has done nothing yet.
    assert!(libc::WIFSTOPPED(wait(pid)));
    call.feed(&mut child);
    ptrace(libc::PTRACE_SETOPTIONS, pid, libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD);
    let mut signal = 0;
    for boundary in 0.. {
        if boundary == kill_at {
            child.kill().unwrap();
            assert!(libc::WIFSIGNALED(wait(pid)));
            return End::Killed;
        }
        loop {
            ptrace(libc::PTRACE_SYSCALL, pid, signal);
            signal = 0;
            let status = wait(pid);
            if libc::WIFEXITED(status) {
                assert_eq!(libc::WEXITSTATUS(status), 0, "the call failed");
                return End::Done { boundaries: boundary };
            }
            assert!(libc::WIFSTOPPED(status), "status {status:#x}");
            match libc::WSTOPSIG(status) {
                stop if stop == libc::SIGTRAP | 0x80 => break,
                // Such as that of a child of its own that ended.
                other => signal = other,
            }
        }
    }
    unreachable!("boundaries are counted until one of the two happens")
}

fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the kernel to write to, and `pid` is a child of ours.
    #[allow(unsafe_code)]
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
    status
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, data: libc::c_int) {
    // SAFETY: none of the requests used here makes the kernel read or write this process's memory.
    #[allow(unsafe_code)]
    let done = unsafe { libc::ptrace(request, pid, 0, data) };
    assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
}
