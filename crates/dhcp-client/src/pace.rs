//! How long an answer is waited for before the question is repeated.

use std::time::Duration;

/// The first wait. RFC 2131, section 4.1 names 4 s, for the slow networks of its time; a pod waits here.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(8);

/// Chance, from a seed that the caller gives (`SplitMix64`): clients that begin at once must not repeat at once.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed rolls the same.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `around`, give or take a tenth.
    pub fn about(&mut self, around: Duration) -> Duration {
        let tenths = u32::try_from(self.roll() % 201).unwrap_or_default();
        around.mul_f64(f64::from(900 + tenths) / 1000.0)
    }
}

/// The wait after the `sent`-th question, from 1 on: it doubles.
pub(crate) fn wait_after(sent: u32, dice: &mut Dice) -> Duration {
    let doubled = FIRST.saturating_mul(1 << sent.saturating_sub(1).min(8));
    dice.about(doubled.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_differ_between_clients() {
        let mut dice = Dice::new(1);
        let waits: Vec<Duration> = (1..=6).map(|sent| wait_after(sent, &mut dice)).collect();
        for (wait, around) in waits.iter().zip([1, 2, 4, 8, 8, 8]) {
            let around = Duration::from_secs(around);
            assert!(*wait >= around.mul_f64(0.9) && *wait <= around.mul_f64(1.1), "{waits:?}");
        }
        assert_ne!(wait_after(1, &mut Dice::new(1)), wait_after(1, &mut Dice::new(2)));
    }
}
