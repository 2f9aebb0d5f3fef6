//! Removing what one attachment has on the node: host ports, shaping, link. Everything is tried, whatever fails, and
//! everything that fails is told.

use std::time::{Duration, Instant};

use attachment::{Attachment, Detachment, Entry, Mode, NetworkName, Record, ReleaseError, Store};
use cni_spec::{CniError, ErrorCode};
use kernel::KernelError;
use kernel::link;
use kernel::netlink::Socket;
use link_name::LinkName;
use rustix::fd::AsFd;

use crate::host_ports;
use crate::lan_guard;
use crate::netfilter;
use crate::wiring::{delete_link, host_link_name, lan, shaping_link_name};

/// An attachment that is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leftover<'a> {
    pub(crate) network: &'a NetworkName,
    pub(crate) attachment: &'a Attachment,
    /// None where it is lost or cannot be read: then the links are found by their names, and the host ports are left
    /// for the agent, which removes those that no record has.
    pub(crate) record: Option<&'a Record>,
}

impl<'a> Leftover<'a> {
    /// What the record taken in hand says, if anything.
    pub(crate) fn of(network: &'a NetworkName, attachment: &'a Attachment, entry: Option<&'a Entry>) -> Self {
        Self { network, attachment, record: entry.map(|entry| &entry.record) }
    }
}

/// For how long a record that another process holds is waited for: the agent holds it for microseconds while it puts host
/// ports back, an ADD that nobody waits for any more until it ends.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Takes a record in hand, so that it can be torn down; none where there is none.
pub(crate) fn take_in_hand<'a>(
    store: &'a Store,
    attachment: &Attachment,
) -> Result<Option<Detachment<'a>>, ReleaseError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store.detach(attachment) {
            Err(ReleaseError::InProgress { .. }) if Instant::now() < deadline => {
                std::thread::sleep(LOOK_EVERY);
            }
            other => return other,
        }
    }
}

/// Removes all of it. The addresses stay reserved; releasing them is the caller's, afterwards.
pub(crate) fn tear_down(leftover: Leftover<'_>, host: &mut Socket) -> Result<(), CniError> {
    let mut failed: Vec<String> = Vec::new();
    let withdrawn = leftover.record.map(host_ports::withdraw);
    if let Some(Err(error)) = &withdrawn {
        failed.push(error.to_string());
    }
    let netfilter = withdrawn.and_then(Result::ok).flatten();
    for name in links_of(leftover) {
        if let Err(error) = delete_by_name(host, &name, netfilter.as_ref()) {
            failed.push(error.to_string());
        }
    }
    if let Some(Err(error)) = leftover.record.map(|record| lan::stop_answering(record, host)) {
        failed.push(error.to_string());
    }
    // After the link: as long as it is there, it is guarded.
    if let Some(Err(error)) = leftover.record.filter(|record| is_on_lan_bridge(record)).map(unguard) {
        failed.push(error.to_string());
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(CniError::new(
        ErrorCode::KernelRefused,
        format!("failed to remove all of attachment {}: {}", leftover.attachment, failed.join("; ")),
    ))
}

const fn is_on_lan_bridge(record: &Record) -> bool {
    matches!(record.wiring.mode, Mode::L2 { .. })
}

fn unguard(record: &Record) -> Result<(), KernelError> {
    if lan_guard::unguard(&mut *netfilter::socket()?, record.wiring.host_link.as_str())? {
        netfilter::removed();
    }
    Ok(())
}

/// The pair first: with it goes what the pod sends, and what redirects it.
fn links_of(leftover: Leftover<'_>) -> Vec<LinkName> {
    let Leftover { network, attachment, record, .. } = leftover;
    match record {
        Some(record) => {
            let shaping = record.wiring.bandwidth.as_ref().and_then(|bandwidth| bandwidth.ifb.clone());
            std::iter::once(record.wiring.host_link.clone()).chain(shaping).collect()
        }
        None => vec![host_link_name(network, attachment), shaping_link_name(network, attachment)],
    }
}

fn delete_by_name(host: &mut Socket, name: &LinkName, netfilter: Option<&Socket>) -> Result<(), KernelError> {
    match link::by_name(host, name.as_str())? {
        Some(found) => delete_link(host, found.index, netfilter.map(AsFd::as_fd))
            .map_err(|error| error.attempting(format!("delete link {name}"))),
        None => Ok(()),
    }
}
