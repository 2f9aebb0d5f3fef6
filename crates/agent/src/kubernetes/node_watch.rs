//! Follows the cluster's Nodes for as long as the agent runs: a list, then a watch from there, and the list again where
//! the API server has forgotten that place. It tells what it hears, and never that something is gone unless it is told.

use std::io;
use std::time::Duration;

use node_network::NodeName;
use node_network::cluster::{NodeObject, ReadNode, read_object};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::access::Location;
use super::api::{Api, ApiError, Lines};
use super::backoff::{Backoff, jitter};
use super::own_node::OwnNode;
use super::watch_event::{self, WatchEvent};

const NODES: &str = "/api/v1/nodes";
/// Nodes of one page: about three megabytes.
const PAGE: usize = 200;
/// The server ends a watch after this, or up to as much again: nodes do not come back all at once.
const WATCH: Duration = Duration::from_secs(300);
/// The server may be late to end it by this much.
const LATE: Duration = Duration::from_secs(30);
/// The initial events of a streaming list come without a pause of this length.
const INITIAL_PAUSE: Duration = Duration::from_secs(30);
/// A watch that ends sooner is a failure.
const SHORT: Duration = Duration::from_secs(5);

/// What was heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Every node there is, as of this version.
    All { nodes: Vec<ReadNode>, version: String },
    /// A node came or changed.
    Node(Box<ReadNode>),
    /// A node was deleted.
    Gone(String),
    /// The watch stands, and nothing was missed up to this version.
    UpTo(String),
    /// The API server cannot be heard, and why.
    Silence(String),
}

