//! When a lease is due for what (RFC 2131, section 4.4.5). Times are in seconds since 1970: a lease outlives the boot in
//! which it was taken.

use std::time::Duration;

use crate::pace::Dice;
use crate::terms::Terms;

/// The least pause between two questions to servers that do not answer.
const LEAST_PAUSE: u64 = 60;

/// What is to be done for a lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Bound,
    /// Its server is to be asked to prolong it.
    Renew,
    /// Any server is to be asked to prolong it.
    Rebind,
    /// It has ended.
    Expired,
}

/// What is to be done now, and when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// What.
    pub phase: Phase,
    /// When the next question is due, if that is not now; for [`Phase::Bound`] the time of renewal.
    pub next: Duration,
}

/// What is due at `now` for a lease of `terms` that was confirmed at `bound_at`. The pause after an unanswered question
/// is half of what is left of its phase.
#[must_use]
pub fn due(terms: &Terms, bound_at: Duration, now: Duration, dice: &mut Dice) -> Due {
    let at = |seconds: u32| bound_at + Duration::from_secs(seconds.into());
    let (renew, rebind, expiry) =
        (at(terms.renew_seconds), at(terms.rebind_seconds), at(terms.lease_seconds));
    let pause = Duration::from_secs(LEAST_PAUSE);
    if now < bound_at {
        // The clock was set back, which must not make the lease last longer than the server thinks.
        return Due { phase: Phase::Renew, next: now + dice.about(pause) };
    }
    if terms.lease_seconds == u32::MAX || now < renew {
        // Earlier by up to a twentieth, so that the pods of one start do not renew as one.
        let early = u64::from(terms.renew_seconds) * 1000 / 20;
        let early = Duration::from_millis(dice.roll() % early.max(1));
        return Due { phase: Phase::Bound, next: renew.saturating_sub(early).max(now) };
    }
    let half_until = |end: Duration, dice: &mut Dice| {
        let left = end - now;
        now + dice.about((left / 2).max(pause)).min(left)
    };
    if now < rebind {
        Due { phase: Phase::Renew, next: half_until(rebind, dice) }
    } else if now < expiry {
        Due { phase: Phase::Rebind, next: half_until(expiry, dice) }
    } else {
        Due { phase: Phase::Expired, next: now + dice.about(pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(lease_seconds: u32) -> Terms {
        Terms {
            address: "192.0.2.5/24".parse().unwrap(),
            server: "192.0.2.1".parse().unwrap(),
            router: None,
            routes: Vec::new(),
            classless: false,
            name_servers: Vec::new(),
            domain: None,
            mtu: None,
            lease_seconds,
            renew_seconds: lease_seconds / 2,
            rebind_seconds: lease_seconds - lease_seconds / 8,
        }
    }

    const BOUND_AT: Duration = Duration::from_secs(1_000_000);

    fn phase(lease_seconds: u32, after: u64) -> Phase {
        due(&terms(lease_seconds), BOUND_AT, BOUND_AT + Duration::from_secs(after), &mut Dice::new(7)).phase
    }

    #[test]
    fn a_lease_is_renewed_then_rebound_then_lost() {
        assert_eq!(phase(800, 399), Phase::Bound);
        assert_eq!(phase(800, 400), Phase::Renew);
        assert_eq!(phase(800, 700), Phase::Rebind);
        assert_eq!(phase(800, 800), Phase::Expired);
        assert_eq!(phase(u32::MAX, 1 << 33), Phase::Bound);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_the_lease_be_asked_for() {
        let now = BOUND_AT - Duration::from_secs(100_000);
        assert_eq!(due(&terms(800), BOUND_AT, now, &mut Dice::new(7)).phase, Phase::Renew);
    }

    proptest! {
        #[test]
        fn once_something_is_due_the_next_look_is_later(
            lease in 2..u32::MAX, after: u32, seed: u64,
        ) {
            let now = BOUND_AT + Duration::from_secs(after.into());
            let found = due(&terms(lease), BOUND_AT, now, &mut Dice::new(seed));
            prop_assert!(found.next >= now);
            if found.phase != Phase::Bound {
                prop_assert!(found.next > now);
            }
        }
    }
}
