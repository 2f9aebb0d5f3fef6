//! The record of each attached pod, and the reservation of its addresses and host ports on disk.
//!
//! A crate of its own because the plugin writes it on the hot path and the agent reads and repairs it, and neither
//! may depend on the other. It never speaks to the kernel's network: whether a link lives is asked of the caller.
//!
//! ```text
//! <dataDir>/<network>/
//!   lock                         held (flock) around every change
//!   records/<containerID>:<ifname>   one JSON document for each attachment
//!   claims/10.244.1.5            hard links to a record: one for each address …
//!   claims/tcp:0.0.0.0:8080      … and for each host port
//!   ranges/<start>-<end>         which indexes are taken: a hint, never the truth
//!   pending                      the one record that is being reserved or released
//! ```
//!
//! # Why nothing is handed out twice
//! A claim is made by `link(2)`, which fails when the name exists: that alone decides. The hint only says where to
//! look first.
//!
//! # Why nothing leaks
//! A reservation writes `pending`, links the claims to it, and renames it into `records/`. A release renames the
//! record to `pending`, removes the claims, and removes `pending`. So whatever instant a process is killed at, either
//! the record stands whole in `records/`, or it is called `pending` and lists its own claims, and whoever takes the
//! lock next to change anything clears it away in a handful of system calls.
//!
//! # Who may remove a record
//! The process that runs ADD holds a lock on its record until it ends, the one that runs DEL or collects garbage
//! takes the same lock. An unlocked record in state `adding` means that its ADD died. Record locks are tested and
//! taken only under the store's lock, so that a test is never mistaken for an owner.
//!
//! # Power loss
//! Nothing is synced to disk: a pod does not survive a power loss, so neither need its record. What it tears is named
//! by [`Store::records`] and cleared by [`Store::reclaim`].

mod address_range;
pub mod allocator;
mod claim;
mod error;
mod folder;
mod hint;
mod host_port;
mod locked;
mod reclaim;
mod record;
mod release;
mod request;
mod reserve;
mod search;
mod store;
pub mod store_lock;

pub use address_range::{AddressRange, AddressRangeError};
pub use cni_spec::{Attachment, MacAddress, NetworkName, TransportProtocol as Protocol};

pub use claim::{Claim, ClaimError};
pub use error::{IoError, ReleaseError, ReserveError};
pub use host_port::HostPort;
pub use reclaim::{ReclaimReport, Reclaimed};
pub use record::{
    Allocation, Bandwidth, Entry, Mode, Netns, PodName, PodRoute, Record, RecordFault, RenderedResult, State,
    Wiring,
};
pub use release::Detachment;
pub use request::{Range, Request};
pub use reserve::Reservation;
pub use store::{BadRecord, BadRecordCause, Store, networks};