/// How one attempt ended.
enum End {
    /// As it should: the next watch begins where this one ended.
    Ordinary,
    /// The version is no longer known.
    Expired(String),
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("watch of nodes: {0}")]
    Stream(#[from] io::Error),
    #[error("watch of nodes: an event cannot be read: {0}")]
    Event(#[from] serde_json::Error),
    #[error("watch of nodes: {code} {message}")]
    Told { code: u16, message: String },
    /// The agent no longer listens.
    #[error("stopped")]
    Unheard,
}

impl From<mpsc::error::SendError<Heard>> for WatchError {
    fn from(_: mpsc::error::SendError<Heard>) -> Self {
        Self::Unheard
    }
}

/// Follows the nodes until nobody listens any more.
pub(crate) async fn follow(
    location: Location,
    this_node: Option<NodeName>,
    heard: mpsc::Sender<Heard>,
    own: watch::Sender<Option<OwnNode>>,
) {
    let api = Api::new(location);
    let mut watcher = Watcher { api, this_node, heard, own, version: None, streaming: true, was_cut: false };
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let ended = watcher.attempt().await;
        if began.elapsed() > SHORT {
            backoff.reset();
        }
        let problem = match ended {
            Ok(End::Ordinary) if began.elapsed() > SHORT => continue,
            Ok(End::Ordinary) => None,
            Ok(End::Expired(message)) => {
                tracing::info!(message, "the API server has forgotten the watch's version; listing anew");
                watcher.version = None;
                None
            }
            Err(WatchError::Unheard) => return,
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem
            && watcher.heard.send(Heard::Silence(problem)).await.is_err()
        {
            return;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

struct Watcher {
    api: Api,
    this_node: Option<NodeName>,
    heard: mpsc::Sender<Heard>,
    own: watch::Sender<Option<OwnNode>>,
    /// The last version that was heard of; none before the list.
    version: Option<String>,
    /// The server streams lists, as far as is known.
    streaming: bool,
    /// It cut the last stream before the list was whole, as API servers do with a watcher that reads too slowly while
    /// nodes change. Pages are waited for, so that the next list comes by them.
    was_cut: bool,
}

impl Watcher {
    async fn attempt(&mut self) -> Result<End, WatchError> {
        let length = WATCH + jitter(WATCH);
        let common =
            format!("{NODES}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}", length.as_secs());
        if self.version.is_none() && self.streaming && !std::mem::take(&mut self.was_cut) {
            let path = format!("{common}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
            match self.api.stream(&path).await {
                Ok(mut lines) => match self.initial_events(&mut lines).await {
                    Ok(Some(version)) => {
                        self.heard.send(Heard::UpTo(version)).await?;
                        return self.events(&mut lines, length).await;
                    }
                    Ok(None) => self.streaming = false,
                    Err(error) => {
                        self.was_cut = matches!(error, WatchError::Stream(_));
                        return Err(error);
                    }
                },
                // An API server that knows no streaming lists refuses one of the two parameters.
                Err(error) if matches!(error.code(), Some(400 | 405 | 422)) => {
                    tracing::debug!(%error, "the API server streams no lists; asking for pages");
                    self.streaming = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let version = match self.version.clone() {
            Some(version) => version,
            None => self.list().await?,
        };
        let mut lines = match self.api.stream(&format!("{common}&resourceVersion={version}")).await {
            Ok(lines) => lines,
            Err(error) if error.code() == Some(410) => return Ok(End::Expired(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        self.heard.send(Heard::UpTo(version)).await?;
        self.events(&mut lines, length).await
    }

    /// Every node by the beginning of a watch, and the version up to which that is; `None` where the server does not say
    /// where the beginning ends.
    async fn initial_events(&mut self, lines: &mut Lines) -> Result<Option<String>, WatchError> {
        let mut nodes = Vec::new();
        let mut this = None;
        let version = loop {
            let line = match timeout_at(Instant::now() + INITIAL_PAUSE, lines.next()).await {
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Ok(None),
            };
            match watch_event::parse(line)? {
                WatchEvent::Applied(object, raw) => {
                    if self.is_this(&object) {
                        this = Some(raw);
                    }
                    nodes.push(read_object(*object));
                }
                WatchEvent::Deleted(_) => {}
                WatchEvent::Bookmark { version, initial_events_end: true } => break version,
                WatchEvent::Bookmark { .. } => {}
                WatchEvent::Error { code, message } => return Err(told(code, &message)),
            }
        };
        self.all(nodes, this, version.clone()).await?;
        Ok(Some(version))
    }

    async fn all(
        &mut self,
        nodes: Vec<ReadNode>,
        this: Option<Box<RawValue>>,
        version: String,
    ) -> Result<(), WatchError> {
        tracing::debug!(nodes = nodes.len(), version, "listed the cluster's nodes");
        self.own.send_replace(this.and_then(|this| OwnNode::parse(&this)));
        self.version = Some(version.clone());
        Ok(self.heard.send(Heard::All { nodes, version }).await?)
    }

    /// Every node by pages.
    async fn list(&mut self) -> Result<String, WatchError> {
        let (mut nodes, mut this, mut from) = (Vec::new(), None, String::new());
        loop {
            let page = format!("{NODES}?limit={PAGE}{from}");
            let NodePage { metadata, items } = self.api.get(&page).await?;
            for raw in items.unwrap_or_default() {
                let object: NodeObject = serde_json::from_str(raw.get())?;
                if self.is_this(&object) {
                    this = Some(raw);
                }
                nodes.push(read_object(object));
            }
            match metadata.next.filter(|next| !next.is_empty()) {
                Some(next) => from = format!("&continue={}", escaped(&next)),
                None => {
                    let version = metadata.resource_version;
                    self.all(nodes, this, version.clone()).await?;
                    return Ok(version);
                }
            }
        }
    }

    /// Tells each event until the server ends the watch.
    async fn events(&mut self, lines: &mut Lines, length: Duration) -> Result<End, WatchError> {
        let deadline = Instant::now() + length + LATE;
        loop {
            let line = match timeout_at(deadline, lines.next()).await {
                Ok(line) => line?,
                // Overdue: whoever should end it may be gone.
                Err(_) => return Ok(End::Ordinary),
            };
            let Some(line) = line else { return Ok(End::Ordinary) };
            match watch_event::parse(line)? {
                WatchEvent::Applied(object, raw) => {
                    self.at(&object);
                    if self.is_this(&object) {
                        self.tell_own(&raw);
                    }
                    self.heard.send(Heard::Node(Box::new(read_object(*object)))).await?;
                }
                WatchEvent::Deleted(object) => {
                    self.at(&object);
                    self.heard.send(Heard::Gone(object.name().unwrap_or_default().to_owned())).await?;
                }
                WatchEvent::Bookmark { version, .. } => {
                    self.version = Some(version.clone());
                    self.heard.send(Heard::UpTo(version)).await?;
                }
                WatchEvent::Error { code: 410, message } => return Ok(End::Expired(message)),
                WatchEvent::Error { code, message } => return Err(told(code, &message)),
            }
        }
    }

    fn is_this(&self, object: &NodeObject) -> bool {
        self.this_node.as_ref().is_some_and(|this| object.name() == Some(this.as_str()))
    }

    fn tell_own(&self, raw: &RawValue) {
        let read = OwnNode::parse(raw);
        self.own.send_if_modified(|own| {
            let differs = *own != read;
            *own = read;
            differs
        });
    }

    fn at(&mut self, object: &NodeObject) {
        if let Some(version) = object.resource_version() {
            self.version = Some(version.to_owned());
        }
    }
}

fn told(code: u16, message: &str) -> WatchError {
    let message = message.chars().take(400).filter(|c| !c.is_control()).collect();
    WatchError::Told { code, message }
}

#[derive(Deserialize)]
struct NodePage {
    metadata: PageMetadata,
    /// Null where there is none.
    #[serde(default)]
    items: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// A value as a query can carry it.
pub(super) fn escaped(value: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
