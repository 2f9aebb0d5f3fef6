//! How long to wait before the next attempt: longer each time, and never in step with other nodes.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait is about so long …
const FIRST: Duration = Duration::from_millis(500);
/// … and none is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits between attempts.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // At least half, so that a refusing server is not hammered; the rest by chance.
        longest / 2 + jitter(longest / 2)
    }
}

/// A random span of less than `limit`.
pub(crate) fn jitter(limit: Duration) -> Duration {
    // Each state has keys of its own, drawn from the system.
    let random = RandomState::new().hash_one(0_u8);
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(random % limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_are_never_nothing_and_start_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] < FIRST);
        assert!(waits[20..].iter().all(|wait| (LONGEST / 2..LONGEST).contains(wait)), "{waits:?}");
        backoff.reset();
        assert!(backoff.next() < FIRST);
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let waits: std::collections::HashSet<Duration> = (0..32).map(|_| Backoff::default().next()).collect();
        assert!(waits.len() > 16, "{waits:?}");
    }
}
