//! Waiting for a condition, with a deadline, and a word about what was seen when it passes.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Outcome, TierError};

/// Between two looks.
const PACE: Duration = Duration::from_millis(50);

/// What a look saw.
#[derive(Debug)]
pub enum Seen<T> {
    /// The condition holds.
    Yes(T),
    /// It does not yet; what is there instead.
    NotYet(String),
}

/// Looks until the condition holds. A look that fails is one that saw nothing yet: servers are restarted meanwhile. Only a
/// daemon that has ended by itself ends the wait.
pub fn wait_for<T>(
    waited_for: &str,
    limit: Duration,
    mut look: impl FnMut() -> Outcome<Seen<T>>,
) -> Outcome<T> {
    let began = Instant::now();
    loop {
        let last_seen = match look() {
            Ok(Seen::Yes(found)) => return Ok(found),
            Ok(Seen::NotYet(instead)) => instead,
            Err(error @ TierError::Ended { .. }) => return Err(error),
            Err(error) => error.to_string(),
        };
        if began.elapsed() >= limit {
            return Err(TierError::Deadline { waited_for: waited_for.to_owned(), after: limit, last_seen });
        }
        thread::sleep(PACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_ended_is_told_at_once() {
        let ended =
            || TierError::Ended { name: "etcd".to_owned(), status: "1".to_owned(), log: String::new() };
        let outcome = wait_for("etcd", Duration::from_secs(3600), || Err::<Seen<()>, _>(ended()));
        assert!(matches!(outcome, Err(TierError::Ended { .. })));
    }

    #[test]
    fn a_condition_that_never_holds_tells_what_was_seen_last() {
        let look = || Ok(Seen::<()>::NotYet("two pods".to_owned()));
        let error = wait_for("three pods", Duration::ZERO, look).unwrap_err().to_string();
        assert!(error.contains("three pods") && error.contains("two pods"), "{error}");
    }
}
