//! GC: frees the addresses that no valid attachment holds. The reference has none, so that every lost DEL costs it an
//! address for good.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

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

/// An address that GC is about to free, and whose it was.
#[derive(Clone, Debug)]
pub(crate) struct Unlisted {
    pub(crate) address: IpAddr,
    pub(crate) container: String,
    /// None where the file does not say the interface, or says nonsense.
    pub(crate) attachment: Option<Attachment>,
}

/// What containers hold that no valid attachment does. An address that another network of the same folder has handed out,
/// too, is left out: what carries it may be either's.
pub(crate) fn unlisted(conf: &HostLocalStoreConf, request: &GcRequest) -> Result<Vec<Unlisted>, CniError> {
    let io = |error| folder_failed(&error);
    let network = conf.base.name.as_str();
    let Some(folder) = Folder::find(&conf.data_dir, network).map_err(io)? else { return Ok(Vec::new()) };
    let mut unlisted = Vec::new();
    for held in folder.all_held().map_err(io)? {
        if !is_garbage(&held.holder, &request.valid) {
            continue;
        }
        if let Holder::Container(container, ifname) = held.holder {
            let attachment = ifname.and_then(|ifname| format!("{container}:{ifname}").parse().ok());
            unlisted.push(Unlisted { address: held.address, container, attachment });
        }
    }
    if !unlisted.is_empty() {
        let others = others(&conf.data_dir, network);
        unlisted.retain(|it| !others.iter().any(|other| other.join(it.address.to_string()).exists()));
    }
    Ok(unlisted)
}

/// The folders of the other networks.
fn others(data_dir: &Path, network: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name() != network).map(|entry| entry.path()).collect()
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
