//! The IPAM plugin `host-local`, in the reference's format: a folder for each network, a file for each address.
//!
//! A node is switched from the reference and back with pods running, so whatever the reference reads is written as it
//! writes it, under its lock. What is ours alone, the index of attachments, may be lost or wrong without harm.

mod add;
mod boot;
mod check;
mod folder;
mod gc;
mod index;
mod release;
mod resolv_conf;
mod search;
mod status;

pub(crate) use add::add;
pub(crate) use check::check;
pub(crate) use gc::{Unlisted, gc, unlisted};
pub(crate) use release::release;
pub(crate) use status::status;

use attachment::Attachment;
use cni_spec::{CallEnvironment, CniError, ErrorCode, GcRequest, HostLocalConf, HostLocalStoreConf};

use crate::answer::Answer;
use crate::call::Call;
use crate::failure::io_failed;

/// Serves one call of the plugin.
pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    match call.environment {
        CallEnvironment::Add(pod) => {
            let conf = HostLocalConf::parse(call.stdin)?;
            let result = add(&conf, &pod.attachment, &pod.args)?;
            let json = result.to_json(conf.store.base.cni_version)?;
            if let Err(error) = answer.give(&json) {
                // Nobody knows what was reserved.
                release(&conf.store, &pod.attachment, &[])?;
                return Err(io_failed("write the result to standard output", &error));
            }
            Ok(())
        }
        CallEnvironment::Check(pod) => check(&HostLocalConf::parse(call.stdin)?, &pod.attachment),
        CallEnvironment::Del(pod) => {
            release(&HostLocalStoreConf::parse(call.stdin)?, &pod.attachment, &[]).map(|_| ())
        }
        CallEnvironment::Gc => {
            let request = GcRequest::parse(call.stdin)?;
            gc(&HostLocalStoreConf::parse(call.stdin)?, &request, answer)
        }
        CallEnvironment::Status => status(call.stdin),
        CallEnvironment::Version => Ok(()),
    }
}

/// The folder's refusal of a read or write.
fn folder_failed(error: &folder::FolderError) -> CniError {
    let code = if error.is_lock_held() { ErrorCode::TryAgainLater } else { ErrorCode::Io };
    CniError::new(code, error.to_string())
}

/// Who holds something, as the plugins name an attachment to people.
fn already_attached(attachment: &Attachment, address: std::net::IpAddr) -> CniError {
    CniError::new(
        ErrorCode::AttachmentExists,
        format!("attachment {attachment} holds {address} already: delete it before it is added again"),
    )
}
