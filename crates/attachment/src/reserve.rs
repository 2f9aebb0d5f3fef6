//! Reservation: addresses and host ports for one attachment, all or nothing.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use crate::claim::{Claim, Owner};
use crate::error::{IoError, ReserveError};
use crate::folder::{Folder, PENDING, Renamed};
use crate::host_port::HostPort;
use crate::locked::{Found, Locked, claim_name, owner, record_name};
use crate::record::{Allocation, Record, STATE_ATTACHED, STATE_OFFSET, Wiring};
use crate::request::Request;
use crate::search::{Proposal, Search};
use cni_spec::{Attachment, NetworkName};

/// After so many stale bits in one call, the hints are rebuilt rather than corrected one by one.
const STALE_BITS: u32 = 16;

/// A record in state `adding`, locked by this process: proof to others that its ADD lives. Dropping it without
/// [`Reservation::mark_attached`] or [`Reservation::release`] leaves it to be reclaimed, as a crash would; so release
/// it only once the links made for it are gone.
#[must_use = "a reservation that is dropped stays on disk until it is reclaimed"]
pub struct Reservation<'a> {
    folder: &'a Folder,
    file: OwnedFd,
    record: Record,
}

/// Reserves for `request`; `wire` says how the pod is wired once its addresses are known, and is called again where a
/// proposed address turns out to be taken.
pub(crate) fn reserve<'a>(
    folder: &'a Folder,
    network: &NetworkName,
    request: &Request<'_>,
    now: u64,
    mut wire: impl FnMut(&[Allocation]) -> Wiring,
) -> Result<Reservation<'a>, ReserveError> {
    let wishes = request.wishes()?;
    let locked = Locked::new(folder)?;
    refuse_present(&locked, request.attachment)?;
    let mut stale_bits = 0;
    loop {
        let file = draft(&locked)?;
        // The hints are read only now: making the draft, and every failed attempt, may have freed what they say is taken.
        let attempt = Search::new(folder, request.range_sets, &wishes).map_err(ReserveError::from);
        let attempt = attempt.and_then(|mut search| {
            let proposals = search.propose()?;
            let addresses: Vec<Allocation> = proposals.iter().map(|p| p.allocation.clone()).collect();
            let record = Record {
                network: network.clone(),
                attachment: request.attachment.clone(),
                created: now,
                wiring: wire(&addresses),
                addresses,
                host_ports: request.host_ports.to_vec(),
            };
            let taken = publish(&locked, &mut search, &file, &record, &proposals)?;
            Ok((search, record, taken))
        });
        let (mut search, taken) = match attempt {
            Ok((_, record, None)) => return Ok(Reservation { folder, file, record }),
            Ok((search, _, Some(taken))) => (search, taken),
            Err(error) => {
                // Where this fails as well, the next to take the lock finishes it.
                let _undone = locked.finish_pending();
                return Err(error);
            }
        };
        locked.finish_pending()?;
        match taken {
            Taken::Found(proposal) => {
                stale_bits += 1;
                search.note_stale(&proposal, stale_bits > STALE_BITS)?;
            }
            Taken::Requested(address) => {
                let error = |owner| ReserveError::AddressTaken { address, owner };
                free_or_refuse(&locked, &Claim::Address(address), error)?;
            }
            Taken::HostPort(port, claim) => {
                let error = |owner| ReserveError::HostPortTaken { port: port.clone(), owner };
                free_or_refuse(&locked, &claim, error)?;
            }
        }
    }
}

/// A claim that could not be made, by what had proposed it.
enum Taken {
    /// The search did: it will propose another.
    Found(Proposal),
    /// The request named the address.
    Requested(IpAddr),
    /// The request named the port.
    HostPort(HostPort, Claim),
}

/// The file that becomes the record, locked before anyone else can know it.
fn draft(locked: &Locked<'_>) -> Result<OwnedFd, IoError> {
    let folder = locked.folder();
    loop {
        if let Some(fd) = folder.create(PENDING)? {
            return match folder.lock_record(&fd, PENDING) {
                Ok(()) => Ok(fd),
                Err(error) => {
                    // Where this fails as well, the next to take the lock finishes it.
                    let _undone = folder.unlink(PENDING);
                    Err(error)
                }
            };
        }
        locked.finish_pending()?;
    }
}

