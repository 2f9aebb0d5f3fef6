//! Kernel settings below `/proc/sys`, read and written in the calling thread's namespaces.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::KernelError;

/// Where the settings are: `/proc/sys`, or where a container has the host's mounted.
#[derive(Clone, Debug)]
pub struct Sysctls {
    root: PathBuf,
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
        Self { root: root.into() }
    }

    /// The value of `key` (`net/ipv4/ip_forward`), without the newline; `None` where this kernel has no such key.
    pub fn read(&self, key: &str) -> Result<Option<String>, KernelError> {
        match fs::read_to_string(self.path(key)) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) => match errno(&error) {
                Errno::NOENT => Ok(None),
                errno => Err(KernelError::new(format!("read sysctl {key}"), errno)),
            },
        }
    }

    /// Which boot of the machine this is (random(4)); empty where the kernel does not say. It can always be read below
    /// `/proc/sys`, also where only the network's settings are mounted elsewhere.
    pub fn boot_id(&self) -> Result<String, KernelError> {
        Ok(self.read("kernel/random/boot_id")?.unwrap_or_default())
    }

    /// Sets `key` to `value`.
    pub fn write(&self, key: &str, value: &str) -> Result<(), KernelError> {
        fs::OpenOptions::new()
            .write(true)
            .open(self.path(key))
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|error| KernelError::new(format!("set sysctl {key} to {value}"), errno(&error)))
    }

    /// A link's name may hold dots, so keys are paths, never dotted names.
    fn path(&self, key: &str) -> PathBuf {
        self.root.join(Path::new(key.trim_start_matches('/')))
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
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
