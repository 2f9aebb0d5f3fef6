//! What can go wrong, in words that name what was attempted, with which value, why, and what helps.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::address_range::AddressRange;
use crate::host_port::HostPort;
use crate::record::State;
use cni_spec::Attachment;

/// The file system refused.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempted} {}: {cause}{}", path.display(), remedy(cause))]
pub struct IoError {
    /// A verb, such as `open`.
    pub attempted: &'static str,
    /// What it was attempted on.
    pub path: PathBuf,
    /// The kernel's answer.
    pub cause: io::Error,
}

impl IoError {
    /// The kernel's error number (`errno(3)`), where it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }

    /// Whether another process held a lock for so long that it was given up; later, it may work.
    #[must_use]
    pub fn is_lock_held(&self) -> bool {
        self.cause.kind() == io::ErrorKind::TimedOut
    }
}

fn remedy(cause: &io::Error) -> &'static str {
    match Errno::from_io_error(cause) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            ": free space or inodes on that file system, or move `ipam.dataDir` to another"
        }
        Some(Errno::ROFS) => ": set `ipam.dataDir` to a folder that can be written",
        Some(Errno::ACCESS | Errno::PERM) => ": run as the user that owns that folder, usually root",
        Some(Errno::NOTDIR | Errno::LOOP) => {
            ": a part of that path is a file or a symbolic link where a folder is expected: remove it"
        }
        Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::XDEV) => {
            ": `ipam.dataDir` must lie on one local file system that knows hard links, such as tmpfs or ext4"
        }
        _ => "",
    }
}

/// Why nothing was reserved. Whatever had been reserved on the way was given back.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// No range of a set has an address left, by the claims themselves.
    #[error(
        "range set {set} ({}) has no free address: all {usable} are taken; delete pods, or give the set another range",
        list(ranges)
    )]
    Exhausted {
        /// Which set, counted from 0.
        set: usize,
        /// Its ranges.
        ranges: Vec<AddressRange>,
        /// How many addresses of theirs may go to pods.
        usable: u64,
    },
    /// A requested address belongs to another.
    #[error("requested address {address} is taken by {}: ask for another, or delete that one", by(owner.as_ref()))]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Whose it is; `None` where its record cannot be read.
        owner: Option<Attachment>,
    },
    /// A requested address that no range holds.
    #[error("requested address {address} lies in none of the ranges {}: ask for one that does", list(ranges))]
    OutsideRanges {
        /// The address.
        address: IpAddr,
        /// All ranges.
        ranges: Vec<AddressRange>,
    },
    /// A requested address that is the gateway or kept back.
    #[error("requested address {address} is the gateway or excluded from its range: ask for another")]
    Excluded {
        /// The address.
        address: IpAddr,
    },
    /// More addresses were requested from one set than the one it gives.
    #[error(
        "requested address {address} is the second one of range set {set}: each set gives one, remove it"
    )]
    SecondOfSet {
        /// The address.
        address: IpAddr,
        /// Which set, counted from 0.
        set: usize,
    },
    /// A host port belongs to another.
    #[error("host port {port} is taken by {}: use another port, or delete that one", by(owner.as_ref()))]
    HostPortTaken {
        /// The port mapping.
        port: HostPort,
        /// Whose it is; `None` where its record cannot be read.
        owner: Option<Attachment>,
    },
    /// One host port was asked for twice.
    #[error("host port {port} is asked for twice: remove one of the two mappings")]
    HostPortTwice {
        /// The later mapping.
        port: HostPort,
    },
    /// The attachment is there already.
    #[error(
        "attachment {attachment} exists already ({}): {}",
        standing(*state, *in_progress),
        if *in_progress { "wait for that call to end" } else { "delete it first" }
    )]
    AttachmentExists {
        /// Which.
        attachment: Attachment,
        /// How far it has come; `None` where its record cannot be read.
        state: Option<State>,
        /// Whether a process is adding or removing it right now.
        in_progress: bool,
    },
    /// The record could not be rendered.
    #[error("failed to render the record of attachment {attachment}: {cause}")]
    Render {
        /// Which.
        attachment: Attachment,
        /// Why.
        cause: serde_json::Error,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why an attachment was not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A process is adding or removing it right now.
    #[error(
        "attachment {attachment} is being added or removed by another process: try again when that has ended"
    )]
    InProgress {
        /// Which.
        attachment: Attachment,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

fn list(ranges: &[AddressRange]) -> String {
    let shown: Vec<String> = ranges.iter().take(8).map(ToString::to_string).collect();
    let more = if ranges.len() > 8 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn by(owner: Option<&Attachment>) -> String {
    owner.map_or_else(|| "an attachment whose record cannot be read".to_owned(), ToString::to_string)
}

fn standing(state: Option<State>, in_progress: bool) -> &'static str {
    match (state, in_progress) {
        (_, true) => "being added or removed by another process",
        (Some(State::Adding), false) => "its ADD died and its link is still there",
        (Some(State::Attached), false) => "attached",
        (None, false) => "its record cannot be read",
    }
}
