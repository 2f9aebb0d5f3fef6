//! Pods that come and go all the while, on every node, as in a living cluster.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::LabError;
use crate::cluster::Cluster;
use crate::node::read_conflist;
use crate::place::Place;
use crate::report::Churned;
use crate::runtime;

/// From one pod's end to the next one's begin.
const PAUSE: Duration = Duration::from_millis(60);
/// The host port of a pod that comes and goes.
const HOST_PORT: u16 = 18_081;
/// More failures are counted, not listed.
const LISTED: usize = 5;

#[derive(Debug, Default)]
struct Tally {
    counts: Churned,
    failures: Vec<String>,
}

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    tally: Mutex<Tally>,
    stopped: Mutex<bool>,
    stop: Condvar,
    /// Calls may fail: a disk is full.
    may_fail: AtomicBool,
}

/// One thread a node, until it is stopped.
#[derive(Debug, Default)]
pub(crate) struct Churn {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Churn {
    /// Goes on, on the cluster as it is now.
    pub(crate) fn start(&mut self, cluster: &Cluster) -> Result<(), LabError> {
        *lock(&self.shared.stopped) = false;
        for node in &cluster.nodes {
            let (name, place) = (node.plan.name.clone(), node.place.clone());
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new()
                .name("churn".to_owned())
                .spawn(move || shared.go_on(&name, &place))
                .map_err(LabError::io("start a thread that makes pods come and go"))?;
            self.threads.push(thread);
        }
        Ok(())
    }

    /// Stops for a while: every pod has gone when this returns.
    pub(crate) fn stop(&mut self) {
        *lock(&self.shared.stopped) = true;
        self.shared.stop.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }

    /// From now on calls may fail, or must not.
    pub(crate) fn excuse(&self, may_fail: bool) {
        self.shared.may_fail.store(may_fail, Ordering::SeqCst);
    }

    /// The failures since this was last asked.
    pub(crate) fn take_failures(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared.tally).failures)
    }

    /// How many came and went.
    pub(crate) fn counts(&self) -> Churned {
        lock(&self.shared.tally).counts
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn go_on(&self, node: &str, place: &Place) {
        let mut number = 0_u64;
        loop {
            let stopped = lock(&self.stopped);
            let pause = self.stop.wait_timeout_while(stopped, PAUSE, |stopped| !*stopped);
            if *pause.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
            number += 1;
            self.come_and_go(place, &format!("{node}/churn{number}"));
        }
    }

    fn come_and_go(&self, place: &Place, name: &str) {
        let may_fail = || self.may_fail.load(Ordering::SeqCst);
        let excused = may_fail();
        let mut outcome = attempt(place, name.to_owned());
        // The node may lose an address between two steps of an ADD. It fails, and a runtime tries again with another
        // namespace, as often as it takes; here the second time must do.
        let retried = matches!(&outcome, Ok((Some(_), None))) && !may_fail();
        if retried {
            outcome = attempt(place, format!("{name}-again"));
        }
        let (added, deleted) = outcome.unwrap_or_else(|error| (Some(error), None));
        let mut tally = lock(&self.tally);
        tally.counts.retried += u64::from(retried);
        tally.counts.added += u64::from(added.is_none());
        tally.counts.deleted += u64::from(deleted.is_none());
        let excused = excused || may_fail();
        for error in [added, deleted].into_iter().flatten() {
            if excused {
                tally.counts.excused += 1;
            } else {
                tally.counts.failed += 1;
                if tally.failures.len() < LISTED {
                    tally.failures.push(error.to_string());
                }
            }
        }
    }
}

/// A pod comes and goes; gives the errors of ADD and of DEL.
fn attempt(place: &Place, name: String) -> Result<(Option<LabError>, Option<LabError>), LabError> {
    place.run(move || {
        // The runtime reads it anew for each pod; DEL gets the one of ADD.
        let list = read_conflist(Path::new("/"))?;
        let mut pod = runtime::sandbox(&name, Some(HOST_PORT))?;
        let added = runtime::attach(&list, &mut pod);
        // A runtime calls DEL for a pod that it could not attach, too.
        let deleted = runtime::delete(&list, &pod);
        if deleted.is_err() {
            runtime::abandon(&pod)?;
        }
        Ok((added.err(), deleted.err()))
    })
}
