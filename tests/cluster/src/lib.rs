//! The cluster tier: a real control plane and real nodes in namespaces, hostgw installed from its own chart and image,
//! and what users rely on, proven with packets.
//!
//! ```text
//! launch ── unshare ──> inside = process 1 of a process namespace, on a LAN of its own
//!                        │ pki, control_plane, node     who is there
//!                        │ api, kubectl, helm           how it is spoken to
//!                        │ audit                        what others asked of it
//!                        │ scenarios                    what is proven, in which order
//!                        │ scale                        what is measured before thousands of Nodes
//!                        └ report                       what is said of it
//! pod: the program in the test's pods: it answers, asks, and keeps a stream of packets going
//! ```
//!
//! Nothing of the machine's own network is touched. Mounts and processes end with the launcher, however it ends.

pub mod api;
pub mod audit;
pub mod cgroups;
pub mod control_plane;
pub mod error;
pub mod inside;
pub mod install;
pub mod lan;
pub mod launch;
pub mod node;
pub mod node_init;
pub mod options;
pub mod pki;
pub mod pod;
pub mod process;
pub mod report;
pub mod scale;
pub mod scenarios;
pub mod wait;
pub mod workload;
