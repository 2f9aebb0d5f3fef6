//! The rows, one file a subject. Each measures its sides in turn, so that noise hits all alike.

pub(crate) mod agent;
pub(crate) mod at_once;
pub(crate) mod attach;
pub(crate) mod crowded;
pub(crate) mod drop_in;
pub(crate) mod memory;
pub(crate) mod routes;
mod runner;
