//! The two network namespaces of a call: the node's, in which the plugin runs, and the pod's.

use std::path::Path;

use cni_spec::{CniError, ErrorCode};
use kernel::KernelError;
use kernel::netns::{NetNs, NetNsId};
use rustix::io::Errno;

use crate::failure::kernel_refused;

/// The node's and the pod's namespaces.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) node: NetNs,
    pub(crate) pod: NetNs,
    pub(crate) pod_id: NetNsId,
}

impl Namespaces {
    /// Opens both, and refuses a pod that would be the node itself.
    pub(crate) fn open(pod_path: &Path, may_be_node: bool) -> Result<Self, CniError> {
        let node = NetNs::current().map_err(kernel_refused)?;
        let pod = NetNs::open(pod_path).map_err(|error| namespace_error(pod_path, &error))?;
        let pod_id = pod.id().map_err(kernel_refused)?;
        if pod_id == node.id().map_err(kernel_refused)? && !may_be_node {
            return Err(CniError::new(
                ErrorCode::InvalidNetworkNamespace,
                format!(
                    "`CNI_NETNS` {} is the node's own network namespace: a pod of the host network is not attached; \
                     give the pod's",
                    pod_path.display()
                ),
            ));
        }
        Ok(Self { node, pod, pod_id })
    }
}

/// One code for a namespace that is gone and a path that is none: the specification has none of its own for either, and
/// the reference library's 8 says what the runtime must know. Code 3 would tell it that DEL is not needed, while an
/// earlier ADD of this very attachment may have left something.
fn namespace_error(path: &Path, error: &KernelError) -> CniError {
    let path = path.display();
    match error.errno {
        Errno::NOENT => CniError::new(
            ErrorCode::InvalidNetworkNamespace,
            format!("`CNI_NETNS` {path} does not exist: the pod is gone; let the runtime make a new one"),
        ),
        Errno::INVAL => CniError::new(
            ErrorCode::InvalidNetworkNamespace,
            format!("`CNI_NETNS` {path} is no network namespace: its mount is missing, or the path is wrong"),
        ),
        _ => CniError::new(ErrorCode::InvalidNetworkNamespace, format!("`CNI_NETNS`: {error}")),
    }
}
