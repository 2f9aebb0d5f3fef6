//! Clearing away what pods left that are gone: the runtime may never have run DEL for them. Whatever is freed is torn
//! down first, while its record is held; a name that were freed alone would leave host ports that lead to whoever gets
//! the address next.

use attachment::{Attachment, Claim, NetworkName, Record, Request, State, Store};
use cni_spec::{CniError, ErrorCode};
use kernel::link;
use kernel::netlink::{Protocol, Socket};

use crate::failure::{release_failed, store_failed};
use crate::teardown::{Leftover, tear_down};
use crate::wiring::host_link_name;

/// An earlier ADD for this attachment that was killed, or whose pod is gone, is removed whole. One that succeeded and
/// lives is an error (CNI spec, section 2, "ADD").
pub(super) fn for_attachment(
    store: &Store,
    attachment: &Attachment,
    host: &mut Socket,
) -> Result<(), CniError> {
    // Without a record, which is nearly always, there is no need of the lock.
    if let Ok(None) = store.lookup(attachment) {
        return Ok(());
    }
    let Some(detachment) = store.detach(attachment).map_err(|error| release_failed(&error))? else {
        return Ok(());
    };
    // Judged only now that it is in our hands: a moment ago, another ADD may have been about to succeed.
    if let Some(entry) = detachment.entry()
        && entry.state == State::Attached
        && !link_is_gone(store.network(), attachment, Some(&entry.record))
    {
        return Err(CniError::new(
            ErrorCode::AttachmentExists,
            format!(
                "attachment {attachment} of network `{}` exists already: run DEL for it first",
                store.network()
            ),
        ));
    }
    tear_down(Leftover::of(store.network(), attachment, detachment.entry()), host)?;
    detachment.release().map_err(store_failed)
}

/// Frees the host ports and addresses that a request names and the dead hold. What cannot be freed stays taken, and the
/// reservation says by whom.
pub(super) fn for_names(store: &Store, request: &Request<'_>, host: &mut Socket) {
    let ports = request.host_ports.iter().flat_map(attachment::HostPort::claims);
    for claim in ports.chain(request.requested.iter().copied().map(Claim::Address)) {
        if let Ok(Some(owner)) = store.owner_of_claim(&claim) {
            bury(store, &owner, host);
        }
    }
}

/// Frees whatever the dead hold, for when a range is exhausted; whether anything was.
pub(super) fn for_anybody(store: &Store, host: &mut Socket) -> bool {
    let Ok(records) = store.records() else { return false };
    let entries: Vec<Attachment> = records.flatten().map(|entry| entry.record.attachment).collect();
    entries.iter().filter(|attachment| bury(store, attachment, host)).count() > 0
}

/// Removes an attachment whose link is gone and that nobody works on; whether it did.
fn bury(store: &Store, attachment: &Attachment, host: &mut Socket) -> bool {
    let Ok(Some(detachment)) = store.detach(attachment) else { return false };
    let entry = detachment.entry();
    link_is_gone(store.network(), attachment, entry.map(|entry| &entry.record))
        && tear_down(Leftover::of(store.network(), attachment, entry), host).is_ok()
        && detachment.release().is_ok()
}

/// A living link on the node proves that its pod lives: the pair dies with the pod's namespace.
pub(super) fn link_is_gone(network: &NetworkName, attachment: &Attachment, record: Option<&Record>) -> bool {
    let name = match record {
        Some(record) => record.wiring.host_link.clone(),
        None => host_link_name(network, attachment),
    };
    // Not knowing is no proof.
    Socket::open(Protocol::Route)
        .and_then(|mut socket| link::by_name(&mut socket, name.as_str()))
        .is_ok_and(|found| found.is_none())
}
