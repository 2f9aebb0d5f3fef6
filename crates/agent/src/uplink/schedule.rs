//! After what pause a move that was not made is tried again. Pure.

use std::time::Duration;

/// The first pause after a refusal, which costs nothing …
const REFUSED: Duration = Duration::from_secs(5);
/// … and the longest: what ends a refusal need not be heard here.
const REFUSED_LONGEST: Duration = Duration::from_secs(300);
/// The first pause after a move that was begun and put back: each breaks the node's network off until it is …
const REVERSED: Duration = Duration::from_secs(60);
/// … and the longest.
const REVERSED_LONGEST: Duration = Duration::from_secs(3600);

/// How often it was in vain, in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Schedule {
    refused: u32,
    reversed: u32,
}

impl Schedule {
    /// The pause after one more attempt that touched nothing.
    pub(super) fn after_refusal(&mut self) -> Duration {
        longer(&mut self.refused, REFUSED, REFUSED_LONGEST)
    }

    /// The pause after one more that was put back. Refusals between do not make it shorter.
    pub(super) fn after_reversal(&mut self) -> Duration {
        self.refused = 0;
        longer(&mut self.reversed, REVERSED, REVERSED_LONGEST)
    }
}

fn longer(times: &mut u32, first: Duration, longest: Duration) -> Duration {
    let pause = first.saturating_mul(1 << (*times).min(16)).min(longest);
    *times = times.saturating_add(1);
    pause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_a_move_that_was_put_back_waits_longer() {
        let mut schedule = Schedule::default();
        let seconds = |pause: Duration| pause.as_secs();
        let refused: Vec<_> = (0..8).map(|_| seconds(schedule.after_refusal())).collect();
        assert_eq!(refused, [5, 10, 20, 40, 80, 160, 300, 300]);
        let reversed: Vec<_> = (0..8).map(|_| seconds(schedule.after_reversal())).collect();
        assert_eq!(reversed, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(seconds(schedule.after_refusal()), 5);
        assert_eq!(seconds(schedule.after_reversal()), 3600);
        schedule.refused = u32::MAX;
        assert_eq!(schedule.after_refusal(), REFUSED_LONGEST);
    }
}