/// Writes the record, makes its claims and names it; the first claim that is taken stops that.
fn publish(
    locked: &Locked<'_>,
    search: &mut Search<'_>,
    file: &OwnedFd,
    record: &Record,
    proposals: &[Proposal],
) -> Result<Option<Taken>, ReserveError> {
    let folder = locked.folder();
    let render = |cause| ReserveError::Render { attachment: record.attachment.clone(), cause };
    folder.write_at(file, &record.encode().map_err(render)?, 0, PENDING)?;
    for proposal in proposals {
        let address = proposal.allocation.address.addr();
        if !folder.link(PENDING, &claim_name(&Claim::Address(address)))? {
            let taken =
                if proposal.requested { Taken::Requested(address) } else { Taken::Found(proposal.clone()) };
            return Ok(Some(taken));
        }
    }
    for port in &record.host_ports {
        for claim in port.claims() {
            if !folder.link(PENDING, &claim_name(&claim))? {
                return Ok(Some(Taken::HostPort(port.clone(), claim)));
            }
        }
    }
    // Before the record gets its name, so that the hint of whatever has a name is right whenever we are killed.
    search.note_taken(proposals);
    match folder.rename(PENDING, &record_name(&record.attachment))? {
        Renamed::Done => Ok(None),
        // Somebody changed the folder without the lock.
        Renamed::Exists | Renamed::Missing => Err(ReserveError::AttachmentExists {
            attachment: record.attachment.clone(),
            state: None,
            in_progress: true,
        }),
    }
}

/// Whoever has a record is cleared away by its DEL, or by an ADD that knows its links to be gone, never from here: only
/// they can remove what hangs on it first.
fn refuse_present(locked: &Locked<'_>, attachment: &Attachment) -> Result<(), ReserveError> {
    let exists = |state, in_progress| {
        Err(ReserveError::AttachmentExists { attachment: attachment.clone(), state, in_progress })
    };
    match locked.hold(attachment)? {
        Found::Nothing => Ok(()),
        Found::InProgress => exists(None, true),
        Found::Held(held) => exists(held.content.as_ref().ok().map(|entry| entry.state), false),
    }
}

/// Frees a claim that was asked for by name and belongs to no record.
fn free_or_refuse(
    locked: &Locked<'_>,
    claim: &Claim,
    taken: impl Fn(Option<Attachment>) -> ReserveError,
) -> Result<(), ReserveError> {
    match owner(locked.folder(), claim)? {
        None => Ok(()),
        Some(Owner::Nobody) => Ok(locked.folder().unlink(&claim_name(claim))?),
        Some(Owner::Unreadable) => Err(taken(None)),
        Some(Owner::Attachment(owner)) => Err(taken(Some(owner))),
    }
}

impl Reservation<'_> {
    /// What was reserved.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Says that ADD succeeded, by overwriting one word in place, and lets go of the record. Fails where somebody
    /// removed the record meanwhile: then its addresses are no longer this pod's.
    pub fn mark_attached(&self) -> Result<(), IoError> {
        let name = record_name(&self.record.attachment);
        if self.folder.is_removed(&self.file, &name)? {
            return Err(self.folder.missing("mark as attached", &name));
        }
        self.folder.write_at(&self.file, STATE_ATTACHED, STATE_OFFSET, &name)?;
        // Closing would not do where a child process shares the descriptor.
        self.folder.unlock_record(&self.file, &name)
    }

    /// Gives everything back. To be called last when an ADD is undone, after its links are gone.
    pub fn release(self) -> Result<(), IoError> {
        let name = record_name(&self.record.attachment);
        let inode = self.folder.inode_of(&self.file, &name)?;
        Locked::new(self.folder)?.remove(&self.record.attachment, inode, Some(&self.record))
    }
}
