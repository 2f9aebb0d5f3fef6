//! Deleting a pod's link, without the wait that the kernel makes of it.
#![allow(unsafe_code, reason = "fork has no safe wrapper")]

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::events::{Events, Group, Heard};
use kernel::link;
use kernel::netlink::{Batch, Protocol, Socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// `RTM_DELLINK`.
const RTM_DELLINK: u16 = 17;
/// For how long a deletion may stay unheard of before it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// When the kernel has freed what was removed from nftables: some grace periods.
pub(crate) const FREED_AFTER: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(10);

/// Deletes the link of this index, and with it its peer, addresses and routes; one that is gone is well.
///
/// The kernel tells of the deletion when everything is taken down, and then lets the caller wait 14 to 17 ms more for
/// readers of memory that it will free (`rcu_barrier`). So a child makes the request and does the waiting, with no
/// file open that somebody could wait for, and we return when the deletion is told. `last_holder_waits` stays open in the
/// child, for whose last holder closing takes as long.
pub fn delete_link(
    host: &mut Socket,
    index: u32,
    last_holder_waits: Option<BorrowedFd<'_>>,
) -> Result<(), KernelError> {
    let mut events = Events::subscribe(Protocol::Route, &[Group::Links], None)?;
    let mut batch = Batch::new();
    link::delete(&mut batch, index);
    // SAFETY: this process has one thread, so the child's copy of it is whole; the child only makes system calls and
    // leaves with `_exit`, which runs nobody's destructors.
    let child = unsafe { libc::fork() };
    match child {
        0 => {
            close_all_but(last_holder_waits.map(|fd| fd.as_raw_fd()).as_slice());
            // SAFETY: leaves without running anything of the parent's.
            unsafe {
                // A socket of its own: on a shared one, either could read what the other waits for.
                let deleted = Socket::open(Protocol::Route).and_then(|mut own| own.execute_all(&mut batch));
                let code = match deleted {
                    Ok(()) => 0,
                    Err(error) if error.is_absent() => 0,
                    Err(error) => error.errno.raw_os_error().clamp(1, 255),
                };
                libc::_exit(code)
            }
        }
        // Without a child (a limit on processes, say) the wait is ours.
        ..0 => match host.execute_all(&mut batch) {
            Err(error) if !error.is_absent() => Err(error.attempting(format!("delete link {index}"))),
            _ => Ok(()),
        },
        child => wait_for_deletion(host, &mut events, index, child),
    }
}

/// Closes sockets after this process has ended, or so long after: whoever is the last to close one of netfilter's waits for an
/// RCU grace period (about 10 ms) where elements were removed lately, and keeps all other changes of nftables waiting; the
/// last to close a packet socket always waits for one. A child is the last, so that nobody waits.
pub(crate) fn close_behind(sockets: &[BorrowedFd<'_>], after: Option<Duration>) {
    // Without a pipe or a child the wait is ours.
    let Ok((ended, end)) = pipe_with(PipeFlags::CLOEXEC) else { return };
    // SAFETY: as in `delete_link`.
    match unsafe { libc::fork() } {
        0 => {
            let mut kept: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
            kept.push(ended.as_raw_fd());
            kept.sort_unstable();
            close_all_but(&kept);
            // The parent keeps its end open for as long as it lives, which is not for long: this is its last act.
            let soon = Timespec::try_from(FREED_AFTER).ok();
            poll(&mut [PollFd::new(&ended, PollFlags::IN)], soon.as_ref()).ok();
            if let Some(after) = after {
                std::thread::sleep(after);
            }
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        ..0 => {}
        _ => {
            // Closed by this process's end, and not before: the child must close last.
            let _ = end.into_raw_fd();
        }
    }
}

/// Closes the child's descriptors: an answer's reader would wait for it, and a record's lock, which the child's copy
/// keeps, would outlive a parent that is killed and turn the next DEL away.
/// `kept` are in ascending order.
fn close_all_but(kept: &[RawFd]) {
    let mut first = 0;
    for kept in kept.iter().filter_map(|kept| libc::c_uint::try_from(*kept).ok()) {
        if kept > first {
            close_range(first, kept - 1);
        }
        first = kept + 1;
    }
    close_range(first, libc::c_uint::MAX);
}

fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: the child uses none of the descriptors that it closes.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) != 0 {
            // Before Linux 5.9; this process never has more than a few.
            for descriptor in first..=last.min(64) {
                libc::close(descriptor.cast_signed());
            }
        }
    }
}

fn wait_for_deletion(
    host: &mut Socket,
    events: &mut Events,
    index: u32,
    child: libc::pid_t,
) -> Result<(), KernelError> {
    let deadline = Instant::now() + DEADLINE;
    let failed = |errno| KernelError::new(format!("delete link {index}"), errno);
    loop {
        let mut deleted = false;
        let heard = events.read(|kind, payload| {
            // A bridge tells of a port's leaving by the same message in its own family.
            let of_family = payload.first() == Some(&0);
            deleted |= kind == RTM_DELLINK
                && of_family
                && link::Link::parse(payload).is_some_and(|link| link.index == index);
        })?;
        if deleted {
            return Ok(());
        }
        match heard {
            Heard::Something => continue,
            Heard::Nothing if events.wait(LOOK_EVERY)? => continue,
            Heard::Nothing | Heard::Lost => {}
        }
        if link::by_index(host, index)?.is_none() {
            return Ok(());
        }
        if let Some(errno) = refusal(child) {
            return Err(failed(errno));
        }
        if Instant::now() >= deadline {
            return Err(failed(Errno::TIMEDOUT));
        }
    }
}

/// Why the child left without success, if it did.
fn refusal(child: libc::pid_t) -> Option<Errno> {
    let mut status = 0;
    // SAFETY: `status` is ours for the time of the call, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
    if waited != child {
        return None;
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => None,
        (true, code) => Some(Errno::from_raw_os_error(code)),
        (false, _) => Some(Errno::INTR),
    }
}
