//! The keeper's loop: files say which leases there are, one timer for all says which is due. Without a lease nothing
//! wakes it but the first one's coming.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cni_plugins::dhcp::{Lease, LeaseStore, StoreError, give_back, seed};
use cni_plugins::wiring::host_link_name;
use dhcp_client::{Dice, Phase, due};
use kernel::link;
use kernel::netlink::{Protocol, Socket};
use kernel::netns::{NetNsId, id_of};
use node_network::{Condition, PodReference};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};

use super::Board;
use super::folders::LeaseFolders;
use super::prolonging::{Came, Prolonging};

/// How often the files are looked through where nothing tells that they changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How soon they are looked through again where something does; only those that changed are read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often it is asked whether the pods of leases still live.
const LIVING_EVERY: Duration = Duration::from_secs(60);
/// How old a lease is before its pod is missed: longer than any ADD.
const GRACE: Duration = Duration::from_secs(300);
/// How many leases are prolonged at once, each by a socket.
const AT_ONCE: usize = 32;
/// The pause after a lease that could not even be asked for.
const PAUSE: Duration = Duration::from_secs(60);

/// A lease that is known.
#[derive(Debug)]
struct Known {
    modified: Option<SystemTime>,
    next: Duration,
}

/// Why the keeper no longer waits.
enum Woken {
    ToStop,
    ToLook,
    ByClockOrAnswer,
}

#[derive(Debug)]
pub(super) struct Keeper {
    lease_dir: PathBuf,
    /// None where the kernel gives no inotify.
    folders: Option<LeaseFolders>,
    board: Arc<Board>,
    stop: Arc<OwnedFd>,
    dice: Dice,
    known: BTreeMap<PathBuf, Known>,
    /// The timer: when each is due, earliest first.
    timer: BTreeSet<(Duration, PathBuf)>,
    running: Vec<Prolonging>,
    /// What the last look through the files could not do, told once.
    problem: Option<String>,
}

impl Keeper {
    pub(super) fn new(lease_dir: PathBuf, board: Arc<Board>, stop: Arc<OwnedFd>) -> Self {
        Self {
            folders: LeaseFolders::new(&lease_dir),
            lease_dir,
            board,
            stop,
            dice: Dice::new(seed()),
            known: BTreeMap::new(),
            timer: BTreeSet::new(),
            running: Vec::new(),
            problem: None,
        }
    }

    /// Until it is told to stop.
    pub(super) fn run(&mut self) {
        let (mut look_at, mut judged) = (Some(Instant::now()), None::<Instant>);
        let mut looked = None::<Instant>;
        loop {
            if look_at.is_some_and(|at| at <= Instant::now()) {
                let judges = judged.is_none_or(|judged| judged.elapsed() >= LIVING_EVERY);
                if judges {
                    judged = Some(Instant::now());
                }
                looked = Some(Instant::now());
                look_at = self.look_and_tell(judges).map(|pause| Instant::now() + pause);
            }
            self.begin_what_is_due();
            let next_look = look_at.map(|at| at.saturating_duration_since(Instant::now()));
            let pauses = [next_look, self.advance(), self.until_next()];
            match self.wait(pauses.into_iter().flatten().min()) {
                Woken::ToStop => return,
                Woken::ToLook => {
                    look_at = Some(looked.map_or_else(Instant::now, |looked| looked + LOOK_AGAIN));
                }
                Woken::ByClockOrAnswer => {}
            }
        }
    }

