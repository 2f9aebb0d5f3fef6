//! Typed access to the parts of the Linux kernel that a pod network is made of: links, addresses, routes,
//! neighbours, traffic control, nftables, conntrack, network namespaces and sysctls.
//!
//! It holds no policy: every function does what it is told, and says what the kernel answered. Everything is
//! synchronous; nothing here execs a program or allocates more than it must, because a plugin that lives for two
//! milliseconds stands on it.

pub mod address;
pub mod address_claim;
pub mod announce;
pub mod bridge;
pub mod conntrack;
mod error;
pub mod events;
pub mod link;
pub mod neighbour;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod packet;
pub mod ping;
pub mod route;
pub mod signals;
pub mod sysctl;
pub mod traffic_control;
pub mod wireguard;
pub mod xtables_legacy;

pub use error::KernelError;
