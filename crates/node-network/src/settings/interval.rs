//! How an operator writes a span of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A time span between one second and one hour, written as `30s`, `5m` or `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval(Duration);

impl Interval {
    /// Of so many seconds; for defaults.
    pub(super) const fn of_seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

impl TryFrom<String> for Interval {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let remedy = || {
            let shown: String = text.chars().take(32).flat_map(char::escape_default).collect();
            format!("`{shown}` is no time span: write 30s, 5m or 1h (1s to 1h)")
        };
        let unit = text.chars().next_back().ok_or_else(remedy)?;
        let seconds_a_unit = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => return Err(remedy()),
        };
        let count: u64 = text.strip_suffix(unit).and_then(|count| count.parse().ok()).ok_or_else(remedy)?;
        match count.checked_mul(seconds_a_unit) {
            Some(seconds @ 1..=3_600) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(remedy()),
        }
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        format!("{}s", interval.0.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_spans_between_a_second_and_an_hour() {
        let parse = |text: &str| Interval::try_from(text.to_owned());
        assert_eq!(parse("5m").unwrap().as_duration(), Duration::from_secs(300));
        for text in ["", "0s", "2h", "30", "s", "-1s", "1 s", "99999999999999999999h", "1é", "1ss"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
