//! Kernel settings below `/proc/sys`, read and written in the calling thread's namespaces.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::KernelError;

/// Where the settings are: `/proc/sys`, where a container has the host's mounted, or a procfs that nobody else has.
#[derive(Clone, Debug)]
pub struct Sysctls {
    root: PathBuf,
    /// What `root` is relative to.
    mounted: Option<Arc<OwnedFd>>,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self::at("/proc/sys")
    }
}

impl Sysctls {
    /// Settings below `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), mounted: None }
    }

    /// `/proc/sys` of a procfs of one's own, which ends with the last clone; the ordinary one where none may be mounted
    /// (without `CAP_SYS_ADMIN`, before Linux 5.2).
    ///
    /// In one procfs the settings of all network namespaces stand behind the same names, in one chain of the dentry cache
    /// that is walked to its end for a namespace that is new, or old (`proc_sys_compare` in `fs/proc/proc_sysctl.c`): with
    /// a thousand namespaces, a millisecond for each file. A procfs of one's own takes a tenth of that, however many there
    /// are.
    #[must_use]
    pub fn apart() -> Self {
        let mount = || {
            let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(context.as_fd())?;
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        match mount() {
            Ok(mounted) => Self { root: PathBuf::from("sys"), mounted: Some(Arc::new(mounted)) },
            Err(_) => Self::default(),
        }
    }

    /// The value of `key` (`net/ipv4/ip_forward`), without the newline; `None` where this kernel has no such key.
    pub fn read(&self, key: &str) -> Result<Option<String>, KernelError> {
        match self.open(key, OFlags::RDONLY).and_then(|file| whole(&file)).map_err(|error| errno(&error)) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(KernelError::new(format!("read sysctl {key}"), errno)),
        }
    }

    /// Which boot of the machine this is (random(4)); empty where the kernel does not say. It can always be read below
    /// `/proc/sys`, also where only the network's settings are mounted elsewhere.
    pub fn boot_id(&self) -> Result<String, KernelError> {
        Ok(self.read("kernel/random/boot_id")?.unwrap_or_default())
    }

    /// Sets `key` to `value`.
    pub fn write(&self, key: &str, value: &str) -> Result<(), KernelError> {
        self.open(key, OFlags::WRONLY)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|error| KernelError::new(format!("set sysctl {key} to {value}"), errno(&error)))
    }

    /// A link's name may hold dots, so keys are paths, never dotted names.
    fn open(&self, key: &str, access: OFlags) -> std::io::Result<File> {
        let folder = self.mounted.as_ref().map_or(CWD, |mounted| mounted.as_fd());
        let path = self.root.join(Path::new(key.trim_start_matches('/')));
        Ok(openat(folder, path, access | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

/// What the file says. The kernel has a setting's size only once it is read: to ask for it beforehand, as the standard
/// library does, are two system calls for nothing.
fn whole(file: &File) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut part = [0; 1024];
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(file, &mut part))? {
            0 => break,
            length => text.extend_from_slice(&part[..length]),
        }
    }
    String::from_utf8(text).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_that_the_kernel_lacks_is_none_and_a_refused_value_names_key_and_value() {
        let folder = tempfile::tempdir().unwrap();
        let sysctls = Sysctls::at(folder.path());
        assert_eq!(sysctls.read("net/ipv4/ip_forward").unwrap(), None);
        let error = sysctls.write("net/ipv4/ip_forward", "1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to set sysctl net/ipv4/ip_forward to 1: no such file or directory"
        );
        fs::create_dir_all(folder.path().join("net/ipv4")).unwrap();
        fs::write(folder.path().join("net/ipv4/ip_forward"), "0\n").unwrap();
        sysctls.write("net/ipv4/ip_forward", "1").unwrap();
        assert_eq!(sysctls.read("net/ipv4/ip_forward").unwrap().as_deref(), Some("1"));
    }
}
