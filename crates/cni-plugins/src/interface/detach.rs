//! DEL, and the undoing of an ADD that failed: the link first, then what hangs on it, the addresses last; but first
//! what is given back by a word on that very link.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use attachment::{Attachment, NetworkName};
use cni_spec::{AttachmentCall, CniError, ErrorCode, InterfaceConf};
use kernel::KernelError;
use kernel::address;
use kernel::link::{self, Link};
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;

use super::{host_link_name, ipam_of};
use crate::bridge::spoof_check;
use crate::call::Call;
use crate::failure::{kernel_refused, wiring_failed};
use crate::ipam::Ipam;
use crate::living::addresses_of;
use crate::masquerade::Masquerade;
use crate::wiring::{WiringError, delete_link};

/// What an attachment may have besides its link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belongings {
    /// Masquerading of what it sends.
    pub(crate) masquerade: bool,
    /// A check of the Ethernet address that it sends with.
    pub(crate) spoof_check: bool,
}

/// Serves DEL. A configuration of which a part cannot be read is no reason to keep anything.
pub(crate) fn del(
    call: &Call<'_>,
    pod: &AttachmentCall<Option<PathBuf>>,
    spoof_check: bool,
) -> Result<(), CniError> {
    let namespace = pod.netns.as_deref().map_or(Ok(None), |path| open(path, pod.netns_override))?;
    let masquerade = InterfaceConf::parse(call.stdin).map_or(true, |conf| conf.ip_masq);
    let ipam = ipam_of(call.stdin);
    let belongings = Belongings { masquerade, spoof_check };
    let released = match &ipam {
        Ok(Some(ipam)) if ipam.asks_on_link() => Some(ipam.del(call, pod, &[])),
        _ => None,
    };
    let known = remove(call, pod, namespace.as_ref(), belongings)?;
    match released {
        Some(released) => released,
        None => ipam?.map_or(Ok(()), |ipam| ipam.del(call, pod, &known)),
    }
}

/// Takes back all that a failed ADD made; the error that the runtime gets to see.
pub(crate) fn detach<N>(
    cause: CniError,
    call: &Call<'_>,
    pod: &AttachmentCall<N>,
    (namespace, ipam): (&NetNs, Option<&Ipam>),
    belongings: Belongings,
) -> CniError {
    let released = ipam.filter(|ipam| ipam.asks_on_link()).map(|ipam| ipam.del(call, pod, &[]));
    let removed = remove(call, pod, Some(namespace), belongings);
    let undone = removed.and_then(|known| match (released, ipam) {
        (Some(released), _) => released,
        (None, Some(ipam)) => ipam.del(call, pod, &known),
        (None, None) => Ok(()),
    });
    match undone {
        Ok(()) => cause,
        Err(error) => {
            let details = format!("{} not all could be undone, DEL will: {error}", cause.details);
            cause.with_details(details.trim_start())
        }
    }
}

/// The pod's namespace, unless it is gone; the node's own is refused, whose interface of that name is not the pod's.
fn open(path: &Path, may_be_node: bool) -> Result<Option<NetNs>, CniError> {
    let Ok(namespace) = NetNs::open(path) else { return Ok(None) };
    let own = NetNs::current().and_then(|own| own.id()).map_err(kernel_refused)?;
    if namespace.id().map_err(kernel_refused)? == own && !may_be_node {
        return Err(CniError::new(
            ErrorCode::InvalidNetworkNamespace,
            format!("`CNI_NETNS` {} is the node's own network namespace: give the pod's", path.display()),
        ));
    }
    Ok(Some(namespace))
}

/// Removes everything but the addresses' reservation; the addresses that the link had.
fn remove<N>(
    call: &Call<'_>,
    pod: &AttachmentCall<N>,
    namespace: Option<&NetNs>,
    belongings: Belongings,
) -> Result<Vec<IpAddr>, CniError> {
    let (network, attachment) = (&call.base.name, &pod.attachment);
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let removed = remove_link(&mut host, network, attachment, namespace);
    let mut failed: Vec<CniError> = Vec::new();
    if belongings.spoof_check {
        failed.extend(spoof_check::remove(attachment).map_err(kernel_refused).err());
    }
    if belongings.masquerade {
        failed.extend(Masquerade { network, attachment }.remove().err());
    }
    let known = removed.map_err(|error| wiring_failed(WiringError::Kernel(error)))?;
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(known),
    }
}

/// Removes the pair: by the name that the node's end has from us, else by the pod's end, which the reference may have
/// made.
fn remove_link(
    host: &mut Socket,
    network: &NetworkName,
    attachment: &Attachment,
    namespace: Option<&NetNs>,
) -> Result<Vec<IpAddr>, KernelError> {
    let is_veth = |link: &Link| link.kind.as_deref() == Some("veth");
    let own = match host_link_name(network, attachment) {
        Ok(name) => link::by_name(host, name.as_str())?.filter(is_veth),
        Err(_) => None,
    };
    if let Some(link) = own {
        // Without them the IPAM plugin only has to look longer.
        let held = addresses_of(host, &link).unwrap_or_default();
        delete_link(host, link.index, None)?;
        return Ok(held.into_iter().map(|ip| ip.addr()).collect());
    }
    let Some(namespace) = namespace else { return Ok(Vec::new()) };
    namespace.run(|| {
        let mut inside = Socket::open(Protocol::Route)?;
        let Some(link) = link::by_name(&mut inside, attachment.ifname().as_str())?.filter(is_veth) else {
            return Ok(Vec::new());
        };
        let held = address::dump_of(&mut inside, link.index)?;
        let held = held.into_iter().map(|held| held.ip.addr()).collect();
        delete_link(&mut inside, link.index, None)?;
        Ok(held)
    })?
}
