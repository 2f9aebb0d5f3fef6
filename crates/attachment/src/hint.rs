//! The hint of one range: which indexes are taken, and where the next search starts. It makes a search independent of
//! the number of pods, and may be wrong or lost at any time: claims alone are true.
//!
//! The file begins with a header of one window's size (magic, cursor, turn), and the map of bits follows. It is sparse:
//! what was never written is free.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::address_range::AddressRange;
use crate::allocator::{Standing, WINDOW_BYTES, WINDOW_INDEXES, Window};
use crate::claim::Claim;
use crate::error::IoError;
use crate::folder::{CLAIMS, Folder, RANGES};

/// Begins every hint file; its last byte is the layout's version.
const MAGIC: &[u8; 8] = b"hgwhint\x01";
/// Where the map begins, in bytes: the header takes the place of a window, so that a page holds whole windows.
const MAP_OFFSET: u64 = WINDOW_BYTES as u64;
/// What is read at a time, in bytes: header and the first 28,672 indexes of a range are one read.
const PAGE: usize = 4096;
/// A file of this length, in bytes, is not compared with the claims but written anew.
const LONG: u64 = 1 << 20;

/// The hint of one range, open. To be used under the store's lock.
pub(crate) struct Hint {
    fd: OwnedFd,
    name: String,
    addresses: AddressRange,
    standing: Standing,
    page: Box<[u8; PAGE]>,
    /// Which page of the file that is.
    page_number: u64,
}

