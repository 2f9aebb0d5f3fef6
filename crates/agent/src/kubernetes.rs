//! The Kubernetes API, as far as an agent needs it: few requests over HTTP/1.1, each with the credentials as they are on
//! disk at that moment. It knows how to ask; what the answers mean for a node's network it does not.
//! Why this is no general client: `docs/decisions/0007-own-api-client.md`.

pub(crate) mod access;
pub(crate) mod api;
pub(crate) mod backoff;
mod certificates;
mod connection;
mod kubeconfig;
pub(crate) mod node_watch;
pub(crate) mod own_node;
mod resolver;
mod tls;
mod watch_event;

pub use access::{AccessError, Location};
pub use api::ApiError;

/// Reads a line of a watch of Nodes, as the source does.
pub fn check_watch_line(line: &[u8]) -> Result<(), serde_json::Error> {
    watch_event::parse(line).map(drop)
}

/// Reads a kubeconfig that lies at `path`, as the source does, and the files that it names.
pub fn check_kubeconfig(path: &std::path::Path, bytes: &[u8]) -> Result<(), AccessError> {
    kubeconfig::parse(path, bytes, None).map(drop)
}
