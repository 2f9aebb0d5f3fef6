//! A file of Node objects, as `kubectl get nodes -o yaml` prints them, watched.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use node_network::cluster::{ClusterNode, Freshness, NodeObject, SourceKind, snapshot_from_objects};
use node_network::{ClusterSnapshot, NodeName};

use super::nodes_text::{ParseError, parse_nodes};
use super::{Reading, Source};
use crate::atomic_file::open_regular;
use crate::events::FolderWatch;

/// 20,000 nodes of 3 KB each.
const MAX_BYTES: u64 = 64 << 20;

/// Why the nodes file cannot be used now. What was last read stays in use.
#[derive(Debug, thiserror::Error)]
pub enum NodesFileError {
    /// It cannot be read.
    #[error("failed to read nodes file {}: {source}; write the Node objects there (`kubectl get nodes -o yaml`)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too long.
    #[error("nodes file {} is longer than {MAX_BYTES} bytes: leave out managedFields and images", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be parsed.
    #[error("nodes file {}: {source}; it may be half-written, write it under another name and rename it", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: ParseError,
    },
    /// It lists no node.
    #[error("nodes file {} lists no node: nothing is changed until it does", path.display())]
    NoNodes {
        /// The file.
        path: PathBuf,
    },
    /// It was written just now, and may be cut.
    #[error("nodes file {} was written just now: waiting for the rest of it; write it under another name and rename it", path.display())]
    BeingWritten {
        /// The file.
        path: PathBuf,
    },
    /// It does not list this node.
    #[error("nodes file {} lists {nodes} nodes and not this one, `{this_node}`: add it, or correct --node-name", path.display())]
    LacksThisNode {
        /// The file.
        path: PathBuf,
        /// How many it lists.
        nodes: usize,
        /// This node.
        this_node: NodeName,
    },
}

/// A file that is being written may look whole, cut between two nodes or within an address. It counts once its writer
/// has closed or renamed it, or, where that cannot be heard, once it has been left alone for this long. Until then
/// nothing is taken of it but nodes that were not known before and have another behind them.
const SETTLE: Duration = Duration::from_secs(2);
/// A file is first made and then written; what belongs together arrives within this.
const COALESCE: Duration = Duration::from_millis(3);

/// Tells whether a file is still the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A nodes file.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    this_node: NodeName,
    watch: FolderWatch,
    /// The file whose verdict is final; it is not parsed again.
    seen: Option<Identity>,
    settled_at: Option<Instant>,
    last_good: Option<ClusterSnapshot>,
    /// Some snapshot was read whole, so that `last_good` holds all there is.
    whole: bool,
    /// `last_good` says something else than it did.
    differs: bool,
    problem: Option<NodesFileError>,
}

