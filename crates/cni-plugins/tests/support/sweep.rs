//! Which of very many cases a run takes: all, or a sample that another run takes otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `$HOSTGW_SWEEP` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// `full`.
    Full,
    /// `kinds`: the first and the last case of each kind, the same in each run.
    Kinds,
    /// The seed of a sample, to take the same again; without the variable, the time gives one. With `:` and a number
    /// behind it, so many cases of each sweep.
    Sample { seed: u64, samples: Option<usize> },
}

impl Sweep {
    pub(crate) fn chosen() -> Self {
        match std::env::var("HOSTGW_SWEEP").as_deref() {
            Ok("full") => Self::Full,
            Ok("kinds") => Self::Kinds,
            Ok(sample) => {
                let (seed, samples) = sample.split_once(':').map_or((sample, None), |(s, n)| (s, Some(n)));
                let number = "HOSTGW_SWEEP is `full`, `kinds`, a seed, or a seed, `:` and how many";
                Self::Sample {
                    seed: seed.parse().expect(number),
                    samples: samples.map(|samples| samples.parse().expect(number)),
                }
            }
            Err(_) => Self::Sample {
                seed: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 100_000,
                samples: None,
            },
        }
    }

    /// How to run the same again.
    pub(crate) fn again(self) -> String {
        match self {
            Self::Full => "HOSTGW_SWEEP=full".to_owned(),
            Self::Kinds => "HOSTGW_SWEEP=kinds".to_owned(),
            Self::Sample { seed, samples: None } => format!("HOSTGW_SWEEP={seed}"),
            Self::Sample { seed, samples: Some(samples) } => format!("HOSTGW_SWEEP={seed}:{samples}"),
        }
    }

    /// Of `cases` all; or the first and the last of each kind, as far as they are this `share`'s; or so many, spread evenly,
    /// one from each stretch. A case without a kind is like another that has one. `salt` makes sweeps of one seed differ.
    pub(crate) fn of<T: Copy + Debug, K: Ord>(
        self,
        cases: &[T],
        samples: usize,
        salt: &str,
        share: Share,
        kind: impl Fn(&T) -> Option<K>,
    ) -> Vec<T> {
        let (seed, wanted) = match self {
            Self::Full => return cases.to_vec(),
            Self::Kinds => return share.of(ends_of_each(cases, kind)),
            Self::Sample { seed, samples } => (seed, samples),
        };
        let mut state = salt.bytes().fold(seed, |state, byte| split_mix(state ^ u64::from(byte)));
        let samples = wanted.unwrap_or(samples).min(cases.len());
        (0..samples)
            .map(|sample| {
                let (begin, end) = (sample * cases.len() / samples, (sample + 1) * cases.len() / samples);
                state = split_mix(state);
                let within = usize::try_from(state >> 33).unwrap() % (end - begin);
                cases[begin + within]
            })
            .collect()
    }
}

/// Which of the sweeps that have the same cases this is, so that together they take each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) number: usize,
    pub(crate) among: usize,
}

impl Share {
    pub(crate) const ALL: Self = Self { number: 0, among: 1 };

    fn of<T>(self, cases: Vec<T>) -> Vec<T> {
        cases.into_iter().skip(self.number).step_by(self.among).collect()
    }
}

/// The first and the last case of each kind, in the cases' order.
fn ends_of_each<T: Copy, K: Ord>(cases: &[T], kind: impl Fn(&T) -> Option<K>) -> Vec<T> {
    let mut ends: BTreeMap<K, (usize, usize)> = BTreeMap::new();
    for (at, case) in cases.iter().enumerate() {
        if let Some(kind) = kind(case) {
            ends.entry(kind).or_insert((at, at)).1 = at;
        }
    }
    let taken: BTreeSet<usize> = ends.into_values().flat_map(|(first, last)| [first, last]).collect();
    taken.into_iter().map(|at| cases[at]).collect()
}

/// SplitMix64 (Steele, Lea and Flood 2014).
fn split_mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
