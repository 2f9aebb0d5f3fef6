//! Probes that are sent again and again while faults come and go: when each failed, when it was answered again, and how
//! long its longest outage was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kernel::netns::NetNs;

use crate::LabError;
use crate::options::Family;
use crate::probe::{self, Probe};
use crate::report::{Outage, ProbeKind, Transport};

/// From one probe of a kind to the next.
const INTERVAL: Duration = Duration::from_millis(40);
/// A probe that is answered later is lost.
const PATIENCE: Duration = Duration::from_millis(150);
/// A probe that was lost for so long was not merely answered late, as it may be where hundreds of threads wait for a processor.
const CERTAIN: Duration = Duration::from_millis(400);
/// Whoever sends has ended by now, also where hundreds of threads wait for a processor.
const QUIET: Duration = Duration::from_secs(30);

/// Which probe it is.
type Key = (ProbeKind, Family, String, String);

/// What came of one probe so far.
#[derive(Clone, Debug, Default)]
struct History {
    sent: u64,
    lost: u64,
    /// When the last one that was answered was sent.
    last_answered: Option<Instant>,
    /// When the last one that was lost was sent.
    last_lost: Option<Instant>,
    /// The first loss since the last success, and what was wrong.
    failing: Option<(Instant, String)>,
    longest: Duration,
    during: Option<String>,
}

#[derive(Debug, Default)]
struct Board {
    histories: BTreeMap<Key, History>,
    /// Those that are sent now.
    sent_now: Vec<Key>,
    /// The fault that is under way.
    during: Option<String>,
}

/// Sends probes until it is dropped.
#[derive(Debug)]
pub(crate) struct Pulses {
    board: Arc<Mutex<Board>>,
    /// Senders of an earlier generation end.
    generation: Arc<AtomicU64>,
    /// How many senders there are, of whatever generation.
    senders: Arc<AtomicU64>,
}

impl Pulses {
    /// Nothing is sent yet.
    pub(crate) fn new() -> Self {
        Self { board: Arc::default(), generation: Arc::default(), senders: Arc::default() }
    }

    /// Sends these from now on and no others; what is known of them is kept.
    pub(crate) fn send(&self, probes: Vec<(Probe, Arc<NetNs>)>) -> Result<(), LabError> {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        {
            let mut board = lock(&self.board);
            board.sent_now = probes.iter().map(|(probe, _)| key(probe)).collect();
            // Whoever was not probed for a while had no outage in that time.
            let keys = board.sent_now.clone();
            for (_, history) in board.histories.iter_mut().filter(|(key, _)| !keys.contains(key)) {
                (history.failing, history.last_answered) = (None, None);
            }
        }
        for (probe, netns) in probes {
            let (board, current) = (Arc::clone(&self.board), Arc::clone(&self.generation));
            let sender = Sender::count(&self.senders);
            let work = move || {
                let _counted = sender;
                while current.load(Ordering::SeqCst) == generation {
                    let sent = Instant::now();
                    let report = probe::send_once(&probe, &netns, PATIENCE);
                    if current.load(Ordering::SeqCst) != generation {
                        return;
                    }
                    lock(&board).record(
                        key(&probe),
                        sent,
                        (!report.ok).then(|| report.error.unwrap_or_default()),
                    );
                    thread::sleep(INTERVAL.saturating_sub(sent.elapsed()));
                }
            };
            thread::Builder::new()
                .name("pulse".to_owned())
                .stack_size(256 * 1024)
                .spawn(work)
                .map_err(LabError::io("start a thread that sends probes"))?;
        }
        Ok(())
    }

