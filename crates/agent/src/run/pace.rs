//! How soon the next pass may come: at once after quiet, slower while somebody keeps changing things.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// After a pass comes so many times its duration in which there is none …
const SHARE: u32 = 4;
/// … but never holds up the next by more than this: on a machine that has no time for us, a pass of seconds must not be
/// followed by a minute in which a changed Node goes unseen.
const LONGEST_SHARE: Duration = Duration::from_millis(500);
/// So many passes with changes may follow each other freely …
const BURST: f64 = 20.0;
/// … and then so many a second.
const RATE: f64 = 1.0;

/// Decides when to look again.
#[derive(Debug)]
pub(super) struct Pace {
    resync: Duration,
    last_end: Instant,
    last_duration: Duration,
    /// A leaky bucket: passes with changes that may still be made.
    credit: f64,
}

impl Pace {
    pub(super) fn new(resync: Duration) -> Self {
        Self { resync, last_end: Instant::now(), last_duration: Duration::ZERO, credit: BURST }
    }

    /// A pass that began at `began` has ended.
    pub(super) fn passed(&mut self, began: Instant, changed: bool) {
        self.passed_at(began, Instant::now(), changed);
    }

    fn passed_at(&mut self, began: Instant, ended: Instant, changed: bool) {
        let since_last = ended.saturating_duration_since(self.last_end);
        self.credit = (self.credit + since_last.as_secs_f64() * RATE).min(BURST);
        if changed {
            self.credit -= 1.0;
        }
        self.last_end = ended;
        self.last_duration = ended.saturating_duration_since(began);
    }

    /// How long to wait after an event: not at all after quiet. The share that passes may take of the time is what
    /// makes one pass of a burst's rest.
    pub(super) fn pause(&self) -> Duration {
        self.pause_at(Instant::now())
    }

    fn pause_at(&self, now: Instant) -> Duration {
        let since_last = now.saturating_duration_since(self.last_end);
        let share = (self.last_duration * SHARE).min(LONGEST_SHARE).saturating_sub(since_last);
        share.max(self.owed_at(now))
    }

    /// How long to wait because so many passes had something to change; nothing while that is not so.
    pub(super) fn owed(&self) -> Duration {
        self.owed_at(Instant::now())
    }

    fn owed_at(&self, now: Instant) -> Duration {
        let since_last = now.saturating_duration_since(self.last_end);
        let credit = self.credit + since_last.as_secs_f64() * RATE;
        if credit < 0.0 { Duration::from_secs_f64(-credit / RATE) } else { Duration::ZERO }
    }

    /// When to look although nothing was heard. The time differs from node to node, so that they do not act in step.
    pub(super) fn resync_at(&self, sooner: Option<Duration>) -> Instant {
        let tenths = RandomState::new().hash_one(std::process::id()) % 3;
        let jitter = self.resync / 10 * tenths as u32;
        let resync = self.resync.saturating_sub(jitter);
        self.last_end + sooner.map_or(resync, |sooner| sooner.min(resync))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_quiet_a_pass_comes_at_once() {
        let pace = Pace::new(Duration::from_secs(30));
        assert_eq!(pace.pause_at(pace.last_end + Duration::from_secs(5)), Duration::ZERO);
    }

    #[test]
    fn a_program_that_undoes_every_repair_is_answered_about_once_a_second() {
        let mut pace = Pace::new(Duration::from_secs(30));
        let start = Instant::now();
        let (mut now, mut passes) = (start, 0_u32);
        while now < start + Duration::from_secs(60) {
            let began = now + pace.pause_at(now);
            now = began + Duration::from_millis(1);
            pace.passed_at(began, now, true);
            passes += 1;
        }
        assert!((70..=90).contains(&passes), "{passes} passes in a minute");
    }

    #[test]
    fn passes_without_changes_take_at_most_a_fifth_of_the_time() {
        let mut pace = Pace::new(Duration::from_secs(30));
        let began = Instant::now();
        let ended = began + Duration::from_millis(50);
        pace.passed_at(began, ended, false);
        assert_eq!(pace.pause_at(ended), Duration::from_millis(200));
    }

    #[test]
    fn a_pass_that_took_seconds_holds_up_the_next_for_half_a_second() {
        let mut pace = Pace::new(Duration::from_secs(30));
        let began = Instant::now();
        let ended = began + Duration::from_secs(4);
        pace.passed_at(began, ended, true);
        assert_eq!(pace.pause_at(ended), LONGEST_SHARE);
        assert_eq!(pace.owed_at(ended), Duration::ZERO);
    }

    #[test]
    fn a_resync_comes_within_the_interval_and_sooner_where_asked() {
        let pace = Pace::new(Duration::from_secs(30));
        let at = pace.resync_at(None).duration_since(pace.last_end);
        assert!((Duration::from_secs(24)..=Duration::from_secs(30)).contains(&at));
        assert_eq!(
            pace.resync_at(Some(Duration::from_secs(1))).duration_since(pace.last_end),
            Duration::from_secs(1)
        );
    }
}
