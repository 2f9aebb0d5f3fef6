//! What may be changed on a link that is there, beyond its life and its master.

use super::{RTM_SETLINK, header};
use crate::netlink::Batch;

pub(super) const IFLA_TXQLEN: u16 = 13;
pub(super) const IFLA_PROMISCUITY: u16 = 30;
/// `IFF_ALLMULTI`.
pub const ALL_MULTICAST: u32 = 0x200;

/// Sets or clears flags (`IFF_…`), and leaves all others.
pub fn set_flags(batch: &mut Batch, index: u32, flags: u32, on: bool) {
    let value = if on { flags } else { 0 };
    batch.message("set a link's flags", RTM_SETLINK, 0, &header(0, index, value, flags));
}

/// How many packets may wait to be sent.
pub fn set_tx_queue_len(batch: &mut Batch, index: u32, packets: u32) {
    batch
        .message("set a link's transmit queue length", RTM_SETLINK, 0, &header(0, index, 0, 0))
        .u32(IFLA_TXQLEN, packets);
}
