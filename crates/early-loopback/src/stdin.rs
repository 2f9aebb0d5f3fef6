//! Standard input, of which what was read here is handed on where the ordinary plugin goes on.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A usual configuration is a twentieth as long.
const ROOM: usize = 4096;

struct Place(UnsafeCell<[u8; ROOM]>);

// SAFETY: it is written before there is a second thread, and never again.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new([0; ROOM]));
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// What was taken from standard input before `main`: the beginning of the configuration, or nothing.
#[must_use]
pub fn taken() -> &'static [u8] {
    let length = LENGTH.load(Ordering::Relaxed);
    // SAFETY: nobody writes any more.
    unsafe { &*PLACE.0.get() }.get(..length).unwrap_or_default()
}

/// Takes all of it; none where there is more than a usual call brings, or it cannot be read.
#[cfg(target_arch = "x86_64")]
pub(crate) fn take() -> Option<&'static [u8]> {
    loop {
        let length = LENGTH.load(Ordering::Relaxed);
        // SAFETY: this is the only thread, and no reference to the place lives.
        let free = unsafe { &mut *PLACE.0.get() }.get_mut(length..).filter(|free| !free.is_empty())?;
        match crate::system::read(0, free)? {
            0 => return Some(taken()),
            read => LENGTH.store(length + read, Ordering::Relaxed),
        }
    }
}
