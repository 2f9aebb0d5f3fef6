//! What went wrong between us and the kernel: what was attempted, and the kernel's own words.

use rustix::io::Errno;

/// A request that the kernel refused, or a talk with it that broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to {attempted}: {}{}", reason(*.errno), .kernel_says.as_ref().map(|says| format!(" ({says})")).unwrap_or_default())]
pub struct KernelError {
    /// What was attempted, as a phrase that follows "failed to".
    pub attempted: String,
    /// The error number.
    pub errno: Errno,
    /// The extended acknowledgement (`NLMSGERR_ATTR_MSG`), where the kernel gave one.
    pub kernel_says: Option<String>,
}

impl KernelError {
    /// An error without the kernel's extended words.
    #[must_use]
    pub fn new(attempted: impl Into<String>, errno: Errno) -> Self {
        Self { attempted: attempted.into(), errno, kernel_says: None }
    }

    /// The same error, about something said more precisely.
    #[must_use]
    pub fn attempting(mut self, attempted: impl Into<String>) -> Self {
        self.attempted = attempted.into();
        self
    }

    /// Whether the thing that was named does not exist (any more).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.errno, Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::SRCH | Errno::ADDRNOTAVAIL)
    }

    /// Whether the thing that was to be made is there already.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.errno == Errno::EXIST
    }

    /// Whether the process lacks a capability.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self.errno, Errno::PERM | Errno::ACCESS)
    }
}

/// The kernel's text for an error number, without Rust's "(os error N)".
fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Why the last call into libc by this thread failed.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_attempted_and_what_the_kernel_answered() {
        let mut error = KernelError::new("replace 10.244.1.0/24 via 192.0.2.9", Errno::NETUNREACH);
        assert_eq!(
            error.to_string(),
            "failed to replace 10.244.1.0/24 via 192.0.2.9: network is unreachable"
        );
        error.kernel_says = Some("Nexthop has invalid gateway".into());
        assert!(error.to_string().ends_with("network is unreachable (Nexthop has invalid gateway)"));
    }
}
