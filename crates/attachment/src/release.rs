//! Release: what DEL and the collection of garbage do with a record.

use crate::error::{IoError, ReleaseError};
use crate::folder::Folder;
use crate::locked::{Found, Held, Locked};
use crate::record::{Entry, RecordFault};
use cni_spec::Attachment;

/// A record that this process removes: while it is held, no ADD takes its addresses or ports over and nobody else
/// removes it. Remove the links and rules first and [`release`](Self::release) last; dropped, it changes nothing.
#[must_use = "dropping it leaves the attachment as it was"]
pub struct Detachment<'a> {
    folder: &'a Folder,
    attachment: Attachment,
    held: Box<Held>,
}

/// Takes the record of `attachment` in hand; `None` where there is none.
pub(crate) fn detach<'a>(
    folder: &'a Folder,
    attachment: &Attachment,
) -> Result<Option<Detachment<'a>>, ReleaseError> {
    let locked = Locked::new(folder)?;
    match locked.hold(attachment)? {
        Found::Held(held) => Ok(Some(Detachment { folder, attachment: attachment.clone(), held })),
        Found::InProgress => Err(ReleaseError::InProgress { attachment: attachment.clone() }),
        Found::Nothing => {
            // A release of this very attachment may have been killed half way.
            locked.finish_pending()?;
            Ok(None)
        }
    }
}

impl Detachment<'_> {
    /// Whose record it is.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// What it says; `None` where it cannot be read.
    #[must_use]
    pub fn entry(&self) -> Option<&Entry> {
        self.held.content.as_ref().ok()
    }

    /// Why it cannot be read.
    #[must_use]
    pub fn fault(&self) -> Option<&RecordFault> {
        self.held.content.as_ref().err()
    }

    /// Frees the addresses and host ports and removes the record. A record that cannot be read is freed of every claim
    /// that leads to it.
    pub fn release(self) -> Result<(), IoError> {
        let record = self.entry().map(|entry| &entry.record);
        Locked::new(self.folder)?.remove(&self.attachment, self.held.file.inode, record)
    }
}
