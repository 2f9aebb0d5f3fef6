//! The store while its lock is held: the steps that reservation, release and reclaim are made of. That they need this
//! value makes them unsayable without the lock.

use std::os::fd::OwnedFd;

use crate::claim::{Claim, Owner};
use crate::error::IoError;
use crate::folder::{CLAIMS, File, Folder, PENDING, RECORDS, Renamed};
use crate::hint;
use crate::host_port::HostPort;
use crate::record::{Entry, Record, RecordFault};
use cni_spec::Attachment;

/// The store, locked until this is dropped.
pub(crate) struct Locked<'a> {
    folder: &'a Folder,
    _lock: OwnedFd,
}

/// A record's file, whose lock this process holds.
pub(crate) struct Held {
    pub(crate) file: File,
    pub(crate) content: Result<Entry, RecordFault>,
}

/// What an attachment's name leads to.
pub(crate) enum Found {
    Nothing,
    /// A living process adds or removes it.
    InProgress,
    Held(Box<Held>),
}

pub(crate) fn record_name(attachment: &Attachment) -> String {
    format!("{RECORDS}/{attachment}")
}

pub(crate) fn claim_name(claim: &Claim) -> String {
    format!("{CLAIMS}/{claim}")
}

impl<'a> Locked<'a> {
    /// Waits for the lock.
    pub(crate) fn new(folder: &'a Folder) -> Result<Self, IoError> {
        Ok(Self { folder, _lock: folder.lock()? })
    }

    pub(crate) fn folder(&self) -> &'a Folder {
        self.folder
    }

    /// Takes the record of `attachment` out of others' hands.
    pub(crate) fn hold(&self, attachment: &Attachment) -> Result<Found, IoError> {
        let name = record_name(attachment);
        let Some(file) = self.folder.open_file(&name)? else { return Ok(Found::Nothing) };
        if !self.folder.try_lock_record(&file, &name)? {
            return Ok(Found::InProgress);
        }
        let content = read_entry(self.folder, &file, &name, attachment)?;
        Ok(Found::Held(Box::new(Held { file, content })))
    }

    /// Removes the record of `attachment` if it is still the file `inode`, and frees what it claimed.
    pub(crate) fn remove(
        &self,
        attachment: &Attachment,
        inode: u64,
        record: Option<&Record>,
    ) -> Result<(), IoError> {
        let name = record_name(attachment);
        if self.folder.inode(&name)? != Some(inode) {
            return Ok(());
        }
        if self.folder.rename(&name, PENDING)? == Renamed::Exists {
            self.finish_pending()?;
            self.folder.rename(&name, PENDING)?;
        }
        self.dissolve(inode, record)
    }

    /// Clears away what a killed process left between two states, if anything.
    pub(crate) fn finish_pending(&self) -> Result<bool, IoError> {
        let Some(file) = self.folder.open_file(PENDING)? else { return Ok(false) };
        let entry = Entry::decode(self.folder.read(&file, PENDING)?).ok();
        self.dissolve(file.inode, entry.as_ref().map(|entry| &entry.record))?;
        Ok(true)
    }

    /// Frees what `pending`, which is the file `inode`, claimed, and removes it last: whoever finds it can do this again.
    fn dissolve(&self, inode: u64, record: Option<&Record>) -> Result<(), IoError> {
        if let Some(record) = record {
            for allocation in &record.addresses {
                let address = allocation.address.addr();
                let free = self.unclaim(&Claim::Address(address), inode)?;
                if free && let Some(index) = allocation.range.index_of(address) {
                    // A hint that stays wrong costs an address until it is rebuilt; failing would cost the release.
                    let _hint = hint::clear(self.folder, &allocation.range, index);
                }
            }
            for claim in record.host_ports.iter().flat_map(HostPort::claims) {
                self.unclaim(&claim, inode)?;
            }
        }
        // A record that cannot be read, or whose claims were tampered with, has claims that it does not name.
        if self.folder.is_shared(PENDING)? {
            for name in self.folder.names(CLAIMS)? {
                let name = format!("{CLAIMS}/{name}");
                if self.folder.inode(&name)? == Some(inode) {
                    self.folder.unlink(&name)?;
                }
            }
        }
        self.folder.unlink(PENDING)
    }

    /// Removes a claim if it is a name of the file `inode`; whether nobody has it now. Another may have it by now where
    /// an earlier attempt was cut short.
    fn unclaim(&self, claim: &Claim, inode: u64) -> Result<bool, IoError> {
        let name = claim_name(claim);
        match self.folder.inode(&name)? {
            None => Ok(true),
            Some(holder) if holder == inode => self.folder.unlink(&name).map(|()| true),
            Some(_) => Ok(false),
        }
    }
}

/// The content of a record's file.
pub(crate) fn read_entry(
    folder: &Folder,
    file: &File,
    name: &str,
    attachment: &Attachment,
) -> Result<Result<Entry, RecordFault>, IoError> {
    let content = Entry::decode(folder.read(file, name)?);
    Ok(content.and_then(|entry| {
        if entry.record.attachment == *attachment {
            Ok(entry)
        } else {
            Err(RecordFault::Misnamed(Box::new(entry.record.attachment)))
        }
    }))
}

/// Whose claim it is; `None` where nobody made it.
pub(crate) fn owner(folder: &Folder, claim: &Claim) -> Result<Option<Owner>, IoError> {
    let name = claim_name(claim);
    let Some(file) = folder.open_file(&name)? else { return Ok(None) };
    let Ok(entry) = Entry::decode(folder.read(&file, &name)?) else {
        // With no other name, no record and no pending one is this file.
        return Ok(Some(if file.shared { Owner::Unreadable } else { Owner::Nobody }));
    };
    let attachment = entry.record.attachment;
    let lives = folder.inode(&record_name(&attachment))? == Some(file.inode);
    Ok(Some(if lives { Owner::Attachment(attachment) } else { Owner::Nobody }))
}
