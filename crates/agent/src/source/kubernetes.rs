//! The Kubernetes API's Nodes, followed by a task of its own; this side keeps what was heard last.

use std::path::PathBuf;
use std::time::Duration;

use node_network::cluster::Freshness;
use node_network::{NodeName, Settings};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::node_store::NodeStore;
use super::peer_cache::PeerCache;
use super::{Reading, Source};
use crate::kubernetes::Location;
use crate::kubernetes::node_watch::{Heard, follow};
use crate::kubernetes::own_node::OwnNode;
use crate::reports::Reporter;

/// Events that may wait; whoever is slower is waited for by the API server's buffers.
const WAITING: usize = 256;
/// A program that looks once waits this long for the first list.
const FIRST_LIST: Duration = Duration::from_secs(30);

/// The Nodes of a cluster.
#[derive(Debug)]
pub struct KubernetesSource {
    location: Location,
    heard: mpsc::Receiver<Heard>,
    own: watch::Receiver<Option<OwnNode>>,
    task: JoinHandle<()>,
    store: NodeStore,
    cache: PeerCache,
    news: bool,
}

impl KubernetesSource {
    /// Follows the nodes from now on; `peers_file` holds what was known last. Must be called within a
    /// [`tokio::task::LocalSet`].
    #[must_use]
    pub fn new(location: Location, this_node: NodeName, peers_file: PathBuf) -> Self {
        let (sender, heard) = mpsc::channel(WAITING);
        let (own_sender, own) = watch::channel(None);
        let task =
            tokio::task::spawn_local(follow(location.clone(), Some(this_node.clone()), sender, own_sender));
        let cache = PeerCache::new(peers_file);
        let store = NodeStore::new(Some(this_node), cache.load());
        Self { location, heard, own, task, store, cache, news: false }
    }

    /// Who tells this cluster what this node found.
    pub(crate) fn reporter(&self, this_node: &NodeName, settings: &Settings) -> Reporter {
        Reporter::new(self.location.clone(), this_node, settings, self.own.clone())
    }

    /// Whether something was heard that makes a difference since this was last asked.
    pub(crate) const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
    }

    /// Takes over what was heard; whether it makes a difference.
    fn take(&mut self, heard: Heard) -> bool {
        let now = Instant::now();
        let changed = self.store.take(heard, now);
        if changed && self.store.trusted().is_some() {
            self.cache.changed(now);
        }
        self.news |= changed;
        changed
    }

    /// Keeps the peers for the next start. Called after a pass: routes come first.
    fn keep(&mut self) {
        let now = Instant::now();
        let Some((snapshot, version)) = self.store.trusted() else { return };
        if self.cache.due().is_some_and(|due| due <= now) {
            self.cache.write(snapshot, version, now);
        } else {
            self.cache.confirm(now);
        }
    }
}

impl Drop for KubernetesSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Source for KubernetesSource {
    fn read(&mut self) -> Reading<'_> {
        while let Ok(heard) = self.heard.try_recv() {
            self.take(heard);
        }
        self.store.reading(Instant::now())
    }

    async fn changed(&mut self) {
        loop {
            self.keep();
            let (held, due) = (self.store.holds_until(), self.cache.due());
            let heard = tokio::select! {
                heard = self.heard.recv() => heard,
                () = sleep_until(held.unwrap_or_else(Instant::now)), if held.is_some() => return,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
            };
            match heard {
                Some(heard) => {
                    if self.take(heard) {
                        return;
                    }
                }
                // The task is gone only where it panicked; routes stay as they are.
                None => return std::future::pending().await,
            }
        }
    }

    async fn settled(&mut self) {
        let synced = async {
            while !self.read().snapshot.is_some_and(|snapshot| snapshot.freshness == Freshness::Synced) {
                self.changed().await;
                if self.store.reading(Instant::now()).problem.is_some() {
                    return;
                }
            }
        };
        if timeout(FIRST_LIST, synced).await.is_err() {
            self.store.take(
                Heard::Silence(format!("the API server has not listed the nodes within {FIRST_LIST:?}")),
                Instant::now(),
            );
        }
    }
}
