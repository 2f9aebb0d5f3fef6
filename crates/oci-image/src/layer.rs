//! The image's one layer: a compressed archive of the programs, with all that could differ between two builds fixed.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use crate::image::Program;
use crate::layout::digest;

/// A layer, as it is stored.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The compressed archive.
    pub(crate) blob: Vec<u8>,
    /// The digest of the archive before compression, which the configuration names.
    pub(crate) diff_id: String,
}

/// Packs the programs, in the order of their names.
pub(crate) fn pack(programs: &[Program]) -> io::Result<Layer> {
    let mut archive = tar::Builder::new(Vec::new());
    for program in programs {
        append(&mut archive, &program.name, &program.contents)?;
    }
    let archive = archive.into_inner()?;
    let diff_id = digest(&archive);
    // 255: no operating system. A builder has no time unless it is given one.
    let mut compressor = GzBuilder::new().operating_system(255).write(Vec::new(), Compression::default());
    compressor.write_all(&archive)?;
    Ok(Layer { blob: compressor.finish()?, diff_id })
}

/// Adds a file that belongs to root and has no age.
pub(crate) fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, contents: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o755);
    header.set_size(contents.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, name, contents)
}
