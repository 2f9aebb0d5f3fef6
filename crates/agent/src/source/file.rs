//! A file of Node objects, as `kubectl get nodes -o yaml` prints them, watched.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use node_network::cluster::{
    ClusterNode, DocumentError, Freshness, NodeDocument, NodeObject, SourceKind, snapshot_from_objects,
};
use node_network::{ClusterSnapshot, NodeName};

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

/// Why a text holds no nodes.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is no text.
    #[error("not UTF-8")]
    NotText,
    /// It is neither YAML nor JSON of the expected shape.
    #[error("{0}")]
    Syntax(String),
    /// A document holds something else.
    #[error("document {number}: {source}")]
    Document {
        /// Counted from 1.
        number: usize,
        /// Why.
        source: DocumentError,
    },
}

/// The Node objects in a text: JSON, or YAML of one or several documents.
pub fn parse_nodes(bytes: &[u8]) -> Result<Vec<NodeObject>, ParseError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ParseError::NotText)?;
    // JSON is YAML too, but several times faster as what it is; and what begins like it may still be YAML.
    let json = text.trim_start().starts_with('{').then(|| documents_of_json(text));
    let documents = match json {
        Some(Ok(documents)) => documents,
        Some(Err(error)) => documents_of_yaml(text).map_err(|_| ParseError::Syntax(error.to_string()))?,
        None => documents_of_yaml(text).map_err(|error| ParseError::Syntax(error.to_string()))?,
    };
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let of_document =
            document.into_objects().map_err(|source| ParseError::Document { number: index + 1, source })?;
        objects.extend(of_document);
    }
    Ok(objects)
}

/// A file that is being written may look whole, cut between two nodes or within an address. It counts once its writer
/// has closed or renamed it, or, where that cannot be heard, once it has been left alone for this long. Until then
/// nothing is taken of it but nodes that were not known before and have another behind them.
const SETTLE: Duration = Duration::from_secs(2);
/// A file is first made and then written; what belongs together arrives within this.
const COALESCE: Duration = Duration::from_millis(3);

