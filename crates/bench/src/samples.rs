//! Measured values of one thing, and what is said of them.

/// Measured values, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Takes one more value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle value; none where nothing was measured.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        self.percentile(50)
    }

    /// The smallest value that at least `percent` of all do not exceed (nearest rank).
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// The greatest value.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        self.percentile(100)
    }

    /// How many were measured.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let samples = Samples((1..=200).rev().map(f64::from).collect());
        assert_eq!(samples.median(), Some(100.0));
        assert_eq!(samples.percentile(99), Some(198.0));
        assert_eq!(samples.max(), Some(200.0));
    }

    #[test]
    fn of_nothing_there_is_no_median() {
        assert_eq!(Samples::default().median(), None);
    }

    #[test]
    fn one_value_is_its_own_median_and_maximum() {
        let samples = Samples(vec![7.0]);
        assert_eq!((samples.median(), samples.max()), (Some(7.0), Some(7.0)));
    }
}
