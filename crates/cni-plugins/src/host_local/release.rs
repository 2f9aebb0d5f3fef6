//! DEL: frees every address of one attachment, whatever the ranges are by now.

use std::net::IpAddr;

use attachment::Attachment;
use cni_spec::{CniError, HostLocalStoreConf};

use super::folder::{Change, Folder};
use super::folder_failed;

/// Frees what the attachment holds, and gives it. `known` are addresses that it is known to hold, beside those of
/// `prevResult`: they spare the look at every file.
pub(crate) fn release(
    conf: &HostLocalStoreConf,
    attachment: &Attachment,
    known: &[IpAddr],
) -> Result<Vec<IpAddr>, CniError> {
    let io = |error| folder_failed(&error);
    let Some(mut folder) = Folder::find(&conf.data_dir, conf.base.name.as_str()).map_err(io)? else {
        return Ok(Vec::new());
    };
    // A result that cannot be read only costs the shorter way.
    let told = conf.base.prev_result().ok().flatten().unwrap_or_default();
    let told = told.ips.iter().map(|ip| ip.address.addr());
    let mut freed = Vec::new();
    for address in known.iter().copied().chain(told) {
        if !freed.contains(&address)
            && folder.holder(address).map_err(io)?.is_some_and(|it| it.is(attachment))
        {
            folder.remove(address).map_err(io)?;
            freed.push(address);
        }
    }
    if freed.is_empty() && folder.may_hold(attachment) {
        for held in folder.all_held().map_err(io)? {
            if held.holder.is(attachment) {
                folder.remove(held.address).map_err(io)?;
                freed.push(held.address);
            }
        }
    }
    if !freed.is_empty() {
        folder.note(Change::Released(attachment));
    }
    Ok(freed)
}
