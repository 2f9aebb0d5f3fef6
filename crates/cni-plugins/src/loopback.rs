//! The plugin `loopback`: runtimes run it for every pod, to set `lo` up.

use std::path::Path;

use cni_spec::{AttachResult, BaseConf, CniError, ErrorCode, Interface, IpConfig};
use kernel::address::{self, Address};
use kernel::link;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;

use crate::answer::Answer;
use crate::failure::{io_failed, kernel_refused};

/// Every network namespace is born with its loopback link as number 1.
const LOOPBACK_INDEX: u32 = 1;

/// Sets the link up and answers with its addresses, or passes on what an earlier plugin answered.
pub(crate) fn add(netns: &Path, conf: &BaseConf, answer: &mut Answer) -> Result<(), CniError> {
    let addresses = inside(netns, || -> Result<Vec<Address>, kernel::KernelError> {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        link::set_up(&mut batch, LOOPBACK_INDEX);
        socket.execute_all(&mut batch)?;
        address::dump_of(&mut socket, LOOPBACK_INDEX)
    })?;
    let result = match conf.prev_result()? {
        Some(passed_on) => passed_on,
        None => result(netns, &addresses),
    };
    let json = result.to_json(conf.cni_version)?;
    answer.give(&json).map_err(|error| io_failed("write the result to standard output", &error))
}

/// Sets the link down; a namespace that is gone, or of which only the mount point is left, is well.
pub(crate) fn del(netns: Option<&Path>) -> Result<(), CniError> {
    let Some(netns) = netns else { return Ok(()) };
    let down = inside(netns, || {
        let mut batch = Batch::new();
        link::set_down(&mut batch, LOOPBACK_INDEX);
        Socket::open(Protocol::Route)?.execute_all(&mut batch)
    });
    match down {
        Err(error) => match error.code {
            ErrorCode::InvalidNetworkNamespace => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

/// Verifies that the link is up.
pub(crate) fn check(netns: &Path) -> Result<(), CniError> {
    let found = inside(netns, || link::by_index(&mut Socket::open(Protocol::Route)?, LOOPBACK_INDEX))?;
    match found {
        Some(link) if link.is_up() => Ok(()),
        _ => Err(CniError::new(
            ErrorCode::CheckFailed,
            format!("`lo` in {} is down: set it up, or delete the pod", netns.display()),
        )),
    }
}

fn inside<T>(netns: &Path, work: impl FnOnce() -> Result<T, kernel::KernelError>) -> Result<T, CniError> {
    let own = NetNs::current().map_err(kernel_refused)?;
    let pod = NetNs::open(netns).map_err(|error| {
        CniError::new(
            ErrorCode::InvalidNetworkNamespace,
            format!("`CNI_NETNS`: {error}; let the runtime make the pod anew"),
        )
    })?;
    if pod.id().map_err(kernel_refused)? == own.id().map_err(kernel_refused)? {
        return Err(CniError::new(
            ErrorCode::InvalidNetworkNamespace,
            format!("`CNI_NETNS` {} is the node's own network namespace: give the pod's", netns.display()),
        ));
    }
    pod.run_from(&own, work).and_then(|done| done).map_err(kernel_refused)
}

fn result(netns: &Path, addresses: &[Address]) -> AttachResult {
    let mut held: Vec<_> = addresses.iter().map(|address| address.ip).collect();
    held.sort_by_key(|ip| ip.addr().is_ipv6());
    held.dedup_by_key(|ip| ip.addr().is_ipv6());
    AttachResult {
        interfaces: vec![Interface {
            name: "lo".to_owned(),
            mac: Some("00:00:00:00:00:00".to_owned()),
            sandbox: Some(netns.to_string_lossy().into_owned()),
            ..Interface::default()
        }],
        ips: held
            .into_iter()
            .map(|address| IpConfig { interface: Some(0), address, gateway: None })
            .collect(),
        ..AttachResult::default()
    }
}
