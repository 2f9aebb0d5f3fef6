//! CHECK: whether the addresses of an attachment are still its own.

use attachment::Attachment;
use cni_spec::{CniError, ErrorCode, HostLocalConf};

use super::folder::Folder;
use super::folder_failed;

/// Verifies that each address of `prevResult` that is from these ranges is held by the attachment; without any there,
/// that it holds one at all.
pub(crate) fn check(conf: &HostLocalConf, attachment: &Attachment) -> Result<(), CniError> {
    let io = |error| folder_failed(&error);
    let (base, unknown) = (&conf.store.base, ErrorCode::UnknownContainer);
    let Some(folder) = Folder::find(&conf.store.data_dir, base.name.as_str()).map_err(io)? else {
        return Err(CniError::new(
            unknown,
            format!("network `{}` has no addresses below {}", base.name, conf.store.data_dir.display()),
        ));
    };
    let expected = base.prev_result()?.unwrap_or_default();
    let ours = expected.ips.iter().map(|ip| ip.address.addr());
    let mut ours =
        ours.filter(|address| conf.range_sets.ranges().any(|range| range.contains(*address))).peekable();
    if ours.peek().is_none() {
        let mut held = folder.all_held().map_err(io)?.into_iter();
        return match held.any(|held| held.holder.is(attachment)) {
            true => Ok(()),
            false => Err(CniError::new(
                unknown,
                format!("attachment {attachment} of network `{}` holds no address", base.name),
            )),
        };
    }
    let mut differences = Vec::new();
    for address in ours {
        match folder.holder(address).map_err(io)? {
            Some(holder) if holder.is(attachment) => {}
            Some(holder) => differences.push(format!("{address} is held by {holder}")),
            None => differences.push(format!("{address} is not reserved")),
        }
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(CniError::new(
            ErrorCode::CheckFailed,
            format!("the addresses of attachment {attachment} are not its own: {}", differences.join("; ")),
        )
        .with_details("delete the pod, so that its controller makes a new one")),
    }
}
