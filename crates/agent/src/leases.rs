//! What DHCP servers lend to this node's pods: prolonged in time, given back when a pod is gone, reported when lost.
//!
//! A thread of its own, because a lease is prolonged from within its pod's network namespace; one for all leases.

mod folders;
mod keeper;
mod prolonging;
mod tally;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use node_network::Condition;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use tokio::sync::Notify;

use keeper::Keeper;
pub(crate) use tally::LeaseTally;

/// The leases that are lost, by file.
type Lost = std::collections::BTreeMap<PathBuf, Condition>;

/// What the keeper has to say.
#[derive(Debug, Default)]
struct Board {
    lost: Mutex<Lost>,
    changed: Notify,
    tally: LeaseTally,
}

impl Board {
    fn change(&self, change: impl FnOnce(&mut Lost)) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lost.len();
        change(&mut lost);
        self.tally.lost.set(i64::try_from(lost.len()).unwrap_or(i64::MAX));
        if lost.len() != before {
            self.changed.notify_one();
        }
    }
}

/// The keeper of the leases below a folder. It ends with this value, and leaves every lease as it is.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    board: Arc<Board>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl LeaseKeeper {
    /// Starts it, in the calling thread's network namespace.
    pub(crate) fn start(lease_dir: PathBuf, tally: LeaseTally) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let board = Arc::new(Board { tally, ..Board::default() });
        let mut keeper = Keeper::new(lease_dir, Arc::clone(&board), Arc::clone(&stop));
        // It holds a frame and a few names; the default of 2 MiB would never be used.
        let builder = std::thread::Builder::new().name("leases".to_owned()).stack_size(256 << 10);
        let thread = builder.spawn(move || keeper.run())?;
        Ok(Self { board, stop, thread: Some(thread) })
    }

    /// What is lost now.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        self.board.lost.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Resolves once something was lost or regained.
    pub(crate) async fn changed(&self) {
        self.board.changed.notified().await;
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        // A counter of one is what the keeper wakes up to, and it looks at nothing else then.
        rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