    /// Looks through the files, and tells what is wrong with them once; after what pause to look again although nothing
    /// may be heard.
    fn look_and_tell(&mut self, judges: bool) -> Option<Duration> {
        // First, so that what happens while it looks is heard.
        let is_told = self.folders.as_ref().is_some_and(LeaseFolders::renew);
        let (problem, has_leases) = match self.look(judges) {
            Ok(has_leases) => (None, has_leases),
            Err(error) => (Some(error.to_string()), true),
        };
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.problem) {
            tracing::warn!("leases: {problem}");
        }
        self.problem = problem;
        match is_told {
            false => Some(LOOK_EVERY),
            true => has_leases.then_some(LIVING_EVERY),
        }
    }

    /// Waits for answers, files or the end, at most for so long.
    fn wait(&self, longest: Option<Duration>) -> Woken {
        let timeout = longest.and_then(|longest| Timespec::try_from(longest).ok());
        let mut waited = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        waited.extend(
            self.running
                .iter()
                .map(|one| PollFd::from_borrowed_fd(one.line().socket().as_fd(), PollFlags::IN)),
        );
        waited.extend(self.folders.as_ref().map(|folders| PollFd::new(folders, PollFlags::IN)));
        // Interrupted or failed, the loop goes round: whatever is due is done by the clock.
        if poll(&mut waited, timeout.as_ref()).is_ok()
            && waited.first().is_some_and(|stop| !stop.revents().is_empty())
        {
            return Woken::ToStop;
        }
        match self.folders.as_ref().is_some_and(LeaseFolders::hear) {
            true => Woken::ToLook,
            false => Woken::ByClockOrAnswer,
        }
    }

    fn until_next(&self) -> Option<Duration> {
        let (next, _) = self.timer.first().filter(|_| self.running.len() < AT_ONCE)?;
        // The clock may be set meanwhile.
        Some(next.saturating_sub(now()).min(LIVING_EVERY))
    }

    /// Takes over which leases there are; with `judges`, gives back those whose pods are gone. Whether there is any.
    fn look(&mut self, judges: bool) -> Result<bool, StoreError> {
        let mut seen = BTreeSet::new();
        let mut remembers = false;
        for store in LeaseStore::all(&self.lease_dir)? {
            for path in store.files()? {
                let modified = fs::metadata(&path).and_then(|found| found.modified()).ok();
                let is_known = self.known.get(&path).is_some_and(|known| known.modified == modified);
                if !is_known || judges {
                    self.read(&store, &path, modified, is_known)?;
                }
                seen.insert(path);
            }
            if judges {
                forget_remembered(&store)?;
            }
            remembers |= !store.remembered_files()?.is_empty();
        }
        let gone: Vec<PathBuf> = self.known.keys().filter(|path| !seen.contains(*path)).cloned().collect();
        for path in gone {
            self.forget(&path);
        }
        self.board.tally.held.set(i64::try_from(self.known.len()).unwrap_or(i64::MAX));
        Ok(remembers || !seen.is_empty())
    }

    fn read(
        &mut self,
        store: &LeaseStore,
        path: &Path,
        modified: Option<SystemTime>,
        is_known: bool,
    ) -> Result<(), StoreError> {
        let age = modified.and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
        let Some(lease) = LeaseStore::read(path)? else {
            // Torn by a power loss, or nobody's: whose address it was, the server alone knows.
            return if age > GRACE { store.discard(path) } else { Ok(()) };
        };
        let of_earlier_boot = lease.confirmed && age > since_boot();
        if (age > GRACE || of_earlier_boot) && !is_alive(&lease) {
            tracing::info!(address = %lease.terms.address, attachment = %lease.attachment, "lease of a pod that is gone given back");
            give_back(store, &lease)?;
            self.board.tally.given_back.inc();
            self.forget(path);
        } else if !is_known && lease.confirmed {
            let next = due(&lease.terms, lease.bound_at(), now(), &mut self.dice);
            let next = if next.phase == Phase::Bound { next.next } else { now() };
            self.schedule(path, modified, next);
        }
        Ok(())
    }

    fn schedule(&mut self, path: &Path, modified: Option<SystemTime>, next: Duration) {
        if let Some(known) = self.known.insert(path.to_owned(), Known { modified, next }) {
            self.timer.remove(&(known.next, path.to_owned()));
        }
        self.timer.insert((next, path.to_owned()));
    }

    fn forget(&mut self, path: &Path) {
        if let Some(known) = self.known.remove(path) {
            self.timer.remove(&(known.next, path.to_owned()));
        }
        self.running.retain(|one| one.path != path);
        self.board.change(|lost| {
            lost.remove(path);
        });
    }

    fn begin_what_is_due(&mut self) {
        while self.running.len() < AT_ONCE {
            let Some((next, path)) = self.timer.first().cloned().filter(|(next, _)| *next <= now()) else {
                return;
            };
            self.timer.remove(&(next, path.clone()));
            if self.running.iter().any(|one| one.path == path) {
                continue;
            }
            let Ok(Some(lease)) = LeaseStore::read(&path) else { continue };
            let phase = due(&lease.terms, lease.bound_at(), now(), &mut self.dice).phase;
            match Prolonging::begin(path.clone(), lease, phase) {
                Ok(begun) => self.running.push(begun),
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "lease not prolonged");
                    let next = now() + self.dice.about(PAUSE);
                    self.again_at(&path, next);
                }
            }
        }
    }

    fn again_at(&mut self, path: &Path, next: Duration) {
        let modified = self.known.get(path).and_then(|known| known.modified);
        self.schedule(path, modified, next);
    }

    /// Carries on with all that run; how long they have nothing to do.
    fn advance(&mut self) -> Option<Duration> {
        let mut soonest: Option<Duration> = None;
        let mut ended = Vec::new();
        for (index, one) in self.running.iter_mut().enumerate() {
            match one.advance(now()) {
                Ok(wait) => soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait))),
                Err(came) => ended.push((index, came)),
            }
        }
        for (index, came) in ended.into_iter().rev() {
            let one = self.running.swap_remove(index);
            self.end(&one, came);
        }
        soonest
    }

    fn end(&mut self, one: &Prolonging, came: Came) {
        let Prolonging { path, lease, phase, .. } = one;
        let address = lease.terms.address.addr();
        let again = due(&lease.terms, lease.bound_at(), now(), &mut self.dice).next;
        match came {
            Came::Prolonged(renewed) => {
                tracing::debug!(%address, attachment = %lease.attachment, "lease prolonged");
                self.board.tally.prolonged.inc();
                let next = due(&renewed.terms, renewed.bound_at(), now(), &mut self.dice).next;
                self.keep(path, &renewed);
                self.again_at(path, next);
                self.board.change(|lost| {
                    lost.remove(path);
                });
            }
            Came::Refused(reason) => {
                self.board.tally.refused.inc();
                self.keep(path, &lease.ended());
                self.lose(path, lease, &reason);
                // It may be lent anew, to the same client, by a server that only forgot.
                self.again_at(path, now());
            }
            Came::Unanswered(error) if *phase == Phase::Expired => {
                self.board.tally.unanswered.inc();
                self.lose(path, lease, &error.to_string());
                self.again_at(path, again);
            }
            Came::Unanswered(error) => {
                self.board.tally.unanswered.inc();
                tracing::debug!(%error, %address, "lease not prolonged yet");
                self.again_at(path, again);
            }
            Came::Failed(error) => {
                tracing::debug!(%error, %address, "lease not prolonged yet");
                let next = now() + self.dice.about(PAUSE);
                self.again_at(path, next);
            }
        }
    }

    /// Writes a lease, unless its pod's DEL was quicker.
    fn keep(&self, path: &Path, lease: &Lease) {
        let store = LeaseStore::new(&self.lease_dir, &lease.network);
        if let Err(error) = store.update(lease) {
            tracing::warn!(%error, path = %path.display(), "lease not kept");
        }
    }

    fn lose(&self, path: &Path, lease: &Lease, reason: &str) {
        let holder = lease
            .pod
            .as_ref()
            .map_or_else(|| lease.attachment.to_string(), |pod| format!("{}/{}", pod.namespace, pod.name));
        let pod = lease.pod.as_ref().map(|pod| {
            Box::new(PodReference {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: lease.pod_uid.clone(),
            })
        });
        let address = lease.terms.address.addr().into();
        let condition = Condition::LeaseLost { holder, pod, address, reason: reason.to_owned() };
        self.board.change(|lost| {
            lost.insert(path.to_owned(), condition);
        });
    }
}

/// What nobody came back for in time is the server's again.
fn forget_remembered(store: &LeaseStore) -> Result<(), StoreError> {
    for path in store.remembered_files()? {
        let is_over = |lease: &Lease| {
            lease.terms.lease_seconds != u32::MAX
                && lease.bound_at() + Duration::from_secs(lease.terms.lease_seconds.into()) < now()
        };
        if LeaseStore::read(&path)?.is_none_or(|lease| is_over(&lease)) {
            store.discard(&path)?;
        }
    }
    Ok(())
}

/// A living link on the node proves that its pod lives, and so does the pod's namespace. Not knowing is no proof of death.
fn is_alive(lease: &Lease) -> bool {
    let in_place = lease.pod_link.as_ref().is_some_and(|pod| {
        id_of(pod.netns.path.as_ref()) == Some(NetNsId { device: pod.netns.dev, inode: pod.netns.inode })
    });
    let name = host_link_name(&lease.network, &lease.attachment);
    in_place
        || Socket::open(Protocol::Route)
            .and_then(|mut socket| link::by_name(&mut socket, name.as_str()))
            .is_ok_and(|found| found.is_some())
}

/// For how long this node is up.
fn since_boot() -> Duration {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(up).unwrap_or(Duration::MAX)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
