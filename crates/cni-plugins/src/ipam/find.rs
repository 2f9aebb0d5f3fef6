//! Which file on `CNI_PATH` a plugin's name means, and whether that is this program.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cni_spec::{CniError, ErrorCode};

/// The plugins that this program can run in its own process.
const OWN: [&str; 3] = ["host-local", "static", "dhcp"];

/// The file to execute; none where it is this very program, and the plugin one of those that it runs itself.
pub(super) fn find(name: &str) -> Result<Option<PathBuf>, CniError> {
    let folders = std::env::var_os("CNI_PATH").unwrap_or_default();
    if folders.is_empty() && OWN.contains(&name) {
        return Ok(None);
    }
    match on_path(&folders, name) {
        Some((_, found)) if OWN.contains(&name) && is_this_program(&found) => Ok(None),
        Some((file, _)) => Ok(Some(file)),
        None => Err(CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!(
                "`ipam.type` is `{name}`, but no file of that name is in CNI_PATH {}: install the plugin there",
                folders.display()
            ),
        )),
    }
}

/// The first of the folders that has such a file, and what is known of that.
fn on_path(folders: &OsStr, name: &str) -> Option<(PathBuf, Metadata)> {
    std::env::split_paths(folders).map(|folder| folder.join(name)).find_map(|file| {
        let found = std::fs::metadata(&file).ok().filter(Metadata::is_file)?;
        Some((file, found))
    })
}

/// A hard link or a symbolic link to the file that runs. A copy is executed, which only takes longer. Runtimes execute
/// plugins by their paths; to look such a one up costs less than what is below `/proc`.
fn is_this_program(file: &Metadata) -> bool {
    let is_it = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
    };
    let executed = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
    executed.is_some_and(|executed| is_it(&executed)) || is_it(Path::new("/proc/self/exe"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_the_file_counts_and_a_link_to_this_program_is_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        for folder in [&first, &second] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::create_dir(first.join("static")).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", second.join("static")).unwrap();
        let folders = std::env::join_paths([&first, &second]).unwrap();
        let (file, found) = on_path(&folders, "static").unwrap();
        assert_eq!(file, second.join("static"));
        assert!(is_this_program(&found));
        assert!(!is_this_program(&std::fs::metadata("/bin/sh").unwrap()));
        assert!(on_path(&folders, "host-local").is_none());
    }
}
