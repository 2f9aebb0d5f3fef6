//! From what went wrong below to the specification's error codes.

use attachment::{IoError, ReleaseError, ReserveError};
use cni_spec::{CniError, ErrorCode};
use kernel::KernelError;
use rustix::io::Errno;

use crate::host_ports::HostPortError;
use crate::wiring::WiringError;

/// The kernel's refusal, with what may be done about the usual ones.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn kernel_refused(error: KernelError) -> CniError {
    let remedy = match error.errno {
        Errno::PERM => "the plugin needs CAP_NET_ADMIN and CAP_SYS_ADMIN on the node",
        Errno::EXIST => {
            "something else has it already, on the node or in the pod: see `ip route` and `ip address` there"
        }
        Errno::NOBUFS | Errno::NOMEM => "the node is short of memory",
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT => {
            "this kernel lacks a feature that the configuration asks for"
        }
        _ => "",
    };
    let refused = CniError::new(ErrorCode::KernelRefused, error.to_string());
    if remedy.is_empty() { refused } else { refused.with_details(remedy) }
}

/// Why a pod's link could not be made.
pub(crate) fn wiring_failed(error: WiringError) -> CniError {
    let code = match &error {
        WiringError::InterfaceExists(_) | WiringError::HostLinkExists(_) => ErrorCode::InterfaceExists,
        WiringError::AddressInUse(_) | WiringError::AddressHeld { .. } => ErrorCode::AddressTaken,
        WiringError::NotABridge { .. } | WiringError::NoLanLink { .. } => ErrorCode::InvalidNetworkConfig,
        WiringError::NotReady { .. } => ErrorCode::TryAgainLater,
        WiringError::Kernel(_) => ErrorCode::KernelRefused,
    };
    match error {
        WiringError::Kernel(error) => kernel_refused(error),
        other => CniError::new(code, other.to_string()),
    }
}

/// Why nothing could be reserved.
pub(crate) fn reserve_failed(error: &ReserveError) -> CniError {
    let code = match error {
        ReserveError::Exhausted { .. } => ErrorCode::RangeExhausted,
        ReserveError::AddressTaken { .. } => ErrorCode::AddressTaken,
        ReserveError::HostPortTaken { .. } => ErrorCode::HostPortTaken,
        ReserveError::AttachmentExists { in_progress: true, .. } => ErrorCode::TryAgainLater,
        ReserveError::AttachmentExists { .. } => ErrorCode::AttachmentExists,
        ReserveError::OutsideRanges { .. }
        | ReserveError::SecondOfSet { .. }
        | ReserveError::Excluded { .. }
        | ReserveError::HostPortTwice { .. } => ErrorCode::InvalidNetworkConfig,
        ReserveError::Render { .. } => ErrorCode::Internal,
        ReserveError::Io(error) => store_code(error),
    };
    CniError::new(code, error.to_string())
}

/// Why an attachment could not be released.
pub(crate) fn release_failed(error: &ReleaseError) -> CniError {
    let code = match error {
        ReleaseError::InProgress { .. } => ErrorCode::TryAgainLater,
        ReleaseError::Io(error) => store_code(error),
    };
    CniError::new(code, error.to_string())
}

/// Why the store could not be read or changed.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn store_failed(error: IoError) -> CniError {
    CniError::new(store_code(&error), error.to_string())
}

/// A lock that somebody keeps is no fault of the disk: the runtime calls again, DEL above all.
fn store_code(error: &IoError) -> ErrorCode {
    if error.is_lock_held() { ErrorCode::TryAgainLater } else { ErrorCode::Io }
}

/// A failed read or write.
pub(crate) fn io_failed(attempted: &str, error: &std::io::Error) -> CniError {
    CniError::new(ErrorCode::Io, format!("failed to {attempted}: {error}"))
}

/// Why host ports could not be opened.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn host_ports_failed(error: HostPortError) -> CniError {
    let code = match &error {
        HostPortError::Taken { .. } => ErrorCode::HostPortTaken,
        HostPortError::Kernel { .. } => ErrorCode::KernelRefused,
    };
    CniError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_lock_that_is_kept_means_later_and_a_full_disk_does_not() {
        let code = |cause: io::Error| {
            let error = || IoError {
                attempted: "lock",
                path: "/run/hostgw/ipam/pods/lock".into(),
                cause: io::Error::from(cause.kind()),
            };
            let codes = [
                store_failed(error()).code,
                release_failed(&ReleaseError::Io(error())).code,
                reserve_failed(&ReserveError::Io(error())).code,
            ];
            assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
            codes[0]
        };
        assert_eq!(code(io::ErrorKind::TimedOut.into()), ErrorCode::TryAgainLater);
        assert_eq!(code(io::ErrorKind::StorageFull.into()), ErrorCode::Io);
    }
}
