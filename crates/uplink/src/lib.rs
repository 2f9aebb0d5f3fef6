//! Moves a node's uplink (a NIC, bond or VLAN link) into a bridge with all that it holds, and back, so that no established
//! session breaks and no failure leaves the node unreachable.
//!
//! `object`, `holdings`, `plan`, `check` and `journal` are functions of values; the other modules do what those decide.

mod carry_out;
pub mod check;
mod commands;
pub mod configured_by;
mod dhcp_sockets;
mod error;
pub mod holdings;
pub mod journal;
mod moves;
pub mod object;
mod observe;
pub mod persist;
pub mod plan;
pub mod probe;
mod store;
mod watchdog;

pub use commands::{
    Folders, LinkStatus, Prepared, Request, State, confirm, prepare_join, prepare_leave, status,
};
pub use error::UplinkError;
pub use store::Store;
