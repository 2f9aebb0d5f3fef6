//! The IPAM plugin `dhcp`: the exchange is on the link that another plugin has made in the pod.

use std::collections::HashSet;

use attachment::{Attachment, MacAddress, Netns, NetworkName};
use cni_spec::{
    AttachResult, AttachmentCall, CallEnvironment, CniError, DhcpPluginConf, ErrorCode, GcRequest, IpConfig,
    StoreConf,
};
use ipnet::IpNet;
use kernel::link::{self, Link};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::acquire::{Applicant, Place, acquire, mac_of, now, store_failed};
use super::give_back::give_back;
use super::lease::{Lease, PodLink};
use super::store::LeaseStore;
use super::terms::{dns, routes};
use crate::answer::Answer;
use crate::call::Call;
use crate::failure::{io_failed, kernel_refused};

/// Serves one call of the plugin.
pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    match call.environment {
        CallEnvironment::Add(pod) => {
            let conf = DhcpPluginConf::parse(call.stdin)?;
            let json = add(&conf, pod, answer)?.to_json(conf.base.cni_version)?;
            answer.give(&json).map_err(|error| {
                // Nobody knows what was lent.
                release_of(&conf.dhcp.lease_dir, &conf.base.name, &pod.attachment).ok();
                io_failed("write the result to standard output", &error)
            })
        }
        CallEnvironment::Check(pod) => check(&DhcpPluginConf::parse(call.stdin)?, &pod.attachment),
        CallEnvironment::Del(pod) => del(&StoreConf::parse(call.stdin)?, &pod.attachment),
        CallEnvironment::Gc => gc(&GcRequest::parse(call.stdin)?),
        CallEnvironment::Status => DhcpPluginConf::parse(call.stdin).map(|_| ()),
        CallEnvironment::Version => Ok(()),
    }
}

/// Gives what a lease says to the link that is in the pod.
pub(crate) fn add(
    conf: &DhcpPluginConf,
    call: &AttachmentCall<PathBuf>,
    answer: &mut Answer,
) -> Result<AttachResult, CniError> {
    lease(conf, call, answer).map(|lease| result(conf, &lease))
}

/// Takes a lease, or gives the one that the attachment has, as the reference does.
fn lease(
    conf: &DhcpPluginConf,
    call: &AttachmentCall<PathBuf>,
    answer: &mut Answer,
) -> Result<Lease, CniError> {
    let (network, attachment) = (&conf.base.name, &call.attachment);
    let store = LeaseStore::new(&conf.dhcp.lease_dir, network);
    let netns = NetNs::open(&call.netns).map_err(|error| {
        CniError::new(ErrorCode::InvalidNetworkNamespace, format!("`CNI_NETNS`: {error}"))
    })?;
    let id = netns.id().map_err(kernel_refused)?;
    let pod_link = PodLink {
        netns: Netns { path: call.netns.to_string_lossy().into_owned(), dev: id.device, inode: id.inode },
        link: attachment.ifname().clone(),
    };
    if let Some(lease) = store.find(attachment).map_err(store_failed)?
        && lease.confirmed
        && lease.pod_link.as_ref() == Some(&pod_link)
        && now() < lease.bound_at() + std::time::Duration::from_secs(lease.terms.lease_seconds.into())
    {
        return Ok(lease);
    }
    let acquired = netns.run(|| -> Result<Lease, CniError> {
        let link = ready_link(&call.netns, attachment)?;
        let mac = MacAddress::new(mac_of(&link)?)
            .map_err(|error| CniError::new(ErrorCode::InvalidNetworkConfig, error.to_string()))?;
        let applicant = Applicant {
            conf: &conf.dhcp,
            network,
            attachment,
            args: &call.args,
            mac: Some(mac),
            wished: None,
            place: Place::Pod(pod_link.clone()),
            holder_here: &|_, _| Ok(None),
        };
        acquire(&applicant, &link, answer)
    });
    acquired.map_err(kernel_refused)?
}

