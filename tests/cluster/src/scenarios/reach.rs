//! Judging answers: who had to answer, and which source address had to be seen.

use std::net::IpAddr;

use crate::error::{Outcome, TierError};
use crate::pod::ask::Answer;

/// Every answer must be there, of one of `from`, which saw one of `sources` (of any address, where that is empty).
pub(super) fn all_answered(what: &str, answers: &[Answer], from: &[&str], sources: &[IpAddr]) -> Outcome {
    if answers.is_empty() {
        return Err(TierError::Wrong(format!("{what}: nothing was asked")));
    }
    for answer in answers {
        let wrong = |why: String| Err(TierError::Wrong(format!("{what}: {}: {why}", answer.target)));
        match &answer.answered {
            None => return wrong(answer.error.clone().unwrap_or_default()),
            Some((name, _)) if !from.contains(&name.as_str()) => {
                return wrong(format!("{name} answered, not one of {from:?}"));
            }
            Some((_, seen)) if !sources.is_empty() && !sources.contains(seen) => {
                return wrong(format!("the source was seen as {seen}, not as one of {sources:?}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The slowest answer, in milliseconds.
pub(super) fn slowest_ms(answers: &[Answer]) -> u64 {
    answers.iter().map(|answer| answer.took_us / 1000).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(answered: Option<(&str, &str)>) -> Answer {
        Answer {
            target: "tcp:10.0.0.1:80".to_owned(),
            answered: answered.map(|(name, source)| (name.to_owned(), source.parse().unwrap())),
            error: answered.is_none().then(|| "timed out".to_owned()),
            took_us: 1500,
        }
    }

    #[test]
    fn silence_another_pod_and_another_source_are_each_wrong() {
        let own = ["10.1.0.1".parse().unwrap()];
        let judge = |answer: Answer| all_answered("x", &[answer], &["web"], &own);
        assert!(judge(answer(Some(("web", "10.1.0.1")))).is_ok());
        assert!(judge(answer(None)).unwrap_err().to_string().contains("timed out"));
        assert!(judge(answer(Some(("db", "10.1.0.1")))).is_err());
        assert!(judge(answer(Some(("web", "10.1.0.9")))).is_err());
        assert!(all_answered("x", &[], &["web"], &own).is_err());
    }
}
