//! The store of one network: what the plugin and the agent call.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::claim::{Claim, Owner};
use crate::error::{IoError, ReleaseError, ReserveError};
use crate::folder::{self, Folder, RECORDS, SURVEYED};
use crate::locked::{owner, read_entry, record_name};
use crate::reclaim::{self, ReclaimReport};
use crate::record::{Allocation, Entry, Record, RecordFault, Wiring};
use crate::release::{Detachment, detach};
use crate::request::Request;
use crate::reserve::{Reservation, reserve};
use cni_spec::{Attachment, IdentifierError, NetworkName};

/// The records of one network and the claims they make. Cheap to open; may be shared between threads, and several
/// processes work on one at a time.
pub struct Store {
    folder: Folder,
    network: NetworkName,
}

/// A file among the records that is none.
#[derive(Debug, thiserror::Error)]
#[error("record {} cannot be used: {cause}", path.display())]
pub struct BadRecord {
    /// Where it is.
    pub path: PathBuf,
    /// The attachment that its name says, where it says one: then releasing it frees what it claimed.
    pub attachment: Option<Attachment>,
    /// Why.
    pub cause: Box<BadRecordCause>,
}

/// Why a file among the records is none.
#[derive(Debug, thiserror::Error)]
pub enum BadRecordCause {
    /// Its name is not of the form `<containerID>:<ifname>`.
    #[error("foreign file: {0}")]
    Name(#[from] IdentifierError),
    /// Its content.
    #[error(transparent)]
    Content(#[from] RecordFault),
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Store {
    /// Opens the store of `network` below `data_dir`, and makes its folders (mode 0700) where they do not exist.
    pub fn open(data_dir: &Path, network: &NetworkName) -> Result<Self, IoError> {
        Ok(Self { folder: Folder::open(data_dir, network)?, network: network.clone() })
    }

    /// Opens the store of `network` below `data_dir` if there is one.
    pub fn find(data_dir: &Path, network: &NetworkName) -> Result<Option<Self>, IoError> {
        let folder = Folder::find(data_dir, network)?;
        Ok(folder.map(|folder| Self { folder, network: network.clone() }))
    }

    /// The same store, whose lock is waited for that long at most instead of 10 s.
    #[must_use]
    pub fn with_lock_patience(mut self, patience: Duration) -> Self {
        self.folder.set_lock_patience(patience);
        self
    }

    /// Whose store it is.
    #[must_use]
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether somebody has looked, since this store was made, for pods that live without a record in it.
    pub fn is_surveyed(&self) -> Result<bool, IoError> {
        Ok(self.folder.inode(SURVEYED)?.is_some())
    }

    /// Says that all of them have records now.
    pub fn mark_surveyed(&self) -> Result<(), IoError> {
        self.folder.create(SURVEYED).map(|_| ())
    }

    /// Reserves one address of each range set, and the host ports, for one attachment: all, or nothing. `now` is the
    /// node's clock, in seconds since 1970; `wire` says how the pod will be wired once its addresses are known, and may
    /// be called more than once. What an earlier ADD of the same attachment left is removed if its link is gone.
    pub fn reserve(
        &self,
        request: &Request<'_>,
        now: u64,
        wire: impl FnMut(&[Allocation]) -> Wiring,
    ) -> Result<Reservation<'_>, ReserveError> {
        reserve(&self.folder, &self.network, request, now, wire)
    }

    /// The record of `attachment`, if there is one. Waits for nobody.
    pub fn lookup(&self, attachment: &Attachment) -> Result<Option<Entry>, BadRecord> {
        let name = record_name(attachment);
        let read = || -> Result<Option<Entry>, BadRecordCause> {
            let Some(file) = self.folder.open_file(&name)? else { return Ok(None) };
            Ok(Some(read_entry(&self.folder, &file, &name, attachment)??))
        };
        read().map_err(|cause| self.bad(attachment, cause))
    }

    /// Takes the record of `attachment` in hand, so that links and rules can be removed before its addresses are freed;
    /// `None` where there is none.
    pub fn detach(&self, attachment: &Attachment) -> Result<Option<Detachment<'_>>, ReleaseError> {
        detach(&self.folder, attachment)
    }

    /// Frees what `attachment` holds. Nothing to free is success.
    pub fn release(&self, attachment: &Attachment) -> Result<(), ReleaseError> {
        match self.detach(attachment)? {
            Some(detachment) => Ok(detachment.release()?),
            None => Ok(()),
        }
    }

    /// All records, in no order; what is none is named and passed over. Waits for nobody, so it may miss what comes or
    /// goes meanwhile.
    pub fn records(&self) -> Result<impl Iterator<Item = Result<Entry, BadRecord>> + '_, IoError> {
        let names = self.folder.names(RECORDS)?;
        Ok(names.into_iter().filter_map(|name| match name.parse() {
            Ok(attachment) => self.lookup(&attachment).transpose(),
            Err(cause) => Some(Err(self.foreign(&name, cause))),
        }))
    }

