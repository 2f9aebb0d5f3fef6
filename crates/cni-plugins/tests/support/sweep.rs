//! Which of very many cases a run takes: all, or a sample that another run takes otherwise.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `$HOSTGW_SWEEP` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// `full`.
    Full,
    /// The seed of a sample, to take the same again; without the variable, the time gives one. With `:` and a number
    /// behind it, so many cases of each sweep.
    Sample { seed: u64, samples: Option<usize> },
}

impl Sweep {
    pub(crate) fn chosen() -> Self {
        match std::env::var("HOSTGW_SWEEP").as_deref() {
            Ok("full") => Self::Full,
            Ok(sample) => {
                let (seed, samples) = sample.split_once(':').map_or((sample, None), |(s, n)| (s, Some(n)));
                let number = "HOSTGW_SWEEP is `full`, a seed, or a seed, `:` and how many";
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
            Self::Sample { seed, samples: None } => format!("HOSTGW_SWEEP={seed}"),
            Self::Sample { seed, samples: Some(samples) } => format!("HOSTGW_SWEEP={seed}:{samples}"),
        }
    }

    /// Of `cases` all, or so many, spread evenly, one from each stretch. `salt` makes sweeps of one seed differ.
    pub(crate) fn of<T: Copy + Debug>(self, cases: &[T], samples: usize, salt: &str) -> Vec<T> {
        let Self::Sample { seed, samples: wanted } = self else { return cases.to_vec() };
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

/// SplitMix64 (Steele, Lea and Flood 2014).
fn split_mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
