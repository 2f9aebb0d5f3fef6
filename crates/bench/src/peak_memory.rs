//! The peak memory of one process, as its own `VmHWM` says at its end. `ru_maxrss` would not do: a child begins with
//! its parent's maximum.
#![allow(unsafe_code, reason = "ptrace and waitpid with events have no safe wrapper")]

use std::fs;
use std::io;

use crate::error::{Attempting, BenchError};
use crate::exec::Exec;
use crate::node::Pod;

/// Runs the program and gives its peak in MiB.
pub(crate) fn of(exec: &Exec<'_>, pod: &Pod) -> Result<f64, BenchError> {
    let mut child = exec.spawn(pod)?;
    let pid = libc::pid_t::try_from(child.id()).attempting("read a process number")?;
    // It waits for its standard input, so that it cannot be missed.
    ptrace(libc::PTRACE_SEIZE, pid, libc::PTRACE_O_TRACEEXIT)?;
    exec.feed(&mut child)?;
    let mut peak = None;
    let code = loop {
        let status = wait(pid)?;
        if libc::WIFEXITED(status) {
            break libc::WEXITSTATUS(status);
        }
        if !libc::WIFSTOPPED(status) {
            break -1;
        }
        let is_event = status >> 16 != 0;
        if status >> 16 == libc::PTRACE_EVENT_EXIT {
            peak = Some(high_water(pid)?);
        }
        ptrace(libc::PTRACE_CONT, pid, if is_event { 0 } else { libc::WSTOPSIG(status) })?;
    };
    match (code, peak) {
        (0, Some(peak)) => Ok(peak),
        _ => Err(BenchError::new(
            format!("measure the memory of {}", exec.program.display()),
            format!("it ended with code {code}"),
        )),
    }
}

/// `VmHWM` of a process, in MiB.
fn high_water(pid: libc::pid_t) -> Result<f64, BenchError> {
    status_field(pid.unsigned_abs(), "VmHWM").map(|kib| kib / 1024.0)
}

/// A number of `/proc/PID/status`, in the unit that it has there.
pub(crate) fn status_field(pid: u32, name: &str) -> Result<f64, BenchError> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).attempting(format!("read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| BenchError::new(format!("read {path}"), format!("it has no `{name}`")))
}

fn wait(pid: libc::pid_t) -> Result<libc::c_int, BenchError> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the kernel to write to, and `pid` is a child of ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    match waited == pid {
        true => Ok(status),
        false => Err(BenchError::new("wait for a traced process", io::Error::last_os_error())),
    }
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, data: libc::c_int) -> Result<(), BenchError> {
    // SAFETY: none of the requests used here makes the kernel read or write this process's memory.
    let done = unsafe { libc::ptrace(request, pid, 0, libc::c_long::from(data)) };
    match done {
        0 => Ok(()),
        _ => Err(BenchError::new("trace a process", io::Error::last_os_error())),
    }
}
