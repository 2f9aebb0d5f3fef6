//! Reclaim: frees what belongs to pods that are gone, and makes records, claims and hints agree again.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::address_range::AddressRange;
use crate::claim::Claim;
use crate::error::{IoError, ReleaseError};
use crate::folder::{CLAIMS, Folder, RANGES, RECORDS};
use crate::hint::Hint;
use crate::locked::{Locked, claim_name, read_entry, record_name};
use crate::record::Record;
use crate::store::{BadRecord, Store};
use cni_spec::Attachment;

/// One thing that was put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// An attachment was freed.
    Attachment {
        /// Which.
        attachment: Attachment,
        /// What it held; empty where its record could not be read.
        claims: Vec<Claim>,
    },
    /// A reservation or release that was killed half way was brought to its end.
    Interrupted,
    /// A claim without a record was removed.
    Claim(Claim),
    /// A record got back a claim that it had lost.
    Restored {
        /// The claim.
        claim: Claim,
        /// Whose it is.
        attachment: Attachment,
    },
    /// A hint was wrong and was built anew.
    Hint(AddressRange),
}

/// What [`Store::reclaim`] did and could not do.
#[derive(Debug, Default)]
pub struct ReclaimReport {
    /// What was put right.
    pub done: Vec<Reclaimed>,
    /// What would have been freed, but is being added or removed by a living process.
    pub in_progress: Vec<Attachment>,
    /// Two living attachments say that they hold the same: the claim is the first one's.
    pub contested: Vec<(Claim, Attachment)>,
    /// What could not be freed.
    pub failed: Vec<IoError>,
    /// Files among the records that are none, and that were left alone.
    pub bad_records: Vec<BadRecord>,
    /// Names among the claims and hints that are not ours, and that were left alone.
    pub foreign: Vec<String>,
}

impl fmt::Display for Reclaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attachment { attachment, claims } => {
                write!(f, "freed attachment {attachment}")?;
                for (number, claim) in claims.iter().enumerate() {
                    write!(f, "{}{claim}", if number == 0 { " with " } else { ", " })?;
                }
                Ok(())
            }
            Self::Interrupted => f.write_str("finished an interrupted reservation or release"),
            Self::Claim(claim) => write!(f, "freed {claim}, which no attachment holds"),
            Self::Restored { claim, attachment } => write!(f, "gave {claim} back to attachment {attachment}"),
            Self::Hint(range) => write!(f, "rebuilt the hint of range {range}"),
        }
    }
}

/// Frees the attachments that are a `candidate` when read in passing (with the time at which they were written) and
/// that `confirm` frees while they are held; then audits the store.
pub(crate) fn reclaim(
    store: &Store,
    candidate: impl Fn(&Attachment, Option<&Record>, u64) -> bool,
    mut confirm: impl FnMut(&Attachment, Option<&Record>) -> bool,
) -> Result<ReclaimReport, IoError> {
    let mut report = ReclaimReport::default();
    let mut kept = Vec::new();
    for name in store.folder().names(RECORDS)? {
        let attachment: Attachment = match name.parse() {
            Ok(attachment) => attachment,
            Err(cause) => {
                report.bad_records.push(store.foreign(&name, cause));
                continue;
            }
        };
        match consider(store, &attachment, &candidate, &mut confirm, &mut report) {
            Ok(Some((inode, record))) => kept.push((inode, record)),
            Ok(None) => {}
            Err(error) => report.failed.push(error),
        }
    }
    audit(store, &kept, &mut report)?;
    Ok(report)
}

/// Frees one attachment or not; the record, and the file that it is, where it stays and can be read.
fn consider(
    store: &Store,
    attachment: &Attachment,
    candidate: &impl Fn(&Attachment, Option<&Record>, u64) -> bool,
    confirm: &mut impl FnMut(&Attachment, Option<&Record>) -> bool,
    report: &mut ReclaimReport,
) -> Result<Option<(u64, Record)>, IoError> {
    let name = record_name(attachment);
    // None: gone since the folder was listed.
    let Some(file) = store.folder().open_file(&name)? else { return Ok(None) };
    let content = read_entry(store.folder(), &file, &name, attachment)?;
    // Asked before the record is taken in hand, so that a pass over living pods is in no DEL's way. When a record that
    // cannot be read was written only its file can say.
    let (record, written) = match &content {
        Ok(entry) => (Some(&entry.record), entry.record.created),
        Err(_) => (None, file.modified),
    };
    if candidate(attachment, record, written) && free(store, attachment, confirm, report)? {
        return Ok(None);
    }
    match content {
        Ok(entry) => Ok(Some((file.inode, entry.record))),
        Err(fault) => {
            report.bad_records.push(store.bad(attachment, fault));
            Ok(None)
        }
    }
}

