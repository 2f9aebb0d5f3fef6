//! Addresses from the LAN's DHCP server: for pods of type `hostgw`, and as the IPAM plugin `dhcp`, which takes the
//! reference's configurations and needs no daemon. A library too: the agent prolongs the leases that are kept here.

mod acquire;
mod give_back;
mod identity;
mod lease;
mod line;
mod plugin;
mod store;
mod terms;

pub use give_back::give_back;
pub use lease::{Lease, PodLink};
pub use line::{Agreement, Line, LineError, Peer, Station, seed};
pub use store::{LeaseStore, StoreError, StoredLease};

pub(crate) use acquire::{Applicant, PROBE_PATIENCE, Place, acquire};
pub(crate) use plugin::{add, check, del, gc, release_of, serve};
pub(crate) use terms::{dns, node_gateway, range_sets, routes};