fn documents_of_json(text: &str) -> Result<Vec<NodeDocument>, serde_json::Error> {
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

fn documents_of_yaml(text: &str) -> Result<Vec<NodeDocument>, serde_saphyr::Error> {
    // Sized for the longest file; each limit bounds memory to a small multiple of it.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 16 << 20, max_nodes: 8 << 20, max_documents: 20_000 },
    };
    serde_saphyr::from_multiple_with_options(text, options)
}

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
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const TWO: &str = "apiVersion: v1\nkind: List\nitems:\n- kind: Node\n  metadata:\n    name: node1\n  spec:\n    \
        podCIDRs: [\"10.244.1.0/24\"]\n- kind: Node\n  metadata:\n    name: node2\n";

    fn source(folder: &Path) -> FileSource {
        FileSource::new(folder.join("nodes.yaml"), NodeName::new("node1").unwrap())
    }

    fn names(reading: &Reading<'_>) -> Vec<String> {
        reading
            .snapshot
            .map(|snapshot| snapshot.nodes.keys().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    #[test]
    fn yaml_lists_json_lists_and_several_documents_are_the_same() {
        let json = r#"{"kind":"List","items":[{"metadata":{"name":"node1"}},{"metadata":{"name":"node2"}}]}"#;
        let documents = "kind: Node\nmetadata: {name: node1}\n---\nkind: Node\nmetadata: {name: node2}\n";
        let flow = "{kind: Node, metadata: {name: node1}}\n---\n{kind: Node, metadata: {name: node2}}\n";
        let two_json = "{\"kind\":\"Node\",\"metadata\":{\"name\":\"a\"}}\n{\"kind\":\"Node\"}";
        for text in [TWO, json, documents, flow, two_json] {
            assert_eq!(parse_nodes(text.as_bytes()).unwrap().len(), 2, "{text}");
        }
    }

    /// Writes as somebody did who has left the file alone since.
    fn write(path: &Path, bytes: impl AsRef<[u8]>) {
        fs::write(path, bytes).unwrap();
        settle(path);
    }

    fn settle(path: &Path) {
        let earlier = std::time::SystemTime::now() - 2 * SETTLE;
        File::options().write(true).open(path).unwrap().set_modified(earlier).unwrap();
    }

    #[test]
    fn whatever_happens_to_the_file_the_last_good_state_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.yaml");
        let mut source = source(folder.path());
        assert!(source.read().problem.unwrap().contains("kubectl get nodes"));
        assert!(source.read().snapshot.is_none());
        write(&path, TWO);
        let reading = source.read();
        assert_eq!((names(&reading), reading.problem), (vec!["node1".to_owned(), "node2".to_owned()], None));
        let cut = &TWO.as_bytes()[..TWO.len() - "- kind: Node\n  metadata:\n    name: node2\n".len()];
        let broken: [(&[u8], &str); 7] = [
            (b"", "lists no node"),
            (cut, "waiting for the rest"),
            (b"kind: List\nitems:\n- metadata: {name: \"node", "half-written"),
            (b"kind: List\nitems: []\n", "lists no node"),
            (b"kind: Node\nmetadata: {name: node2}\n", "not this one, `node1`"),
            (b"kind: Pod\n", "Pod"),
            (b"\xff\xfe", "UTF-8"),
        ];
        for (bytes, expected) in broken {
            fs::write(&path, bytes).unwrap();
            let reading = source.read();
            assert_eq!(names(&reading).len(), 2);
            let problem = reading.problem.unwrap_or_default();
            assert!(problem.contains(expected), "{problem}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(names(&source.read()).len(), 2);
        fs::create_dir(&path).unwrap();
        assert!(source.read().problem.unwrap().contains("no regular file"));
    }

    #[test]
    fn a_shorter_file_counts_once_it_has_been_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.yaml");
        write(&path, TWO);
        let mut source = source(folder.path());
        assert_eq!(names(&source.read()).len(), 2);
        fs::write(&path, "kind: Node\nmetadata: {name: node1}\n").unwrap();
        assert_eq!(names(&source.read()).len(), 2);
        assert!(source.settled_at.is_some());
        settle(&path);
        let reading = source.read();
        assert_eq!((names(&reading).len(), reading.problem), (1, None));
        assert_eq!(source.settled_at, None);
    }

    fn node(name: &str, address: &str) -> String {
        format!(
            "- metadata: {{name: {name}}}\n  status:\n    addresses:\n    - type: InternalIP\n      address: {address}\n"
        )
    }

    #[test]
    fn of_a_file_written_just_now_the_first_read_takes_all_nodes_but_the_last_and_does_not_call_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.yaml");
        let text =
            format!("kind: List\nitems:\n{}{}", node("node1", "192.0.2.11"), node("node2", "192.0.2.1"));
        fs::write(&path, &text).unwrap();
        let mut source = source(folder.path());
        let reading = source.read();
        assert_eq!((names(&reading), reading.whole), (vec!["node1".to_owned()], false));
        assert!(reading.problem.unwrap().contains("waiting for the rest"));
        settle(&path);
        let reading = source.read();
        assert_eq!((names(&reading).len(), reading.whole, reading.problem), (2, true, None));
    }

    #[test]
    fn a_known_node_whose_address_is_cut_is_not_believed_and_new_nodes_before_the_last_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.yaml");
        let (one, two) = (node("node1", "192.0.2.11"), node("node2", "192.0.2.12"));
        let (three, four) = (node("node3", "192.0.2.13"), node("node4", "192.0.2.14"));
        let mut source = source(folder.path());
        write(&path, format!("kind: List\nitems:\n{one}{two}"));
        let good = source.read().snapshot.cloned();
        fs::write(&path, format!("kind: List\nitems:\n{one}{}", two.replace(".12", ".1"))).unwrap();
        assert_eq!(source.read().snapshot.cloned(), good);
        fs::write(&path, format!("kind: List\nitems:\n{one}{two}{three}{four}")).unwrap();
        assert_eq!(names(&source.read()), ["node1", "node2", "node3"]);
        settle(&path);
        assert_eq!(names(&source.read()).len(), 4);
    }

    #[test]
    fn a_file_that_is_the_same_as_before_is_no_problem_though_it_was_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.yaml");
        write(&path, TWO);
        let mut source = source(folder.path());
        assert_eq!(source.read().problem, None);
        fs::write(&path, TWO).unwrap();
        assert_eq!(source.read().problem, None);
    }

    #[test]
    fn a_heartbeat_is_no_news_and_another_address_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.yaml");
        let beating = |beat: u32, address: &str| {
            let node = node("node1", address);
            write(
                &path,
                format!("kind: List\nitems:\n{node}    conditions: [{{lastHeartbeatTime: \"{beat}\"}}]\n"),
            );
        };
        let mut source = source(folder.path());
        beating(1, "192.0.2.11");
        assert!(source.has_news());
        beating(22, "192.0.2.11");
        assert!(!source.has_news());
        beating(333, "192.0.2.12");
        assert!(source.has_news());
    }

    #[test]
    fn a_bad_file_that_was_left_alone_is_parsed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.yaml");
        write(&path, "kind: Pod\n");
        let mut source = source(folder.path());
        let problem = source.read().problem.unwrap();
        assert!(source.seen.is_some());
        assert_eq!(source.read().problem.unwrap(), problem);
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("nodes.yaml"), mode).unwrap();
        assert!(source(folder.path()).read().problem.unwrap().contains("no regular file"));
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("nodes.yaml")).unwrap();
        file.set_len(MAX_BYTES + 1).unwrap();
        assert!(source(folder.path()).read().problem.unwrap().contains("longer than"));
    }

    #[test]
    fn ten_levels_of_aliases_do_not_eat_the_memory() {
        let mut bomb = String::from("kind: List\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let last = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![last; 10].join(","));
        }
        assert!(parse_nodes(bomb.as_bytes()).is_err());
    }
}