/// The pod's link, set up where nobody has done that.
fn ready_link(netns: &Path, attachment: &Attachment) -> Result<Link, CniError> {
    let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let name = attachment.ifname();
    let link = link::by_name(&mut socket, name.as_str()).map_err(kernel_refused)?.ok_or_else(|| {
        CniError::new(
            ErrorCode::InvalidEnvironment,
            format!(
                "`CNI_IFNAME`: there is no link `{name}` in {}: `dhcp` gives an address to a link that a main plugin has \
                 made before",
                netns.display()
            ),
        )
    })?;
    if !link.is_up() {
        let mut batch = Batch::new();
        link::set_up(&mut batch, link.index);
        socket.execute_all(&mut batch).map_err(kernel_refused)?;
    }
    Ok(link)
}

fn result(conf: &DhcpPluginConf, lease: &Lease) -> AttachResult {
    let terms = &lease.terms;
    let ip = IpConfig {
        interface: None,
        address: IpNet::V4(terms.address),
        gateway: terms.default_gateway().or(terms.router).map(IpAddr::V4),
    };
    AttachResult {
        ips: vec![ip],
        routes: routes(&conf.dhcp, terms, terms.default_gateway()),
        dns: dns(terms),
        ..AttachResult::default()
    }
}

/// Verifies that the attachment has a lease, and which.
pub(crate) fn check(conf: &DhcpPluginConf, attachment: &Attachment) -> Result<(), CniError> {
    let store = LeaseStore::new(&conf.dhcp.lease_dir, &conf.base.name);
    let failed = |reason: String| Err(CniError::new(ErrorCode::CheckFailed, reason));
    let Some(lease) = store.find(attachment).map_err(store_failed)?.filter(|lease| lease.confirmed) else {
        return failed(format!(
            "attachment {attachment} has no lease: delete the pod, so that its controller makes a new one"
        ));
    };
    let address = lease.terms.address.addr();
    let ends = lease.bound_at() + std::time::Duration::from_secs(lease.terms.lease_seconds.into());
    if lease.terms.lease_seconds != u32::MAX && now() >= ends {
        return failed(format!(
            "the lease of {address} has ended: is the DHCP server {} up, and does an agent prolong leases here?",
            lease.terms.server
        ));
    }
    if let Some(expected) = conf.base.prev_result()?
        && !expected.ips.iter().any(|ip| ip.address.addr() == IpAddr::V4(address))
    {
        return failed(format!(
            "the lease of {attachment} is of {address}, which `prevResult` does not name"
        ));
    }
    Ok(())
}

/// Gives back what the attachment was lent.
pub(crate) fn del(conf: &StoreConf, attachment: &Attachment) -> Result<(), CniError> {
    release_of(&conf.lease_dir, &conf.base.name, attachment)
}

/// Gives back what an attachment was lent, if anything.
pub(crate) fn release_of(
    lease_dir: &Path,
    network: &NetworkName,
    attachment: &Attachment,
) -> Result<(), CniError> {
    let store = LeaseStore::new(lease_dir, network);
    match store.find(attachment).map_err(store_failed)? {
        Some(lease) => give_back(&store, &lease).map_err(store_failed),
        None => Ok(()),
    }
}

/// Gives back what attachments were lent that are not valid.
pub(crate) fn gc(request: &GcRequest) -> Result<(), CniError> {
    if request.disabled {
        return Ok(());
    }
    let valid: HashSet<&Attachment> = request.valid.iter().collect();
    let store = LeaseStore::new(&request.store.lease_dir, &request.store.base.name);
    for path in store.files().map_err(store_failed)? {
        match LeaseStore::read(&path).map_err(store_failed)? {
            Some(lease) if valid.contains(&lease.attachment) => {}
            Some(lease) => give_back(&store, &lease).map_err(store_failed)?,
            None => store.discard(&path).map_err(store_failed)?,
        }
    }
    Ok(())
}
