//! What this call has done with, and leaves open: the last to close some sockets waits for an RCU grace period (some 12 ms on
//! an idle machine), and so does a process that ends with one open. At the call's end a child is the last.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kernel::netlink::Socket;

use crate::netfilter;
use crate::wiring::{FREED_AFTER, close_behind};

thread_local! {
    static SPENT: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// Takes a packet socket that is of no more use. Only a call does that: it ends soon, and what is left open with it.
pub(crate) fn leave_open(socket: OwnedFd) {
    SPENT.with_borrow_mut(|spent| spent.push(socket));
}

/// The call is over.
pub(crate) fn leave() {
    let spent = SPENT.take();
    netfilter::with_those_that_removed(|netfilter| {
        let packets = spent.iter().map(AsFd::as_fd);
        let all: Vec<BorrowedFd<'_>> =
            netfilter.iter().map(|socket: &&Socket| socket.as_fd()).chain(packets).collect();
        if !all.is_empty() {
            // Netfilter's are closed once the kernel's own worker has freed what was removed.
            close_behind(&all, (!netfilter.is_empty()).then_some(FREED_AFTER));
        }
    });
    // The child has these, too: nobody waits.
    drop(spent);
}
