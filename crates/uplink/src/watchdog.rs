//! A process of its own that puts a move back which is broken off, or not confirmed in time. It is forked before the first
//! change, belongs to no terminal, and needs nothing but the journal.
#![allow(
    unsafe_code,
    reason = "fork, and leaving without running the parent's destructors, have no safe wrapper"
)]

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use kernel::sysctl::Sysctls;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::error::UplinkError;
use crate::journal::Due;
use crate::moves::Mover;
use crate::store::{self, Store};

/// A command at work for longer hangs: it is ended, and its move put back.
const PATIENCE_WITH_COMMAND: Duration = Duration::from_secs(45);
/// How often a watchdog looks whether the move that it waits for is settled.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long an older watchdog may need to see that its move is settled.
const PATIENCE_WITH_ANOTHER: Duration = Duration::from_secs(10);
/// How often putting back is tried.
const ATTEMPTS: u32 = 20;

/// The command's end of the line by which the watchdog knows that the command lives. It ends with the process at the latest.
#[derive(Debug)]
pub(crate) struct Lifeline {
    _end: OwnedFd,
}

/// Starts the watchdog of the move `id`, and returns once it watches. The calling process must have one thread.
pub(crate) fn start(store: &Store, sysctls: &Sysctls, id: &str) -> Result<Lifeline, UplinkError> {
    let failed = |errno: Errno| UplinkError::Watchdog(errno.into());
    let (lifeline, our_end) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let (ready, says_ready) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let command = rustix::process::getpid();
    // SAFETY: this process has one thread, so the child's copy of it is whole.
    match unsafe { libc::fork() } {
        ..0 => Err(UplinkError::Watchdog(io::Error::last_os_error())),
        0 => {
            daemonise(&lifeline, &says_ready);
            let watched = watch(store, sysctls, id, command, &lifeline, says_ready);
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(i32::from(watched.is_err())) }
        }
        child => {
            drop((lifeline, says_ready));
            let mut status = 0;
            // SAFETY: `status` is ours for the time of the call, and the child is ours; it ends as soon as it has forked.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            let mut word = [0; 1];
            match std::fs::File::from(ready).read_exact(&mut word) {
                Ok(()) => Ok(Lifeline { _end: our_end }),
                Err(error) => Err(UplinkError::Watchdog(error)),
            }
        }
    }
}

/// Leaves the terminal, its session and the command's process group; the second fork leaves no way to get a terminal again,
/// and makes the process nobody's child here.
fn daemonise(lifeline: &OwnedFd, says_ready: &OwnedFd) {
    // SAFETY: each call concerns this process alone, and passes constants and descriptors that are open.
    unsafe {
        libc::setsid();
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::chdir(c"/".as_ptr());
        let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for standard in 0..3 {
            libc::dup2(nothing, standard);
        }
        close_others([lifeline.as_raw_fd(), says_ready.as_raw_fd()]);
    }
}

/// The command's locks and sockets: kept open here, they would outlive it.
///
/// # Safety
/// The process uses none of the descriptors above 2 but those of `kept`.
unsafe fn close_others(mut kept: [RawFd; 2]) {
    kept.sort_unstable();
    let mut first = 3;
    for keep in kept {
        if keep > first {
            // SAFETY: as the caller says.
            unsafe { libc::syscall(libc::SYS_close_range, first, keep - 1, 0) };
        }
        first = first.max(keep + 1);
    }
    // SAFETY: as the caller says.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

fn watch(
    store: &Store,
    sysctls: &Sysctls,
    id: &str,
    command: Pid,
    lifeline: &OwnedFd,
    says_ready: OwnedFd,
) -> Result<(), UplinkError> {
    let Some(_watching) = store.watchdog_lock(PATIENCE_WITH_ANOTHER)? else {
        return Err(UplinkError::Watchdog(io::Error::other("another watchdog is at work")));
    };
    rustix::io::write(&says_ready, &[1]).map_err(|errno| UplinkError::Watchdog(errno.into()))?;
    drop(says_ready);
    if !ends(lifeline, PATIENCE_WITH_COMMAND) {
        // It holds the line still, so that the number is its own.
        let _ = kill_process(command, Signal::KILL);
        ends(lifeline, PATIENCE_WITH_COMMAND);
    }
    let mut attempts = 0;
    loop {
        match look(store, sysctls, id) {
            Ok(None) => return Ok(()),
            Ok(Some(wait)) => std::thread::sleep(wait.min(LOOK_EVERY)),
            Err(error) => {
                attempts += 1;
                if attempts == ATTEMPTS {
                    return Err(error);
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// Looks at the journal, and puts back what is due; for how long to wait, or that there is nothing more to do.
fn look(store: &Store, sysctls: &Sysctls, id: &str) -> Result<Option<Duration>, UplinkError> {
    let own = || Ok::<_, UplinkError>(store.read_journal()?.filter(|journal| journal.id == id));
    // Without the lock, which the next command may hold while it waits for our end.
    if own()?.is_none() {
        return Ok(None);
    }
    let mut mover = Mover::open(store.clone(), sysctls.clone())?;
    let _lock = store.lock()?;
    let Some(journal) = own()? else { return Ok(None) };
    match journal.due(mover.realm(), store::now_ms()) {
        Due::Wait(wait) => Ok(Some(wait)),
        Due::Forget => Ok(None),
        Due::PutBack => mover.put_back(&journal).map(|()| None),
    }
}

/// Waits for the other end's closing; whether it came in time.
fn ends(line: &OwnedFd, patience: Duration) -> bool {
    let timeout = Timespec { tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::new(line, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            // Without a line there is nothing to wait for.
            Err(_) => return true,
        }
    }
}
