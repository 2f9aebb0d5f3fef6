//! Waiting for a descriptor that the event loop owns. A module of its own for the one promise that the compiler cannot
//! check.
#![allow(unsafe_code, reason = "tokio asks for the promise that an owned descriptor does not change")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Something that owns exactly one descriptor for as long as it lives.
///
/// # Safety
/// `as_fd` gives the same open descriptor every time.
pub(crate) unsafe trait OwnsDescriptor: AsFd {}

// SAFETY: both own their descriptor in a field that never changes.
unsafe impl OwnsDescriptor for std::os::fd::OwnedFd {}
// SAFETY: as above.
unsafe impl OwnsDescriptor for kernel::events::Events {}

/// What [`AsyncFd`] needs to see.
#[derive(Debug)]
pub(crate) struct Owned<T>(pub(crate) T);

impl<T: OwnsDescriptor> AsRawFd for Owned<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Hands `inner` to the event loop, which tells when it can be read.
pub(crate) fn readable<T: OwnsDescriptor>(inner: T) -> io::Result<AsyncFd<Owned<T>>> {
    // SAFETY: `OwnsDescriptor` promises that the descriptor stays open and the same while `inner` lives, and nobody
    // else can reach `inner` by value.
    unsafe { AsyncFd::register_with_interest(Owned(inner), Interest::READABLE) }.map_err(io::Error::from)
}
