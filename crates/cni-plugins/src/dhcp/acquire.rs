//! Taking a lease: the exchange, the conflict probe, and the file that stands for it before the server is bound by it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attachment::{Attachment, MacAddress, NetworkName, PodName};
use cni_spec::{CniArgs, CniError, DhcpConf, ErrorCode};
use dhcp_client::{Exchange, Goal, Identity, Mac, Terms};
use kernel::link::Link;
use link_name::LinkName;

use super::identity::{identity, is_of_name};
use super::lease::{Lease, PodLink};
use super::line::{Line, LineError, Peer, Station, seed};
use super::store::{LeaseStore, StoreError};
use crate::answer::Answer;
use crate::closing;
use crate::failure::{io_failed, kernel_refused};
use crate::wiring::lan::holder_of;

/// How often another address is asked for where somebody has the one that was given.
const CONFLICTS_MAX: u32 = 3;
/// RFC 5227 takes some seven seconds, for links that lose much; a pod waits here.
pub(crate) const PROBE_PATIENCE: Duration = Duration::from_millis(600);

/// For whom a lease is.
pub(crate) struct Applicant<'a> {
    pub(crate) conf: &'a DhcpConf,
    pub(crate) network: &'a NetworkName,
    pub(crate) attachment: &'a Attachment,
    pub(crate) args: &'a CniArgs,
    /// The address of the pod's link, where it has one already or the runtime wants it.
    pub(crate) mac: Option<MacAddress>,
    /// The address that the pod wants.
    pub(crate) wished: Option<Ipv4Addr>,
    /// Where the lease is spoken of, now and later.
    pub(crate) place: Place,
    /// Who on this node has an address already: nobody there would answer for it on the link.
    pub(crate) holder_here: &'a HolderHere<'a>,
}

/// Who of this node has an address, if anybody but the client of this id.
pub(crate) type HolderHere<'a> = dyn Fn(Ipv4Addr, &[u8]) -> Result<Option<String>, CniError> + 'a;

/// Links on which servers are asked about a pod.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The pod's own.
    Pod(PodLink),
    /// The bridge of which the pod's link is a port, or will be.
    Bridge(LinkName, PodLink),
    /// The node's link to the LAN, behind which the pod is routed.
    Uplink(LinkName),
}

impl Place {
    fn of(&self, lease: Lease) -> Lease {
        let (node_link, pod_link) = match self.clone() {
            Self::Pod(pod) => (None, Some(pod)),
            Self::Bridge(bridge, pod) => (Some(bridge), Some(pod)),
            Self::Uplink(uplink) => (Some(uplink), None),
        };
        Lease { node_link, pod_link, ..lease }
    }

    const fn station(&self) -> Station {
        match self {
            Self::Pod(_) | Self::Bridge(..) => Station::OnLink,
            Self::Uplink(_) => Station::BehindNode,
        }
    }
}

/// Takes a lease on `link`, which is in the thread's namespace.
pub(crate) fn acquire(
    applicant: &Applicant<'_>,
    link: &Link,
    answer: &mut Answer,
) -> Result<Lease, CniError> {
    let Applicant { conf, network, attachment, args, .. } = *applicant;
    let raw_args = std::env::var("CNI_ARGS").unwrap_or_default();
    let identity = identity(conf, (network, attachment), (args, &raw_args), applicant.mac)?;
    let mac = MacAddress::new(identity.mac)
        .map_err(|error| CniError::new(ErrorCode::InvalidEnvironment, error.to_string()))?;
    let store = LeaseStore::new(&conf.lease_dir, network);
    let pod = args.pod_namespace.clone().zip(args.pod_name.clone());
    let draft = |terms: &Terms| {
        let lease = applicant.place.of(Lease::new((network, attachment), &identity, mac, terms.clone()));
        let pod = pod.clone().map(|(namespace, name)| PodName { namespace, name });
        Lease {
            pod,
            pod_uid: args.pod_uid.clone(),
            remember: is_of_name(conf, args),
            bound_at: now().as_secs(),
            ..lease
        }
    };
    let remembered = store.remembered(&identity.client_id).unwrap_or_default();
    let mut goal = match (applicant.wished, remembered) {
        (None, Some(earlier)) => Goal::Reboot { address: earlier.terms.address.addr() },
        (wished, _) => Goal::Acquire { wished },
    };
    let station = applicant.place.station();
    let began = Instant::now();
    let patience = Duration::from_secs(conf.timeout);
    for attempt in 0..=CONFLICTS_MAX {
        let asking = Asking { identity: &identity, link, station, store: &store, began, patience };
        let lease = asking.ask(goal, &draft)?;
        answer.explain(|| format!("DHCP server {} lends {}", lease.terms.server, lease.terms.address));
        let address = lease.terms.address.addr();
        let refused = match applicant.wished {
            Some(wished) if wished != address => Some(CniError::new(
                ErrorCode::AddressTaken,
                format!(
                    "address {wished} was requested, but DHCP server {} gave {address}",
                    lease.terms.server
                ),
            )),
            _ => None,
        };
        if let Some(refused) = refused {
            part(&store, &lease, link, Farewell::Release);
            return Err(refused);
        }
        let holder = match (applicant.holder_here)(address, &identity.client_id) {
            // By the link's own address: a bridge hands an answer to the pod's, which it does not know yet, to nobody here.
            Ok(None) if conf.conflict_probe => {
                let own = link.mac.unwrap_or(identity.mac);
                holder_of(link.index, own, &[address.into()], PROBE_PATIENCE)
                    .map(|holder| holder.map(|(_, mac)| shown(mac)))
                    .map_err(kernel_refused)
            }
            here => here,
        };
        match holder {
            Ok(None) => return Ok(lease),
            Ok(Some(holder)) => {
                part(&store, &lease, link, Farewell::Decline);
                let reason = format!("DHCP server {} gave {address}, which {holder} has", lease.terms.server);
                if attempt == CONFLICTS_MAX || began.elapsed() >= patience {
                    return Err(CniError::new(
                        ErrorCode::TryAgainLater,
                        format!("{reason}: keep hosts with addresses of their own out of the server's range"),
                    ));
                }
                answer.warn(&reason);
                goal = Goal::Acquire { wished: applicant.wished };
            }
            Err(error) => {
                part(&store, &lease, link, Farewell::Release);
                return Err(error);
            }
        }
    }
    Err(CniError::new(ErrorCode::TryAgainLater, "no DHCP server gave an address that nobody has"))
}