    /// Sends nothing more, and waits until nothing is under way.
    pub(crate) fn quiet(&self) -> Result<(), LabError> {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        while self.senders.load(Ordering::SeqCst) > 0 {
            if began.elapsed() >= QUIET {
                return Err(LabError::Deadline {
                    place: "the lab".to_owned(),
                    waited_for: "the end of the probes that were under way".to_owned(),
                    after: began.elapsed(),
                    log: String::new(),
                });
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Outages from now on are told to be due to this.
    pub(crate) fn blame(&self, fault: &str) {
        lock(&self.board).during = Some(fault.to_owned());
    }

    /// What was lost again and again that was sent at `since` or later, and when the first of it was sent.
    pub(crate) fn broken_since(&self, since: Instant) -> Option<(Instant, String)> {
        let board = lock(&self.board);
        let mut failing = board.histories.iter().filter_map(|(key, history)| {
            let (first, error) = history.failing.as_ref()?;
            let is_certain = history.last_lost? >= *first + CERTAIN;
            let said = || format!("{} {} {} → {}: {error}", key.0.name(), key.1, key.2, key.3);
            (*first >= since && is_certain).then(|| (*first, said()))
        });
        failing.next()
    }

    /// Whether each was answered that was sent last, at `since` or later; if not, one that was not.
    pub(crate) fn unanswered_since(&self, since: Instant) -> Option<String> {
        let board = lock(&self.board);
        let mut late = board.sent_now.iter().filter_map(|key| {
            let history = board.histories.get(key);
            let answered =
                history.and_then(|history| history.last_answered).is_some_and(|sent| sent >= since);
            let failing = history.and_then(|history| history.failing.as_ref());
            let error = match (answered, failing) {
                (true, None) => return None,
                (_, Some((_, error))) => error.as_str(),
                (false, None) => "not sent since",
            };
            Some(format!("{} {} {} → {}: {error}", key.0.name(), key.1, key.2, key.3))
        });
        late.next()
    }

    /// When the last of those that are sent now was lost.
    pub(crate) fn last_lost(&self) -> Option<Instant> {
        let board = lock(&self.board);
        board.sent_now.iter().filter_map(|key| board.histories.get(key)?.last_lost).max()
    }

    /// The outages, the longest first.
    pub(crate) fn outages(&self) -> Vec<Outage> {
        let board = lock(&self.board);
        let mut outages: Vec<_> = board.histories.iter().map(|(key, history)| outage(key, history)).collect();
        outages.sort_by_key(|outage| std::cmp::Reverse(outage.longest_ms));
        outages
    }
}

/// A sender that is counted until it ends.
#[derive(Debug)]
struct Sender(Arc<AtomicU64>);

impl Sender {
    fn count(senders: &Arc<AtomicU64>) -> Self {
        senders.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(senders))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Pulses {
    fn drop(&mut self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(probe: &Probe) -> Key {
    (probe.kind, probe.family, probe.from.clone(), probe.to.clone())
}

fn outage((kind, family, from, to): &Key, history: &History) -> Outage {
    Outage {
        from: from.clone(),
        to: to.clone(),
        family: *family,
        kind: *kind,
        sent: history.sent,
        lost: history.lost,
        longest_ms: u64::try_from(history.longest.as_millis()).unwrap_or(u64::MAX),
        during: history.during.clone(),
    }
}

impl Board {
    fn record(&mut self, key: Key, sent: Instant, error: Option<String>) {
        let during = self.during.clone();
        let history = self.histories.entry(key).or_default();
        history.sent += 1;
        if let Some(error) = error {
            history.lost += 1;
            history.last_lost = Some(sent);
            history.failing.get_or_insert((sent, error));
            return;
        }
        if let (Some(_), Some(before)) = (history.failing.take(), history.last_answered) {
            let lasted = sent.saturating_duration_since(before);
            if lasted > history.longest {
                (history.longest, history.during) = (lasted, during);
            }
        }
        history.last_answered = Some(sent);
    }
}

/// Of all probes, datagrams of each kind and family from each node to each other: enough to notice, few enough to be
/// sent many times a second.
pub(crate) fn choose(probes: Vec<Probe>) -> Vec<Probe> {
    let node = |place: &str| place.split(['/', ':']).next().unwrap_or_default().to_owned();
    let mut seen = std::collections::BTreeSet::new();
    probes
        .into_iter()
        .filter(|probe| probe.transport == Transport::Udp)
        .filter(|probe| seen.insert((probe.kind, probe.family, node(&probe.from), node(&probe.responder))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        (ProbeKind::PodPodRemote, Family::Ipv4, "node1/pod1".to_owned(), "node2/pod1".to_owned())
    }

    #[test]
    fn an_outage_lasts_from_one_success_to_the_next_and_only_if_something_was_lost_between() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut board = Board { during: Some("x".to_owned()), ..Board::default() };
        for (ms, lost) in
            [(0, false), (500, false), (540, true), (580, true), (620, false), (660, true), (700, false)]
        {
            board.record(key(), at(ms), lost.then(|| "no answer".to_owned()));
        }
        let found = outage(&key(), &board.histories[&key()]);
        assert_eq!(
            (found.sent, found.lost, found.longest_ms, found.during),
            (7, 3, 120, Some("x".to_owned()))
        );
    }

    #[test]
    fn what_failed_before_the_damage_is_not_its_proof() {
        let pulses = Pulses::new();
        let start = Instant::now();
        for sent in [start, start + CERTAIN] {
            lock(&pulses.board).record(key(), sent, Some("no answer".to_owned()));
        }
        assert_eq!(pulses.broken_since(start).map(|(first, _)| first), Some(start));
        assert!(pulses.broken_since(start + Duration::from_millis(1)).is_none());
    }

    #[test]
    fn an_answer_that_is_late_once_or_now_and_then_is_no_proof_of_damage() {
        let pulses = Pulses::new();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (ms, lost) in [(0, true), (190, true), (380, false), (420, true), (610, true), (800, true)] {
            lock(&pulses.board).record(key(), at(ms), lost.then(|| "no answer".to_owned()));
            assert!(pulses.broken_since(start).is_none(), "{ms}");
        }
        lock(&pulses.board).record(key(), at(990), Some("no answer".to_owned()));
        assert_eq!(pulses.broken_since(start).map(|(first, _)| first), Some(at(420)));
    }
}
