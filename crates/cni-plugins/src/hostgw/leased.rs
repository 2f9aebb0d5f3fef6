//! ADD where a DHCP server gives the address: a lease first, then the same as with a range that holds it alone.

use std::net::IpAddr;

use attachment::Netns;
use cni_spec::{AttachmentCall, CniError, DefaultRoute, DhcpConf, ErrorCode, NetConf};
use kernel::link::Link;
use kernel::netlink::Socket;
use std::path::PathBuf;

use super::facts::NodeFacts;
use crate::answer::Answer;
use crate::dhcp::{
    Applicant, Lease, LeaseStore, NodeLink, PodLink, acquire_on_node, dns, give_back, node_gateway,
    range_sets, routes,
};

/// A pod's lease while its ADD runs.
pub(super) struct Leased {
    lease: Lease,
    store: LeaseStore,
    /// The configuration, as if it named this address.
    pub(super) conf: NetConf,
    /// The address, to be reserved by name.
    pub(super) requested: Vec<IpAddr>,
}

impl Leased {
    /// Takes a lease on the pods' bridge.
    pub(super) fn acquire(
        conf: &NetConf,
        dhcp: &DhcpConf,
        call: &AttachmentCall<PathBuf>,
        (bridge, netns): (&Link, &Netns),
        host: &mut Socket,
        answer: &mut Answer,
    ) -> Result<Self, CniError> {
        let network = &conf.base.name;
        let applicant = Applicant {
            conf: dhcp,
            network,
            attachment: &call.attachment,
            args: &call.args,
            mac: conf.requested_mac(&call.args),
            on_node: true,
            wished: wished(conf, call)?,
        };
        let pod = PodLink { netns: netns.clone(), link: call.attachment.ifname().clone() };
        let node = NodeLink { link: bridge, name: &conf.bridge, pod };
        let lease = acquire_on_node(&applicant, &node, answer)?;
        let store = LeaseStore::new(&dhcp.lease_dir, network);
        match leased_conf(conf, dhcp, &lease, bridge, host) {
            Ok(conf) => {
                Ok(Self { conf, requested: vec![IpAddr::V4(lease.terms.address.addr())], lease, store })
            }
            Err(error) => {
                give_back(&store, &lease).ok();
                Err(error)
            }
        }
    }

    /// Takes account of the MTU that the server names, where the configuration names none.
    pub(super) fn fit(&self, facts: &mut NodeFacts) {
        if let (None, Some(mtu)) = (self.conf.mtu, self.lease.terms.mtu) {
            facts.mtu = facts.mtu.min(mtu.into());
        }
    }

    /// Gives the lease back because ADD failed; the error stays what it is.
    pub(super) fn give_back(self, cause: CniError) -> CniError {
        match give_back(&self.store, &Lease { remember: false, ..self.lease }) {
            Ok(()) => cause,
            Err(error) => {
                let details = format!("{} the lease is still kept: {error}", cause.details);
                cause.with_details(details.trim_start())
            }
        }
    }
}

/// Which bridge servers are asked on: one that nobody has made has none of them behind it.
pub(super) fn refuse_missing_bridge(conf: &NetConf, host: &mut Socket) -> Result<(), CniError> {
    if conf.ipam.dhcp.is_none() {
        return Ok(());
    }
    match kernel::link::by_name(host, conf.bridge.as_str()).map_err(crate::failure::kernel_refused)? {
        Some(_) => Ok(()),
        None => Err(CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!(
                "`bridge`: the node has no link `{}`; with addresses of type `dhcp` it must exist, with the LAN's link as a \
                 port",
                conf.bridge
            ),
        )),
    }
}

fn wished(conf: &NetConf, call: &AttachmentCall<PathBuf>) -> Result<Option<std::net::Ipv4Addr>, CniError> {
    match conf.requested_ips(&call.args).as_slice() {
        [] => Ok(None),
        [IpAddr::V4(address)] => Ok(Some(*address)),
        several => Err(CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!(
                "addresses {several:?} were requested, but DHCP gives one of IPv4: request that one, or none"
            ),
        )),
    }
}

fn leased_conf(
    conf: &NetConf,
    dhcp: &DhcpConf,
    lease: &Lease,
    bridge: &Link,
    host: &mut Socket,
) -> Result<NetConf, CniError> {
    let terms = &lease.terms;
    let gateway = match dhcp.default_route {
        DefaultRoute::Router => terms.default_gateway(),
        DefaultRoute::Node => Some(node_gateway(host, bridge.index, terms)?),
    };
    Ok(conf.leased(range_sets(terms, gateway)?, routes(dhcp, terms, gateway), dns(terms), lease.mac))
}

/// Whose namespace a pod's is, for the lease and the record.
pub(super) fn netns_of(call: &AttachmentCall<PathBuf>, id: kernel::netns::NetNsId) -> Netns {
    Netns { path: call.netns.to_string_lossy().into_owned(), dev: id.device, inode: id.inode }
}
