//! Which occurrences become Events: each once when it begins, again as a series when it comes back, and never so many
//! that the API server notices. A function of values and of the time it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use node_network::PodReference;

/// Events at once …
const BURST: f64 = 10.0;
/// … and then one in so long.
const EVERY: Duration = Duration::from_secs(60);
/// A series is told of at most so often.
const SERIES: Duration = Duration::from_secs(600);
/// Occurrences that are remembered; the API server forgets Events within the hour.
const REMEMBERED: usize = 128;

/// Something that happened, or that is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occurrence {
    pub(super) reason: String,
    pub(super) note: String,
    pub(super) warning: bool,
    /// It is so until it is no longer told of; else it happened now.
    pub(super) lasting: bool,
    /// The pod that it is about; this node where there is none.
    pub(super) pod: Option<PodReference>,
}

impl Occurrence {
    /// Where its Event lives: that of a cluster-scoped object, as a Node is, in `default`.
    pub(super) fn namespace(&self) -> &str {
        self.pod.as_ref().map_or("default", |pod| &pod.namespace)
    }
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EventRequest {
    /// A new Event.
    New(Event),
    /// The Event of this name happened again.
    Again { namespace: String, name: String, count: u32, last: Duration },
}

/// An Event, its time since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) occurrence: Occurrence,
    pub(super) at: Duration,
}

type Key = (String, String);

#[derive(Debug)]
struct Told {
    name: String,
    count: u32,
    last: Duration,
    written: Duration,
}

/// What was told.
#[derive(Debug)]
pub(super) struct EventLog {
    node: String,
    told: BTreeMap<Key, Told>,
    /// What is so now.
    present: BTreeSet<Key>,
    credit: f64,
    credited: Duration,
}

impl EventLog {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            told: BTreeMap::new(),
            present: BTreeSet::new(),
            credit: BURST,
            credited: Duration::ZERO,
        }
    }

    /// Takes over all that is so at `now`, and what happened since the last time; gives what is to be written.
    pub(super) fn take(&mut self, all: Vec<Occurrence>, now: Duration) -> Vec<EventRequest> {
        let earned = now.saturating_sub(self.credited).as_secs_f64() / EVERY.as_secs_f64();
        self.credit = (self.credit + earned).min(BURST);
        self.credited = now;
        let mut requests = Vec::new();
        let mut present = BTreeSet::new();
        for occurrence in all {
            let key = (occurrence.reason.clone(), occurrence.note.clone());
            let news = !occurrence.lasting || !self.present.contains(&key);
            if occurrence.lasting {
                present.insert(key.clone());
            }
            if news {
                requests.extend(self.occurred(key, occurrence, now));
            }
        }
        self.present = present;
        requests
    }

    fn occurred(&mut self, key: Key, occurrence: Occurrence, now: Duration) -> Option<EventRequest> {
        if let Some(told) = self.told.get_mut(&key) {
            told.count = told.count.saturating_add(1);
            told.last = now;
            if now < told.written + SERIES || self.credit < 1.0 {
                return None;
            }
            self.credit -= 1.0;
            told.written = now;
            let namespace = occurrence.namespace().to_owned();
            return Some(EventRequest::Again {
                namespace,
                name: told.name.clone(),
                count: told.count,
                last: now,
            });
        }
        if self.credit < 1.0 {
            return None;
        }
        self.credit -= 1.0;
        if self.told.len() >= REMEMBERED
            && let Some(oldest) =
                self.told.iter().min_by_key(|(_, told)| told.last).map(|(key, _)| key.clone())
        {
            self.told.remove(&oldest);
        }
        let mut hasher = DefaultHasher::new();
        (&key, now).hash(&mut hasher);
        let name = format!("{}.{:016x}", self.node, hasher.finish());
        self.told.insert(key, Told { name: name.clone(), count: 1, last: now, written: now });
        Some(EventRequest::New(Event { name, occurrence, at: now }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn occurrence(note: &str, lasting: bool) -> Occurrence {
        Occurrence { reason: "Reason".to_owned(), note: note.to_owned(), warning: true, lasting, pod: None }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn what_lasts_is_told_once() {
        let mut log = EventLog::new("node1");
        assert_eq!(log.take(vec![occurrence("a", true)], at(0)).len(), 1);
        for second in 1..10_000 {
            assert_eq!(log.take(vec![occurrence("a", true)], at(second)), []);
        }
    }

    #[test]
    fn what_comes_back_is_a_series_of_the_same_event_told_rarely() {
        let mut log = EventLog::new("node1");
        let first = log.take(vec![occurrence("a", true)], at(0));
        let [EventRequest::New(Event { name: first, .. })] = first.as_slice() else { panic!("{first:?}") };
        let mut again = Vec::new();
        for second in 1..=1_200 {
            let all = if second % 2 == 0 { vec![occurrence("a", true)] } else { Vec::new() };
            again.extend(log.take(all, at(second)));
        }
        let [EventRequest::Again { name, count: 301, .. }, EventRequest::Again { count: 601, .. }] =
            again.as_slice()
        else {
            panic!("{again:?}")
        };
        assert_eq!(name, first);
    }

    #[test]
    fn what_happens_is_told_each_time_as_a_series() {
        let mut log = EventLog::new("node1");
        assert_eq!(log.take(vec![occurrence("repair", false)], at(0)).len(), 1);
        assert_eq!(log.take(vec![occurrence("repair", false)], at(1)), []);
        assert_eq!(log.take(vec![occurrence("repair", false)], at(700)).len(), 1);
    }

    proptest! {
        #[test]
        fn whatever_happens_few_events_are_written(
            notes in proptest::collection::vec((0..1_000u32, any::<bool>()), 1..2_000),
        ) {
            let mut log = EventLog::new("node1");
            let mut written = 0;
            let hour = 3_600 * notes.len() as u64 / 2_000;
            for (index, (note, lasting)) in notes.iter().enumerate() {
                let second = hour * index as u64 / notes.len() as u64;
                written += log.take(vec![occurrence(&note.to_string(), *lasting)], at(second)).len();
            }
            prop_assert!(written as u64 <= 10 + hour / 60 + 1, "{} in {} s", written, hour);
            prop_assert!(log.told.len() <= REMEMBERED);
        }
    }
}
