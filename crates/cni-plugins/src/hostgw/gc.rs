//! GC: removes the attachments of this network that the runtime does not know.

use std::collections::HashSet;

use attachment::{Attachment, Store};
use cni_spec::{CniError, ErrorCode, GcRequest};
use kernel::netlink::{Protocol, Socket};

use super::make_way::link_is_gone;
use super::survey::is_stand_in;
use crate::answer::Answer;
use crate::dhcp;
use crate::failure::{kernel_refused, store_failed};
use crate::teardown::{Leftover, tear_down};

/// Keeps the valid attachments, removes all others, and repairs the store.
pub(crate) fn gc(request: &GcRequest, answer: &mut Answer) -> Result<(), CniError> {
    if request.disabled {
        return Ok(());
    }
    let collected = collect(request, answer);
    // Last, so that nobody is lent an address while something still carries it.
    let given_back = dhcp::gc(request);
    collected.and(given_back)
}

fn collect(request: &GcRequest, answer: &mut Answer) -> Result<(), CniError> {
    let network = &request.store.base.name;
    let Some(store) = Store::find(&request.store.data_dir, network).map_err(store_failed)? else {
        return Ok(());
    };
    let valid: HashSet<Attachment> = request.valid.iter().cloned().collect();
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let mut failed: Vec<String> = Vec::new();
    let report = store
        .reclaim_except(&valid, |attachment, record| {
            // Which container it is, only its link could say; while that lives, nobody can say that it is not valid.
            if is_stand_in(attachment) && !link_is_gone(network, attachment, record) {
                return false;
            }
            let leftover = Leftover { network, attachment, record };
            match tear_down(leftover, &mut host) {
                Ok(()) => true,
                Err(error) => {
                    failed.push(error.to_string());
                    false
                }
            }
        })
        .map_err(store_failed)?;
    for done in &report.done {
        answer.inform(&done.to_string());
    }
    for bad in &report.bad_records {
        answer.warn(&bad.to_string());
    }
    failed.extend(report.failed.iter().map(ToString::to_string));
    match failed.is_empty() {
        true => Ok(()),
        false => {
            Err(CniError::new(ErrorCode::Io, format!("not all could be collected: {}", failed.join("; "))))
        }
    }
}
