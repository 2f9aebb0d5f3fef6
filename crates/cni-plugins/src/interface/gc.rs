//! GC: removes the links and rules of attachments that the runtime does not know, and has the IPAM plugin free their
//! addresses. The reference only cleans up masquerading.

use attachment::{Attachment, NetworkName};
use cni_spec::{CniError, ErrorCode, GcRequest, HostLocalStoreConf, InterfaceConf};
use kernel::KernelError;
use kernel::link;
use kernel::netlink::{Protocol, Socket};

use super::name::attachment_of;
use super::reference_pods::Place;
use super::{ipam_of, reference_pods};
use crate::answer::Answer;
use crate::bridge::spoof_check;
use crate::call::Call;
use crate::failure::kernel_refused;
use crate::ipam::Ipam;
use crate::wiring::delete_link;
use crate::{host_local, masquerade};

/// Serves GC; `place` is where the network's pods are, none where that cannot be read. Of what the reference made, only that
/// goes of which `host-local` tells whose it is.
pub(crate) fn gc(
    call: &Call<'_>,
    place: Option<&Place>,
    has_spoof_check: bool,
    answer: &mut Answer,
) -> Result<(), CniError> {
    let request = GcRequest::parse(call.stdin)?;
    if request.disabled {
        return Ok(());
    }
    let network = &call.base.name;
    let mut failed: Vec<String> = Vec::new();
    let ipam = ipam_of(call.stdin);
    let speaks_first = ipam.as_ref().is_ok_and(|ipam| ipam.as_ref().is_some_and(Ipam::asks_on_link));
    let free = |answer: &mut Answer| {
        ipam.clone().and_then(|ipam| ipam.map_or(Ok(()), |ipam| ipam.gc(call, &request, answer))).err()
    };
    if speaks_first {
        failed.extend(free(answer).map(|error| error.to_string()));
    }
    let of_reference = || match (&ipam, place) {
        (Ok(Some(Ipam::HostLocal)), Some(place)) => {
            let unlisted = host_local::unlisted(&HostLocalStoreConf::parse(call.stdin)?, &request)?;
            reference_pods::collect(network, place, &unlisted, &request.valid)
        }
        _ => Ok(Vec::new()),
    };
    for removed in [remove_links(network, &request.valid), of_reference()] {
        match removed {
            Ok(removed) => {
                for name in removed {
                    answer.inform(&format!("link {name} of an attachment that is not valid is gone"));
                }
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    if has_spoof_check {
        failed.extend(spoof_check::collect(&request.valid).err().map(|error| error.to_string()));
    }
    if InterfaceConf::parse(call.stdin).map_or(true, |conf| conf.ip_masq) {
        failed.extend(masquerade::collect(network, &request.valid).err().map(|error| error.to_string()));
    }
    // Last, so that nobody gets the addresses while something still carries them.
    if !speaks_first {
        failed.extend(free(answer).map(|error| error.to_string()));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => {
            Err(CniError::new(ErrorCode::Io, format!("not all could be collected: {}", failed.join("; "))))
        }
    }
}

fn remove_links(network: &NetworkName, valid: &[Attachment]) -> Result<Vec<String>, CniError> {
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let links = link::dump_kind(&mut host, "veth").map_err(kernel_refused)?;
    let garbage = links.into_iter().filter(|link| {
        let attachment = link.alias.as_deref().and_then(|alias| attachment_of(alias, network));
        attachment.is_some_and(|attachment| !valid.contains(&attachment))
    });
    let mut removed = Vec::new();
    let mut failed: Option<KernelError> = None;
    for link in garbage {
        match delete_link(&mut host, link.index, None) {
            Ok(()) => removed.push(link.name),
            Err(error) => failed = Some(error.attempting(format!("delete link {}", link.name))),
        }
    }
    failed.map_or(Ok(removed), |error| Err(kernel_refused(error)))
}
