//! The Kubernetes API's Nodes, followed by a task of its own; this side keeps what was heard last.

use std::time::Duration;

use node_network::NodeName;
use node_network::cluster::Freshness;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::node_store::NodeStore;
use super::{Reading, Source};
use crate::kubernetes::Location;
use crate::kubernetes::node_watch::{Heard, follow};

/// Events that may wait; whoever is slower is waited for by the API server's buffers.
const WAITING: usize = 256;
/// A program that looks once waits this long for the first list.
const FIRST_LIST: Duration = Duration::from_secs(30);

/// The Nodes of a cluster.
#[derive(Debug)]
pub struct KubernetesSource {
    heard: mpsc::Receiver<Heard>,
    task: JoinHandle<()>,
    store: NodeStore,
}

impl KubernetesSource {
    /// Follows the nodes from now on. Must be called within a [`tokio::task::LocalSet`].
    #[must_use]
    pub fn new(location: Location, this_node: NodeName) -> Self {
        let (sender, heard) = mpsc::channel(WAITING);
        let task = tokio::task::spawn_local(follow(location, this_node.clone(), sender));
        Self { heard, task, store: NodeStore::new(this_node) }
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
            self.store.take(heard, Instant::now());
        }
        self.store.reading(Instant::now())
    }

    async fn changed(&mut self) {
        let until = self.store.holds_until();
        loop {
            let heard = tokio::select! {
                heard = self.heard.recv() => heard,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return,
            };
            match heard {
                Some(heard) => {
                    if self.store.take(heard, Instant::now()) {
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
