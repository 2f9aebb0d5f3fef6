//! ADD where a DHCP server gives the address: a lease first, then the same as with a range that holds it alone.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use attachment::{Attachment, Claim, Netns, Store};
use cni_spec::{
    AttachmentCall, CniError, DefaultRoute, DhcpConf, ErrorCode, IpFamily, MIN_MTU_V6, NetConf, Route,
};
use kernel::address;
use kernel::link::{self, Link};
use kernel::netlink::{Protocol, Socket};

use super::facts::NodeFacts;
use super::make_way::link_is_gone;
use crate::answer::Answer;
use crate::dhcp::{
    Applicant, Lease, LeaseStore, Place, PodLink, acquire, dns, give_back, node_gateway, range_sets, routes,
};
use crate::failure::{kernel_refused, store_failed, wiring_failed};
use crate::wiring::lan;

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
    /// Takes a lease on the node's link to the LAN, before the pod has one.
    pub(super) fn acquire(
        (conf, dhcp): (&NetConf, &DhcpConf),
        call: &AttachmentCall<PathBuf>,
        (link, place): (&Link, Place),
        records: &Store,
        host: &mut Socket,
        answer: &mut Answer,
    ) -> Result<Self, CniError> {
        let network = &conf.base.name;
        let store = LeaseStore::new(&dhcp.lease_dir, network);
        let applicant = Applicant {
            conf: dhcp,
            network,
            attachment: &call.attachment,
            args: &call.args,
            mac: conf.requested_mac(&call.args),
            wished: wished(conf, call)?,
            place,
            holder_here: &|address, client_id| holder_here(records, &store, address, client_id),
        };
        let lease = acquire(&applicant, link, answer)?;
        match leased_conf(conf, dhcp, &lease, link, host) {
            Ok(conf) => {
                let own = IpAddr::V4(lease.terms.address.addr());
                let others = conf.requested_ips(&call.args).into_iter().filter(IpAddr::is_ipv6);
                Ok(Self { requested: std::iter::once(own).chain(others).collect(), conf, lease, store })
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
            if self.conf.ipam.has_family(IpFamily::V6) {
                facts.mtu = facts.mtu.max(MIN_MTU_V6);
            }
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

/// The link on which servers are asked, and where the lease is spoken of later.
pub(super) fn servers_link(
    conf: &NetConf,
    (facts, bridge): (&NodeFacts, Option<&Link>),
    pod: PodLink,
    host: &mut Socket,
) -> Result<(Link, Place), CniError> {
    if let Some(bridge) = bridge {
        return Ok((bridge.clone(), Place::Bridge(conf.bridge.clone(), pod)));
    }
    if facts.addresses.v4.is_none() {
        return Err(CniError::new(
            ErrorCode::InvalidNetworkConfig,
            "mode `l2-routed`: this node's IPv4 address is not known, which is its pods' gateway; name it in \
             `nodeAddresses`",
        ));
    }
    let uplink = facts.lan_link(conf, host)?;
    let (link, _) = lan::uplink_of(&uplink, host).map_err(wiring_failed)?;
    Ok((link, Place::Uplink(uplink)))
}

/// Who on this node has an address: the node, or another of its pods that lives, whose lease its server has forgotten. The
/// pod of a client that comes again is no other.
fn holder_here(
    records: &Store,
    leases: &LeaseStore,
    address: Ipv4Addr,
    client_id: &[u8],
) -> Result<Option<String>, CniError> {
    let address = IpAddr::V4(address);
    let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    if address::dump(&mut socket).map_err(kernel_refused)?.iter().any(|held| held.ip.addr() == address) {
        return Ok(Some("this node".to_owned()));
    }
    let owner = records.owner_of_claim(&Claim::Address(address)).map_err(store_failed)?;
    let is_same = |owner: &Attachment| {
        leases
            .find(owner)
            .is_ok_and(|lease| lease.is_some_and(|lease| lease.identity().client_id == client_id))
    };
    let owner = owner.filter(|owner| !is_same(owner) && !link_is_gone(records.network(), owner, None));
    Ok(owner.map(|owner| format!("attachment {owner} of this node")))
}

/// Which bridge servers are asked on: one that nobody has made has none of them behind it.
pub(super) fn refuse_missing_bridge(conf: &NetConf, host: &mut Socket) -> Result<(), CniError> {
    if conf.ipam.dhcp.is_none() || conf.mode.is_routed() {
        return Ok(());
    }
    match link::by_name(host, conf.bridge.as_str()).map_err(kernel_refused)? {
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

fn wished(conf: &NetConf, call: &AttachmentCall<PathBuf>) -> Result<Option<Ipv4Addr>, CniError> {
    let requested = conf.requested_ips(&call.args);
    let has_ranges_of = |ip: &IpAddr| ip.is_ipv6() && conf.ipam.range_sets.has_family(IpFamily::V6);
    let lent: Vec<IpAddr> = requested.into_iter().filter(|ip| !has_ranges_of(ip)).collect();
    match lent.as_slice() {
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
    link: &Link,
    host: &mut Socket,
) -> Result<NetConf, CniError> {
    let terms = &lease.terms;
    let leased =
        |gateway, routes| Ok(conf.leased(range_sets(terms, gateway)?, routes, dns(terms), lease.mac));
    if conf.mode.is_routed() {
        // To its node, by whose routes all goes from there: the server's are of neighbours that the pod does not have.
        let everywhere = Route::new(IpFamily::V4.default_route(), None);
        return leased(None, vec![Route { priority: dhcp.priority, ..everywhere }]);
    }
    let gateway = match dhcp.default_route.unwrap_or_default() {
        DefaultRoute::Router => terms.default_gateway(),
        DefaultRoute::Node => Some(node_gateway(host, link.index, terms)?),
    };
    let server = Some(terms.server).filter(|server| terms.address.contains(server));
    leased(gateway.or(server), routes(dhcp, terms, gateway))
}

/// Whose namespace a pod's is, for the lease and the record.
pub(super) fn netns_of(call: &AttachmentCall<PathBuf>, id: kernel::netns::NetNsId) -> Netns {
    Netns { path: call.netns.to_string_lossy().into_owned(), dev: id.device, inode: id.inode }
}