impl FileSource {
    /// Watches the file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: PathBuf, this_node: NodeName) -> Self {
        let watch = FolderWatch::of_file(&path);
        Self {
            path,
            this_node,
            watch,
            seen: None,
            settled_at: None,
            last_good: None,
            whole: false,
            differs: false,
            problem: None,
        }
    }

    fn refresh(&mut self, completed: bool) {
        let (file, metadata) = match self.open() {
            Ok(opened) => opened,
            Err(source) => {
                self.seen = None;
                self.problem = Some(NodesFileError::Read { path: self.path.clone(), source });
                return;
            }
        };
        let identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if self.seen == Some(identity) {
            return;
        }
        let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
        let rest = age.and_then(|age| SETTLE.checked_sub(age)).filter(|_| !completed);
        self.settled_at = rest.map(|rest| Instant::now() + rest);
        self.seen = rest.is_none().then_some(identity);
        self.problem = self.parse(&file).and_then(|objects| self.take(objects, rest.is_none())).err();
    }

    /// Looks at the file, and whether it says anything else than before: heartbeats alone do not count.
    fn has_news(&mut self) -> bool {
        let told = |source: &Self| (source.whole, source.problem.as_ref().map(ToString::to_string));
        let before = told(self);
        self.differs = false;
        self.look();
        before != told(self) || self.differs
    }

    fn look(&mut self) {
        // Before reading, so that a change while reading is heard of.
        self.watch.renew();
        self.settled_at = None;
        let completed = self.watch.take_completed();
        self.refresh(completed);
    }

    /// Resolves when the file may have changed.
    async fn touched(&mut self) {
        match self.settled_at {
            Some(instant) => tokio::select! {
                () = self.watch.changed() => {}
                () = tokio::time::sleep_until(instant.into()) => {}
            },
            None => self.watch.changed().await,
        }
    }

    fn open(&self) -> io::Result<(File, Metadata)> {
        let file = open_regular(&self.path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    }

    fn parse(&self, file: &File) -> Result<Vec<NodeObject>, NodesFileError> {
        let path = || self.path.clone();
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| NodesFileError::Read { path: path(), source })?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(NodesFileError::TooLong { path: path() });
        }
        parse_nodes(&bytes).map_err(|source| NodesFileError::Parse { path: path(), source })
    }

    /// Takes over what a file says; of one that is not `settled`, what is certain.
    fn take(&mut self, mut objects: Vec<NodeObject>, settled: bool) -> Result<(), NodesFileError> {
        let snapshot = |objects| snapshot_from_objects(SourceKind::File, Freshness::Synced, objects);
        // The node that is being written may be cut within an address.
        let uncertain = if settled { None } else { objects.pop() };
        let certain = snapshot(objects);
        let mut uncertain = snapshot(uncertain.into_iter().collect()).nodes;
        uncertain.retain(|name, _| !certain.nodes.contains_key(name));
        let listed = certain.nodes.len() + uncertain.len();
        if listed == 0 {
            return Err(NodesFileError::NoNodes { path: self.path.clone() });
        }
        if !certain.nodes.contains_key(&self.this_node) && !uncertain.contains_key(&self.this_node) {
            let (path, this_node) = (self.path.clone(), self.this_node.clone());
            return Err(NodesFileError::LacksThisNode { path, nodes: listed, this_node });
        }
        if settled {
            self.differs |= self.last_good.as_ref() != Some(&certain);
            self.last_good = Some(certain);
            self.whole = true;
            return Ok(());
        }
        let mut nodes = certain.nodes.clone();
        nodes.extend(uncertain);
        match &mut self.last_good {
            Some(last) if self.whole && last.nodes == nodes => return Ok(()),
            Some(last) if adds_only(last, &nodes) => {
                for (name, node) in certain.nodes {
                    self.differs |= !last.nodes.contains_key(&name);
                    last.nodes.entry(name).or_insert(node);
                }
            }
            None if certain.nodes.contains_key(&self.this_node) => {
                self.differs = true;
                self.last_good = Some(certain);
            }
            _ => {}
        }
        Err(NodesFileError::BeingWritten { path: self.path.clone() })
    }
}

impl Source for FileSource {
    fn read(&mut self) -> Reading<'_> {
        self.look();
        let problem = self.problem.as_ref().map(ToString::to_string);
        Reading { snapshot: self.last_good.as_ref(), whole: self.whole, problem }
    }

    async fn changed(&mut self) {
        loop {
            self.touched().await;
            // What belongs to one writing arrives within this; a pass that comes in between reads the file itself.
            tokio::time::sleep(COALESCE).await;
            if self.has_news() {
                return;
            }
        }
    }

    /// A file that was written just now is waited for, as long as that takes a few seconds.
    async fn settled(&mut self) {
        const ATTEMPTS: usize = 4;
        for _ in 0..ATTEMPTS {
            self.read();
            let Some(at) = self.settled_at else { break };
            tokio::time::sleep_until(at.into()).await;
        }
    }
}

/// Every node that was known is there, unchanged.
fn adds_only(last: &ClusterSnapshot, new: &BTreeMap<NodeName, ClusterNode>) -> bool {
    last.nodes.iter().all(|(name, node)| new.get(name) == Some(node))
}

#[cfg(test)]
mod tests;
