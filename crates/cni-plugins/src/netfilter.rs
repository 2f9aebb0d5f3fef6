//! The netfilter sockets of one call. To close any of them after something was removed makes the kernel wait for an RCU
//! grace period (some 12 ms, `nft_rcv_nl_event`), and so does to end with one open. So one is kept and used again, and at
//! the call's end a child is the last to close it ([`crate::closing`]).

use std::cell::{Cell, RefCell, RefMut};

use kernel::KernelError;
use kernel::netlink::{Protocol, Socket};

thread_local! {
    static SOCKETS: RefCell<Vec<&'static RefCell<Socket>>> = const { RefCell::new(Vec::new()) };
    static REMOVED: Cell<bool> = const { Cell::new(false) };
}

/// One that nobody holds, or a new one, which lives as long as the process: that is one call. It belongs to the namespace
/// in which it is first asked for, the node's; nobody works on others' tables.
pub(crate) fn socket() -> Result<RefMut<'static, Socket>, KernelError> {
    let idle = SOCKETS.with_borrow(|all| all.iter().find_map(|held| held.try_borrow_mut().ok()));
    if let Some(idle) = idle {
        return Ok(idle);
    }
    let fresh: &'static RefCell<Socket> =
        Box::leak(Box::new(RefCell::new(Socket::open(Protocol::Netfilter)?)));
    SOCKETS.with_borrow_mut(|all| all.push(fresh));
    Ok(fresh.borrow_mut())
}

/// Something was removed.
pub(crate) fn removed() {
    REMOVED.set(true);
}

/// Hands over the sockets by any of which something was removed: all, or none.
pub(crate) fn with_those_that_removed(hand_over: impl FnOnce(&[&Socket])) {
    if !REMOVED.get() {
        return hand_over(&[]);
    }
    SOCKETS.with_borrow(|all| {
        let all: Vec<_> = all.iter().filter_map(|held| held.try_borrow().ok()).collect();
        hand_over(&all.iter().map(|socket| &**socket).collect::<Vec<&Socket>>());
    });
}