    pub(crate) fn foreign(&self, name: &str, cause: IdentifierError) -> BadRecord {
        let path = self.folder.path().join(RECORDS).join(name);
        BadRecord { path, attachment: None, cause: Box::new(cause.into()) }
    }

    pub(crate) fn bad(&self, attachment: &Attachment, cause: impl Into<BadRecordCause>) -> BadRecord {
        BadRecord {
            path: self.folder.path().join(record_name(attachment)),
            attachment: Some(attachment.clone()),
            cause: Box::new(cause.into()),
        }
    }

    /// Whose an address or host port is; `None` where it is free, or nobody's that can be read.
    pub fn owner_of_claim(&self, claim: &Claim) -> Result<Option<Attachment>, IoError> {
        Ok(match owner(&self.folder, claim)? {
            Some(Owner::Attachment(attachment)) => Some(attachment),
            Some(Owner::Unreadable | Owner::Nobody) | None => None,
        })
    }

    /// Frees the attachments whose link `link_is_gone`, that nobody is working on, and that are older than
    /// `grace_seconds` at `now` (seconds since 1970); then repairs whatever a power loss or a foreign hand left: claims
    /// without a record, records without their claims, wrong hints. `link_is_gone` gets `None` for a record that cannot
    /// be read, and is asked again under the record's lock before it is freed.
    pub fn reclaim(
        &self,
        now: u64,
        grace_seconds: u64,
        link_is_gone: impl Fn(&Attachment, Option<&Record>) -> bool,
    ) -> Result<ReclaimReport, IoError> {
        // A clock that was set back by more than the grace makes a record old, too: else it would never be.
        let old = |written: u64| now.abs_diff(written) > grace_seconds;
        reclaim::reclaim(
            self,
            |attachment, record, written| old(written) && link_is_gone(attachment, record),
            |attachment, record| link_is_gone(attachment, record),
        )
    }

    /// Frees every attachment that is not among `valid` and that nobody is working on, once `clean_up`, called while
    /// the record is held, has removed its links and rules and says so; then repairs as [`Store::reclaim`] does. This is
    /// CNI's GC, for this network only.
    pub fn reclaim_except(
        &self,
        valid: &HashSet<Attachment>,
        clean_up: impl FnMut(&Attachment, Option<&Record>) -> bool,
    ) -> Result<ReclaimReport, IoError> {
        reclaim::reclaim(self, |attachment, _, _| !valid.contains(attachment), clean_up)
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }
}

/// The networks that have a store below `data_dir`, sorted.
pub fn networks(data_dir: &Path) -> Result<Vec<NetworkName>, IoError> {
    let mut networks: Vec<NetworkName> = folder::names_at(data_dir)?
        .into_iter()
        .filter_map(|name| NetworkName::new(name).ok())
        .filter(|network| folder::is_network(&data_dir.join(network.as_str())))
        .collect();
    networks.sort_unstable();
    Ok(networks)
}
