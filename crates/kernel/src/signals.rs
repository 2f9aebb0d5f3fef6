//! Signals that end a program, as a descriptor to be waited for beside others.
#![allow(unsafe_code, reason = "rustix has no signal sets")]

use std::os::fd::{FromRawFd, OwnedFd};

use crate::KernelError;
use crate::error::last_errno;

/// Holds back `SIGINT`, `SIGTERM` and `SIGHUP` from this thread and those that it starts from now on; the descriptor
/// (`signalfd(2)`, not blocking) is readable when one has come. A program that `Command` starts has none held back.
pub fn catch_ends() -> Result<OwnedFd, KernelError> {
    let failed = || KernelError::new("take over the handling of signals", last_errno());
    // SAFETY: the set is plain data that `sigemptyset` initialises; every pointer is to a local that outlives its call.
    let raw = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(failed());
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if raw < 0 {
        return Err(failed());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
