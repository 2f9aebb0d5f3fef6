//! Which attachments hold an address, in one small file, so that nobody reads the file of every address to learn it.
//!
//! The file is a hint for programs that hold the folder's lock. It is believed only where the folder was last changed by
//! whoever wrote it, in this boot: with each writing the folder gets a time of change to the nanosecond, which any later
//! change by somebody else replaces.

use std::os::fd::OwnedFd;

use attachment::Attachment;
use kernel::sysctl::Sysctls;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::time::ClockId;

use super::folder::{Change, Holder};
use crate::fnv::fnv1a;

/// Hidden, so that scripts that look at all files of the folder do not see it.
const NAME: &str = ".hostgw-index";
/// `hostgw1` as a number: another layout has another.
const MAGIC: u64 = 0x0031_7767_7473_6f68;
/// Numbers before those of the attachments: the magic, the boot, seconds and nanoseconds of the folder's last change.
const HEADER: usize = 4;
/// As many as no node has pods; a file that is longer is not ours.
const MAX_NUMBERS: usize = 1 << 20;

/// The file's content. A number stands for each attachment; 0 is a place that is free.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// None where nothing is known.
    attachments: Option<Vec<u64>>,
    /// What of it was changed; none is all.
    changed: Option<usize>,
    /// Which boot of the node this is: what a power loss tore is not believed. None where the kernel does not say.
    boot: Option<u64>,
}

impl Index {
    /// Reads the index of a folder whose lock is held.
    pub(super) fn open(dir: &OwnedFd) -> Self {
        let boot = boot();
        Self { attachments: boot.and_then(|boot| read(dir, boot)), changed: None, boot }
    }

    /// Whether it knows every attachment.
    pub(super) fn is_complete(&self) -> bool {
        self.attachments.is_some()
    }

    pub(super) fn may_hold(&self, attachment: &Attachment) -> bool {
        self.attachments.as_ref().is_none_or(|known| {
            // Files of an old format name the container only.
            let of_container = number(attachment.container_id(), "");
            known.contains(&number_of(attachment)) || known.contains(&of_container)
        })
    }

    pub(super) fn change(&mut self, change: Change<'_>) {
        let Some(known) = &mut self.attachments else { return };
        let (from, to) = match change {
            Change::Claimed(attachment) => (0, number_of(attachment)),
            Change::Released(attachment) => (number_of(attachment), 0),
            Change::Swept => return self.attachments = None,
        };
        match known.iter().position(|number| *number == from) {
            Some(place) => {
                known[place] = to;
                self.changed = Some(place);
            }
            None if to != 0 => {
                known.push(to);
                self.changed = Some(known.len() - 1);
            }
            // It held nothing.
            None => self.changed = Some(0),
        }
    }

    pub(super) fn rebuild<'h>(&mut self, holders: impl Iterator<Item = &'h Holder>) {
        let mut known: Vec<u64> = holders
            .filter_map(|holder| match holder {
                Holder::Container(container, ifname) => {
                    Some(number(container, ifname.as_deref().unwrap_or("")))
                }
                Holder::Nobody | Holder::Foreign(_) => None,
            })
            .collect();
        // One that holds an address of each family is one attachment.
        known.sort_unstable();
        known.dedup();
        (self.attachments, self.changed) = (Some(known), None);
    }

    /// Writes it. Where that fails, what is in the file does not fit the folder, and is not believed.
    pub(super) fn save(&self, dir: &OwnedFd) {
        let (Some(known), Some(boot)) = (&self.attachments, self.boot) else { return };
        let _written = write(dir, boot, known, self.changed);
    }
}

fn read(dir: &OwnedFd, boot: u64) -> Option<Vec<u64>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, NAME, flags, Mode::empty()).ok()?;
    let length = usize::try_from(rustix::fs::fstat(&file).ok()?.st_size).ok()?;
    if length % 8 != 0 || length / 8 > MAX_NUMBERS {
        return None;
    }
    let mut bytes = vec![0; length];
    if rustix::io::pread(&file, &mut bytes, 0).ok()? != length {
        return None;
    }
    let mut numbers = bytes.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
    let header: Vec<u64> = numbers.by_ref().take(HEADER).collect();
    let (seconds, nanoseconds) = changed_at(dir)?;
    (header == [MAGIC, boot, seconds, nanoseconds]).then(|| numbers.collect())
}

fn write(dir: &OwnedFd, boot: u64, known: &[u64], changed: Option<usize>) -> Option<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, NAME, flags, Mode::from_raw_mode(0o600)).ok()?;
    let put = |numbers: &[u64], place: usize| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        (rustix::io::pwrite(&file, &bytes, place as u64 * 8).ok()? == bytes.len()).then_some(())
    };
    match changed {
        Some(place) => put(known.get(place..=place).unwrap_or_default(), HEADER + place)?,
        None => {
            rustix::fs::ftruncate(&file, (HEADER + known.len()) as u64 * 8).ok()?;
            put(known, HEADER)?;
        }
    }
    // Whole nanoseconds of the present: the kernel's own times of change are those of its last tick.
    let mtime = rustix::time::clock_gettime(ClockId::Realtime);
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    rustix::fs::futimens(dir, &Timestamps { last_access, last_modification: mtime }).ok()?;
    let wanted = (mtime.tv_sec.cast_unsigned(), mtime.tv_nsec.cast_unsigned());
    // A file system that keeps whole seconds only would be believed wrongly.
    let (seconds, nanoseconds) = changed_at(dir).filter(|kept| *kept == wanted)?;
    put(&[MAGIC, boot, seconds, nanoseconds], 0)
}

/// When the folder was last changed.
fn changed_at(dir: &OwnedFd) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(dir).ok()?;
    Some((u64::try_from(stat.st_mtime).ok()?, stat.st_mtime_nsec))
}

/// [`Index::boot`].
fn boot() -> Option<u64> {
    let id = Sysctls::default().boot_id().ok().filter(|id| !id.is_empty())?;
    Some(number(&id, ""))
}

fn number_of(attachment: &Attachment) -> u64 {
    number(attachment.container_id(), attachment.ifname().as_str())
}

fn number(container: &str, ifname: &str) -> u64 {
    fnv1a(&[container, "\0", ifname]).max(1)
}
