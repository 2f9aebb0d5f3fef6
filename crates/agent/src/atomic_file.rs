//! Files that are whole at every instant: written under another name, synced, renamed, and the folder synced.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Temporary names begin so; runtimes ignore dot files, and names that do not end in `.conf` or `.conflist`.
const TEMPORARY: &str = ".hostgw-";

/// A file that could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempted} {}: {source}{}", path.display(), remedy(source))]
pub struct FileError {
    /// Such as `write`, `read` or `remove`.
    pub attempted: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { "; run it as root" } else { "" }
}

impl FileError {
    pub(crate) fn new(attempted: &'static str, path: &Path, source: io::Error) -> Self {
        Self { attempted, path: path.to_owned(), source }
    }
}

/// Whether a file of this name is one of our half-written ones.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(TEMPORARY) && name.ends_with(".new"))
}

/// Puts `contents` at `path`, making folders as needed. Whoever reads sees the old file or the new one.
pub(crate) fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::new("write", path, source);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return Err(failed(io::Error::other("it is no path of a file")));
    };
    fs::create_dir_all(folder).map_err(failed)?;
    // One writer: a name that does not change leaves at most one file behind, which the next write replaces.
    let temporary = folder.join(format!("{TEMPORARY}{name}.new"));
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}

/// Makes `path` one more name of the file at `original`, on the same file system, whatever it was before.
pub(crate) fn replace_by_link(original: &Path, path: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::new("write", path, source);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return Err(failed(io::Error::other("it is no path of a file")));
    };
    let temporary = folder.join(format!("{TEMPORARY}{name}.new"));
    remove(&temporary)?;
    let link = || -> io::Result<()> {
        fs::hard_link(original, &temporary)?;
        fs::rename(&temporary, path)?;
        // To rename a link over another one of the same file does nothing at all.
        fs::remove_file(&temporary).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        File::open(folder)?.sync_all()
    };
    link().map_err(failed)
}

/// Moves a file of the same file system to `path`, in the place of whatever is there.
pub(crate) fn move_over(file: &Path, path: &Path) -> Result<(), FileError> {
    let sync = |path: &Path| path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all());
    let moved = fs::rename(file, path).and_then(|()| sync(path)).and_then(|()| sync(file));
    moved.map_err(|source| FileError::new("write", path, source))
}

/// Opens a regular file to be read. Anything else is refused, and never waited for: to open a FIFO blocks until
/// somebody writes to it.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Reads a file of at most `limit` bytes; `None` where there is none.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    let mut bytes = Vec::new();
    match open_regular(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)) {
        Ok(read) if read as u64 > limit => {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes"));
            Err(FileError::new("read", path, source))
        }
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::new("read", path, source)),
    }
}

/// Removes a file; one that is gone is well. Whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::new("remove", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.conflist");
        replace(&path, b"one", 0o644).unwrap();
        replace(&path, b"two", 0o644).unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
        assert!(read(&path, 2).unwrap_err().to_string().contains("longer than 2 bytes"));
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        assert!(read(&path, 10).unwrap_err().to_string().contains("no regular file"));
    }

    #[test]
    fn a_folder_that_is_a_file_gives_an_error_that_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = replace(&folder.path().join("file/x"), b"", 0o644).unwrap_err();
        assert!(error.to_string().contains("file/x"), "{error}");
    }
}
