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
