//! A small cluster on this machine: nodes are namespaces on a virtual LAN, each runs the real agent, pods are attached
//! by the real plugin, and packets prove that it works.
//!
//! ```text
//! launch() ─ spawns ─> inner() = process 1 of a process namespace of its own
//!    ^                    │ namespaces, root_folder    away from the machine
//!    │                    │ lan, place, node, cluster  who is there
//!    │                    │ runtime, conflist          pods, as a container runtime attaches them
//!    │                    │ probe, foreign, aftermath  what is proven
//!    └──── one Report ────┘ scenario                   in which order
//! ```
//!
//! Everything lives in the first process's namespaces, on memory: nothing is left on the machine, however it ends. Only
//! a kept lab has a file, its entry in the [`registry`]. The machine's own network is never touched.

mod aftermath;
mod binaries;
mod chaos;
mod cluster;
mod condition;
mod conflist;
mod dhcp;
mod error;
mod exec;
mod fault;
mod foreign;
mod inner;
mod lan;
mod launcher;
mod matrix;
mod namespaces;
mod node;
mod nodes_file;
pub mod options;
mod picture;
mod place;
mod planted;
mod policy_rule;
mod probe;
mod progress;
pub mod registry;
pub mod report;
mod root_folder;
mod router;
mod ruleset;
mod runtime;
mod scenario;
mod seeded;
mod topology;
mod uplink;

pub use chaos::foreign_program;
pub use error::LabError;
pub use exec::exec;
pub use inner::inner;
pub use launcher::launch;
pub use matrix::matrix;
pub use options::Options;
pub use picture::picture;

/// The hidden subcommand of `hostgw lab` that must call [`inner`].
pub const INNER_COMMAND: &str = "inner";
/// The hidden subcommand that must call [`foreign_program`], with the word behind it.
pub const FOREIGN_PROGRAM_COMMAND: &str = "foreign-program";
