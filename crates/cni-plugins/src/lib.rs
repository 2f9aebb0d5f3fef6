//! hostgw's CNI plugins, as a library: the program is `main.rs`, and the agent uses from here what it must be able to
//! restore for pods that live on (their routes and host ports).
//!
//! Never depends on the agent, an async runtime or a Kubernetes client: a plugin lives for two milliseconds.

mod answer;
mod bandwidth;
mod bandwidth_plugin;
mod bridge;
mod call;
mod chained;
mod closing;
pub mod dhcp;
mod failure;
mod firewall;
mod fnv;
mod host_local;
pub mod host_ports;
mod hostgw;
mod inspection;
mod interface;
mod ipam;
pub mod lan_guard;
mod living;
mod loopback;
mod masquerade;
mod namespaces;
mod netfilter;
mod owned_table;
mod owner_tag;
mod portmap;
mod ptp;
mod reference_rules;
mod static_ipam;
mod teardown;
mod tuning;
pub mod wiring;
mod xtables;

pub use call::{DROP_IN_NAMES, run};
pub use owned_table::DROP_IN_TABLES;
