//! Netlink itself: messages written in batches, replies read with every length checked, sockets.
//!
//! Our own because the hot path is made of it (docs/decisions/0003-own-netlink.md); the layouts are those of
//! `linux/netlink.h` and RFC 3549.

mod attribute;
mod batch;
mod family;
mod inbox;
mod reply;
mod socket;

pub use attribute::{Attribute, Attributes};
pub use batch::{Batch, Message};
pub(crate) use family::{AF_BRIDGE, AF_INET, AF_INET6, family_of};
pub(crate) use inbox::Inbox;
pub use reply::{Replies, Reply};
pub use socket::{Failure, Protocol, Socket};
pub(crate) use socket::{open, set_option};

/// `NLM_F_REPLACE`: put in the place of what is there.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail where something is there already.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`: make it where nothing is there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: put behind what is there.
pub const APPEND: u16 = 0x800;
/// `NLM_F_DUMP` = `NLM_F_ROOT | NLM_F_MATCH`: give all.
pub const DUMP: u16 = 0x300;
/// `NLM_F_ECHO`: send the notification of this change back to its author.
pub const ECHO: u16 = 0x8;

/// Messages and attributes start at multiples of this (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
const ALIGN: usize = 4;
/// `struct nlmsghdr`: length, type, flags, sequence, port id.
const HEADER: usize = 16;

const fn aligned(length: usize) -> usize {
    (length + ALIGN - 1) & !(ALIGN - 1)
}