fn shown([a, b, c, d, e, f]: Mac) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} on that link")
}

/// One exchange for a pod that has nothing yet.
struct Asking<'a> {
    identity: &'a Identity,
    link: &'a Link,
    station: Station,
    store: &'a LeaseStore,
    began: Instant,
    patience: Duration,
}

impl Asking<'_> {
    fn ask(&self, goal: Goal, draft: &dyn Fn(&Terms) -> Lease) -> Result<Lease, CniError> {
        let mut exchange =
            Exchange::new(self.identity.clone(), goal, self.began.elapsed(), self.patience, seed());
        let line =
            Line::open(self.link, self.identity.mac, self.station, exchange.xid()).map_err(kernel_refused)?;
        let mut drafted: Result<Option<Lease>, StoreError> = Ok(None);
        // Written before the server may believe that the address is ours, so that the agent can give it back if we die.
        let chosen = |terms: &Terms| {
            if !matches!(&drafted, Ok(Some(lease)) if lease.terms == *terms) {
                let lease = draft(terms);
                drafted = self.store.put(&lease).map(|()| Some(lease));
            }
        };
        let agreed = line.converse(&mut exchange, self.began, chosen);
        closing::leave_open(line.into_socket());
        let drafted = drafted.map_err(store_failed)?;
        let agreement = match agreed {
            Ok(agreement) => agreement,
            Err(error) => {
                if let Some(lease) = drafted {
                    part(self.store, &lease, self.link, Farewell::Release);
                }
                return Err(acquisition_failed(&error, &self.link.name));
            }
        };
        let lease = draft(&agreement.terms).renewed(agreement.terms, now(), agreement.server_mac);
        if let Err(error) = self.store.put(&lease) {
            part(self.store, &lease, self.link, Farewell::Release);
            return Err(store_failed(error));
        }
        Ok(lease)
    }
}

/// Takes leave of a lease that is not used after all. What cannot be sent runs out by itself.
fn part(store: &LeaseStore, lease: &Lease, link: &Link, farewell: Farewell) {
    let identity = lease.identity();
    if let Ok(line) = lease.line(link, 0) {
        let sent = match farewell {
            Farewell::Release => {
                let peer =
                    Peer { address: lease.terms.server, mac: lease.server_mac.map(MacAddress::octets) };
                let line = line.of_client(lease.terms.address.addr(), peer);
                line.send(&Exchange::release(&identity, &lease.terms, seed()), true)
            }
            // To all, and from nobody: the address is another's (RFC 2131, section 4.4.4).
            Farewell::Decline => line.send(&Exchange::decline(&identity, &lease.terms, seed()), false),
        };
        sent.ok();
    }
    store.remove(&Lease { remember: false, ..lease.clone() }).ok();
}

/// Why a lease is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// Its ADD failed.
    Release,
    /// Somebody else has the address.
    Decline,
}

fn acquisition_failed(error: &LineError, link: &str) -> CniError {
    let code = match error {
        LineError::Kernel(_) => ErrorCode::KernelRefused,
        LineError::Exchange(_) | LineError::Refused(_) => ErrorCode::TryAgainLater,
    };
    CniError::new(code, format!("failed to get an address by DHCP on `{link}`: {error}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(super) fn store_failed(error: StoreError) -> CniError {
    io_failed("keep the lease", &std::io::Error::other(error.to_string()))
}

pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The hardware address of a link on which servers can know a pod.
pub(super) fn mac_of(link: &Link) -> Result<Mac, CniError> {
    link.mac.ok_or_else(|| {
        CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!(
                "link `{}` has no Ethernet address, so that no DHCP server can know it; use another kind",
                link.name
            ),
        )
    })
}
