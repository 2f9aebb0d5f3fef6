//! DEL: removes what an attachment has, in whatever state it is; what is gone is well.

use std::path::PathBuf;

use attachment::Store;
use cni_spec::{AttachmentCall, CniError, StoreConf};
use kernel::netlink::{Protocol, Socket};

use super::survey::stand_in;
use crate::dhcp::release_of;
use crate::failure::{kernel_refused, release_failed, store_failed};
use crate::teardown::{Leftover, take_in_hand, tear_down};

/// Detaches a pod. The record tells what it has; without one the link is found by its name.
pub(crate) fn del(call: &AttachmentCall<Option<PathBuf>>, conf: &StoreConf) -> Result<(), CniError> {
    let (network, attachment) = (&conf.base.name, &call.attachment);
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let store = Store::find(&conf.data_dir, network).map_err(store_failed)?;
    let detachment = match &store {
        Some(store) => match take_in_hand(store, attachment).map_err(|error| release_failed(&error))? {
            Some(detachment) => Some(detachment),
            None => match stand_in(network, attachment) {
                Some(lost) => take_in_hand(store, &lost).map_err(|error| release_failed(&error))?,
                None => None,
            },
        },
        None => None,
    };
    let entry = detachment.as_ref().and_then(|detachment| detachment.entry());
    tear_down(Leftover::of(network, attachment, entry), &mut host)?;
    // Last, so that nobody gets the addresses while something still carries them.
    release_of(&conf.lease_dir, network, attachment)?;
    detachment.map_or(Ok(()), |detachment| detachment.release().map_err(store_failed))
}
