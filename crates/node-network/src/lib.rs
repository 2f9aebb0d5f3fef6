//! What one node's network must be: routes to the other nodes' pods, NAT, forwarding, and the CNI configuration.
//!
//! Pure. A [`ClusterSnapshot`] and the [`Settings`] become a [`DesiredNode`]; the kernel's state is an
//! [`ObservedNode`]; [`plan()`] says what changes one into the other, in an order that is safe to stop at any point.
//! Nothing here reads a file, a clock or the kernel, so that the agent, `hostgw plan`, the lab and the tests all
//! decide alike.

pub mod address_selection;
pub mod cluster;
pub mod condition;
pub mod desired;
pub mod family;
pub mod next_hop;
pub mod observed;
pub mod plan;
pub mod pod_cidr_allocation;
pub mod pod_mtu;
pub mod settings;
#[cfg(test)]
mod three_nodes;

pub use cluster::{ClusterNode, ClusterSnapshot, NodeName};
pub use condition::{Condition, PodReference, Severity};
pub use desired::{DesiredInputs, DesiredNode, desired};
pub use family::{Family, PerFamily};
pub use observed::ObservedNode;
pub use plan::{Change, Plan, plan};
pub use settings::Settings;

/// `rtm_protocol` of the routes to other nodes' pods and of the guard of this node's pod CIDR.
pub const NODE_ROUTE_PROTOCOL: u8 = 104;

/// `rtm_protocol` of a pod's own route; it belongs to the pod's attachment record and is never planned here.
pub const POD_ROUTE_PROTOCOL: u8 = 105;

/// The host ends of pods' veth pairs begin with this.
pub const POD_LINK_PREFIX: &str = "hgw";