/// Whether `attachment` is gone now.
fn free(
    store: &Store,
    attachment: &Attachment,
    confirm: &mut impl FnMut(&Attachment, Option<&Record>) -> bool,
    report: &mut ReclaimReport,
) -> Result<bool, IoError> {
    let detachment = match store.detach(attachment) {
        Ok(Some(detachment)) => detachment,
        Ok(None) => return Ok(true),
        Err(ReleaseError::InProgress { attachment }) => {
            report.in_progress.push(attachment);
            return Ok(false);
        }
        Err(ReleaseError::Io(error)) => return Err(error),
    };
    let record = detachment.entry().map(|entry| &entry.record);
    if !confirm(attachment, record) {
        return Ok(false);
    }
    let claims = record.map_or_else(Vec::new, |record| record.claims().collect());
    detachment.release()?;
    report.done.push(Reclaimed::Attachment { attachment: attachment.clone(), claims });
    Ok(true)
}

/// Makes claims and hints agree with the records, of which `read` are known by content.
fn audit(store: &Store, read: &[(u64, Record)], report: &mut ReclaimReport) -> Result<(), IoError> {
    let folder = store.folder();
    let locked = Locked::new(folder)?;
    if locked.finish_pending()? {
        report.done.push(Reclaimed::Interrupted);
    }
    // Nothing is half way while the lock is held: a claim that is no record's now will never be.
    let mut inodes: HashMap<String, u64> = HashMap::new();
    for name in folder.names(RECORDS)? {
        if let Some(inode) = folder.inode(&format!("{RECORDS}/{name}"))? {
            inodes.insert(name, inode);
        }
    }
    let live: HashSet<u64> = inodes.values().copied().collect();
    let mut claims: HashMap<Claim, u64> = HashMap::new();
    for name in folder.names(CLAIMS)? {
        let Ok(claim) = name.parse::<Claim>() else {
            report.foreign.push(format!("{CLAIMS}/{name}"));
            continue;
        };
        let Some(inode) = folder.inode(&claim_name(&claim))? else { continue };
        if live.contains(&inode) {
            claims.insert(claim, inode);
        } else {
            folder.unlink(&claim_name(&claim))?;
            report.done.push(Reclaimed::Claim(claim));
        }
    }
    for &(inode, ref record) in read {
        // Another life of the attachment may have begun since this was read; that one has its claims.
        if inodes.get(&record.attachment.to_string()) != Some(&inode) {
            continue;
        }
        let lost = record.claims().any(|claim| claims.get(&claim) != Some(&inode));
        // On a disk, its file may have the number of the one before.
        if lost && !is_still(folder, record)? {
            continue;
        }
        for claim in record.claims() {
            match claims.get(&claim) {
                Some(&holder) if holder == inode => {}
                Some(_) => report.contested.push((claim, record.attachment.clone())),
                None => {
                    if folder.link(&record_name(&record.attachment), &claim_name(&claim))? {
                        claims.insert(claim, inode);
                        let attachment = record.attachment.clone();
                        report.done.push(Reclaimed::Restored { claim, attachment });
                    }
                }
            }
        }
    }
    for name in folder.names(RANGES)? {
        match name.parse::<AddressRange>() {
            Ok(range) => {
                if Hint::open(folder, range)?.correct(folder, claims.keys().copied())? {
                    report.done.push(Reclaimed::Hint(range));
                }
            }
            Err(_) => report.foreign.push(format!("{RANGES}/{name}")),
        }
    }
    Ok(())
}

/// Whether the attachment's record says now what was read of it.
fn is_still(folder: &Folder, record: &Record) -> Result<bool, IoError> {
    let name = record_name(&record.attachment);
    let Some(file) = folder.open_file(&name)? else { return Ok(false) };
    let now = read_entry(folder, &file, &name, &record.attachment)?;
    Ok(now.is_ok_and(|entry| entry.record == *record))
}