impl Hint {
    /// Opens the hint of `addresses`; one that is missing, torn or of another layout is built from the claims.
    pub(crate) fn open(folder: &Folder, addresses: AddressRange) -> Result<Self, IoError> {
        let name = name_of(&addresses);
        let fd = folder.open_or_create(&name)?;
        let standing = Standing { indexes: addresses.indexes(), cursor: 0, turn: 0 };
        let mut hint = Self { fd, name, addresses, standing, page: Box::new([0; PAGE]), page_number: 0 };
        hint.read_page(folder, 0)?;
        if !hint.read_header() {
            hint.rebuild(folder)?;
        }
        Ok(hint)
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// The `number`-th window of the map.
    pub(crate) fn window(&mut self, folder: &Folder, number: u64) -> Result<Window, IoError> {
        let at = MAP_OFFSET + number * WINDOW_BYTES as u64;
        let page_number = at / PAGE as u64;
        if page_number != self.page_number {
            self.read_page(folder, page_number)?;
        }
        let within = within_page(at);
        let mut window = [0; WINDOW_BYTES];
        window.copy_from_slice(&self.page[within..within + WINDOW_BYTES]);
        Ok(window)
    }

    /// Notes that `index` is taken.
    pub(crate) fn set(&mut self, folder: &Folder, index: u64) -> Result<(), IoError> {
        let (offset, bit) = place(index);
        if offset / PAGE as u64 != self.page_number {
            self.read_page(folder, offset / PAGE as u64)?;
        }
        let byte = &mut self.page[within_page(offset)];
        if *byte & bit != 0 {
            return Ok(());
        }
        *byte |= bit;
        let noted = [*byte];
        folder.write_at(&self.fd, &noted, offset, &self.name)
    }

    /// Lets the next search start after `index`. `turn` is higher than that of the set's other ranges.
    pub(crate) fn advance(&mut self, folder: &Folder, index: u64, turn: u64) -> Result<(), IoError> {
        self.standing = Standing { cursor: index + 1, turn, ..self.standing };
        self.write_header(folder)
    }

    /// Builds the map anew from the claims.
    pub(crate) fn rebuild(&mut self, folder: &Folder) -> Result<(), IoError> {
        let claims = folder.names(CLAIMS)?;
        let windows = self.windows_of(claims.iter().filter_map(|name| name.parse().ok()));
        self.write_map(folder, &windows)
    }

    /// Builds the map anew if it differs from `claims`, which are all there are; whether it did.
    pub(crate) fn correct(
        &mut self,
        folder: &Folder,
        claims: impl Iterator<Item = Claim>,
    ) -> Result<bool, IoError> {
        let windows = self.windows_of(claims);
        let length = folder.length(&self.fd, &self.name)?;
        // A long file is mostly what once was taken: written anew it is short.
        let mut agrees = length < LONG;
        let written = length.saturating_sub(MAP_OFFSET).div_ceil(MAP_OFFSET);
        let numbers = windows.keys().copied().filter(|&number| number >= written).chain(0..written.min(LONG));
        for number in numbers {
            if !agrees {
                break;
            }
            agrees = self.window(folder, number)? == *windows.get(&number).unwrap_or(&[0; WINDOW_BYTES]);
        }
        if !agrees {
            self.write_map(folder, &windows)?;
        }
        Ok(!agrees)
    }

    fn windows_of(&self, claims: impl Iterator<Item = Claim>) -> BTreeMap<u64, Window> {
        let mut windows: BTreeMap<u64, Window> = BTreeMap::new();
        let indexes = claims.filter_map(|claim| match claim {
            Claim::Address(address) => self.addresses.index_of(address),
            Claim::HostPort { .. } => None,
        });
        for index in indexes {
            let window = windows.entry(index / WINDOW_INDEXES).or_insert([0; WINDOW_BYTES]);
            let (offset, bit) = place(index);
            window[usize::try_from(offset % MAP_OFFSET).unwrap_or(0)] |= bit;
        }
        windows
    }

    fn write_map(&mut self, folder: &Folder, windows: &BTreeMap<u64, Window>) -> Result<(), IoError> {
        folder.empty(&self.fd, &self.name)?;
        for (number, window) in windows {
            folder.write_at(&self.fd, window, MAP_OFFSET * (number + 1), &self.name)?;
        }
        // Written last: a hint with a header is complete.
        self.write_header(folder)?;
        self.read_page(folder, 0)
    }

    fn read_page(&mut self, folder: &Folder, number: u64) -> Result<(), IoError> {
        // A regular file gives less than was asked for at its end only; beyond it, all is free.
        let length = folder.read_at(&self.fd, &mut self.page[..], number * PAGE as u64, &self.name)?;
        self.page[length..].fill(0);
        self.page_number = number;
        Ok(())
    }

    /// Takes cursor and turn from page 0; `false` where it holds no header.
    fn read_header(&mut self) -> bool {
        let (words, _) = self.page.as_chunks::<8>();
        let (magic, cursor, turn) = (words[0], u64::from_le_bytes(words[1]), u64::from_le_bytes(words[2]));
        if magic != *MAGIC || cursor > self.standing.indexes {
            return false;
        }
        self.standing = Standing { cursor, turn, ..self.standing };
        true
    }

    fn write_header(&self, folder: &Folder) -> Result<(), IoError> {
        let mut header = [0; 24];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.standing.cursor.to_le_bytes());
        header[16..].copy_from_slice(&self.standing.turn.to_le_bytes());
        folder.write_at(&self.fd, &header, 0, &self.name)
    }
}

/// Notes that `index` of `addresses` is free. A hint that does not exist needs no note.
pub(crate) fn clear(folder: &Folder, addresses: &AddressRange, index: u64) -> Result<(), IoError> {
    let name = name_of(addresses);
    let Some(fd) = folder.open_to_write(&name)? else { return Ok(()) };
    let (offset, bit) = place(index);
    let mut byte = [0];
    folder.read_at(&fd, &mut byte, offset, &name)?;
    if byte[0] & bit == 0 { Ok(()) } else { folder.write_at(&fd, &[byte[0] & !bit], offset, &name) }
}

fn name_of(addresses: &AddressRange) -> String {
    format!("{RANGES}/{addresses}")
}

/// Where in its page the file's byte at `offset` lies.
fn within_page(offset: u64) -> usize {
    usize::try_from(offset % PAGE as u64).unwrap_or(0)
}

/// The byte and the bit that stand for `index`.
fn place(index: u64) -> (u64, u8) {
    (MAP_OFFSET + index / 8, 1 << (index % 8))
}
