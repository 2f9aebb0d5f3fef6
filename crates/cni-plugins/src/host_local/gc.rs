//! GC: frees the addresses that no valid attachment holds. The reference has none, so that every lost DEL costs it an
//! address for good.

use attachment::Attachment;
use cni_spec::{CniError, GcRequest, HostLocalStoreConf};

use super::folder::{Change, Folder, Holder};
use super::folder_failed;
use crate::answer::Answer;

/// Keeps what valid attachments hold, and files that are none of this format, of which it tells.
pub(crate) fn gc(
    conf: &HostLocalStoreConf,
    request: &GcRequest,
    answer: &mut Answer,
) -> Result<(), CniError> {
    if request.disabled {
        return Ok(());
    }
    let io = |error| folder_failed(&error);
    let Some(mut folder) = Folder::find(&conf.data_dir, conf.base.name.as_str()).map_err(io)? else {
        return Ok(());
    };
    let mut freed = false;
    for held in folder.all_held().map_err(io)? {
        if !is_garbage(&held.holder, &request.valid) {
            if let Holder::Foreign(why) = held.holder {
                answer.warn(&format!(
                    "file {} of network `{}` is foreign: {why}",
                    held.address, conf.base.name
                ));
            }
            continue;
        }
        folder.remove(held.address).map_err(io)?;
        answer.inform(&format!("{} of {} is free again", held.address, held.holder));
        freed = true;
    }
    if freed {
        folder.note(Change::Swept);
    }
    Ok(())
}

fn is_garbage(holder: &Holder, valid: &[Attachment]) -> bool {
    match holder {
        Holder::Nobody => true,
        Holder::Container(..) => !valid.iter().any(|attachment| holder.is(attachment)),
        Holder::Foreign(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_valid_attachment_holds_or_is_foreign_is_kept() {
        let valid: Vec<Attachment> = vec!["a:eth0".parse().unwrap()];
        let held = |container: &str, ifname: Option<&str>| {
            Holder::Container(container.to_owned(), ifname.map(str::to_owned))
        };
        for kept in [held("a", Some("eth0")), held("a", None), Holder::Foreign("it is a folder")] {
            assert!(!is_garbage(&kept, &valid), "{kept:?}");
        }
        for garbage in [held("a", Some("eth1")), held("b", Some("eth0")), held("b", None), Holder::Nobody] {
            assert!(is_garbage(&garbage, &valid), "{garbage:?}");
        }
    }
}
