//! ADD: reserve, wire, answer; and undo all of it where any of it fails.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attachment::{HostPort, Netns, Record, Request, Reservation, ReserveError, Store};
use cni_spec::{AttachmentCall, CniError, ErrorCode, Mode, NetConf};
use kernel::link;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::sysctl::Sysctls;
use std::net::IpAddr;
use std::path::PathBuf;

use super::facts::{NodeFacts, routers};
use super::formed;
use super::gateway;
use super::intent::{Intent, Surroundings, bridge_plan, host_ports, ranges};
use super::leased::{self, Leased};
use super::make_way::{self, link_is_gone};
use super::survey;
use crate::answer::Answer;
use crate::bandwidth;
use crate::dhcp::{PROBE_PATIENCE, PodLink};
use crate::failure::{
    host_ports_failed, io_failed, kernel_refused, reserve_failed, store_failed, wiring_failed,
};
use crate::host_ports as ports;
use crate::lan_guard;
use crate::namespaces::Namespaces;
use crate::netfilter;
use crate::teardown::{Leftover, tear_down};
use crate::wiring::{Wiring, attach_anew, lan};

/// How often another address is tried where the kernel says that one is in use.
const OTHERS_MAX: u32 = 16;

/// Attaches a pod, and answers with the result.
pub(crate) fn add(
    call: &AttachmentCall<PathBuf>,
    conf: &NetConf,
    answer: &mut Answer,
) -> Result<(), CniError> {
    let (network, attachment) = (&conf.base.name, &call.attachment);
    let namespaces = Namespaces::open(&call.netns, call.netns_override)?;
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    for doubt in &conf.doubts {
        answer.warn(doubt);
    }
    leased::refuse_missing_bridge(conf, &mut host)?;
    let mut facts = NodeFacts::gather(conf, &mut host, answer)?;
    answer.explain(|| format!("node: {facts}"));
    let store = Store::open(&conf.ipam.data_dir, network).map_err(store_failed)?;
    make_way::for_attachment(&store, attachment, &mut host)?;

    let wanted_ports = host_ports(conf);
    ports::refuse_listened(&wanted_ports, &facts.listened_at(conf), conf.host_port_listener_check, answer)?;
    if conf.mode.is_of_lan() {
        gateway::refuse_routers(conf, &routers(conf, &mut host)?)?;
    }
    let bridge = match bridge_plan(conf, &facts) {
        Some(plan) => Some(plan.ensure(&mut host).map_err(wiring_failed)?),
        None => None,
    };
    let formed = formed::form(conf, call, (&facts, bridge.as_ref()), &mut host)?;
    let conf = formed.as_ref().map_or(conf, |formed| &formed.conf);
    let requested = |others: Vec<IpAddr>| match &formed {
        Some(formed) => formed.among(others),
        None => others,
    };
    let netns = leased::netns_of(call, namespaces.pod_id);
    let leased = match &conf.ipam.dhcp {
        Some(dhcp) => {
            let pod = PodLink { netns: netns.clone(), link: attachment.ifname().clone() };
            let (link, place) = leased::servers_link(conf, (&facts, bridge.as_ref()), pod, &mut host)?;
            Some(Leased::acquire((conf, dhcp), call, (&link, place), &store, &mut host, answer)?)
        }
        None => None,
    };
    if let Some(leased) = &leased {
        leased.fit(&mut facts);
    }
    let ground = Ground { facts, store, bridge, netns, namespaces, wanted_ports };
    match leased {
        None => {
            let requested = requested(conf.requested_ips(&call.args));
            attach_pod(&ground, call, conf, &requested, &mut host, answer)
        }
        Some(leased) => {
            let requested = requested(leased.requested.clone());
            attach_pod(&ground, call, &leased.conf, &requested, &mut host, answer)
                .map_err(|error| leased.give_back(error))
        }
    }
}

/// What an attachment stands on.
struct Ground {
    facts: NodeFacts,
    store: Store,
    bridge: Option<link::Link>,
    netns: Netns,
    namespaces: Namespaces,
    wanted_ports: Vec<HostPort>,
}

/// Reserves, wires and answers.
fn attach_pod(
    ground: &Ground,
    call: &AttachmentCall<PathBuf>,
    conf: &NetConf,
    requested: &[IpAddr],
    host: &mut Socket,
    answer: &mut Answer,
) -> Result<(), CniError> {
    let (network, attachment) = (&conf.base.name, &call.attachment);
    let Ground { facts, store, bridge, namespaces, wanted_ports, .. } = ground;
    let range_sets = ranges(conf, &facts.addresses)?;
    let surroundings = Surroundings {
        conf,
        args: &call.args,
        network,
        attachment,
        facts: *facts,
        netns: ground.netns.clone(),
        boot_id: Sysctls::default().boot_id().map_err(kernel_refused)?,
        wiring: wiring(conf, facts, host)?,
        bridge_mac: bridge.as_ref().and_then(|bridge| bridge.mac),
    };
    let request = Request { attachment, range_sets: &range_sets, requested, host_ports: wanted_ports };
    let node = survey::Node {
        range_sets: request.range_sets,
        addresses: surroundings.node_addresses(),
        mode: surroundings.mode(),
        boot_id: &surroundings.boot_id,
        now: now(),
    };
    survey::survey(store, &node, host, answer);
    make_way::for_names(store, &request, host);
    let mut others = OTHERS_MAX;
    loop {
        let mut intent = None;
        let mut reserve = || {
            store.reserve(&request, now(), |allocations| {
                surroundings.record(intent.insert(surroundings.intend(allocations)))
            })
        };
        let reservation = match reserve() {
            Err(ReserveError::Exhausted { .. }) if make_way::for_anybody(store, host) => reserve(),
            other => other,
        }
        .map_err(|error| reserve_failed(&error))?;
        let Some(intent) = intent else {
            return Err(CniError::new(ErrorCode::Internal, "the reservation asked for no wiring"));
        };
        answer.explain(|| format!("reserved, and planned: {}", intent.link));

        let made = make(conf, &intent, reservation.record(), bridge.as_ref(), namespaces, host, answer)
            .and_then(|()| {
                let json = intent.result.to_json(conf.base.cni_version)?;
                answer.give(&json).map_err(|error| io_failed("write the result to standard output", &error))
            });
        match made {
            Ok(()) => {
                // The runtime has its answer: what fails now is only told, see docs/decisions/0006.
                if let Err(error) = reservation.mark_attached() {
                    answer.warn(&error.to_string());
                }
                return Ok(());
            }
            Err(error) => {
                let is_in_use = error.code == ErrorCode::AddressTaken && request.requested.is_empty();
                let undone = undo(error, reservation, &namespaces.node, host);
                if !is_in_use || others == 0 {
                    return Err(undone);
                }
                answer.warn(&undone.msg);
                others -= 1;
            }
        }
    }
}

/// How the pod's link is connected to the node.
fn wiring(conf: &NetConf, facts: &NodeFacts, host: &mut Socket) -> Result<Wiring, CniError> {
    Ok(match conf.mode {
        Mode::Ptp => Wiring::Ptp,
        Mode::Bridge | Mode::L2 => Wiring::Bridge { bridge: conf.bridge.clone(), hairpin: conf.hairpin },
        Mode::L2Routed => Wiring::L2Routed { uplink: facts.lan_link(conf, host)? },
    })
}

/// Makes what the record says.
fn make(
    conf: &NetConf,
    intent: &Intent,
    record: &Record,
    bridge: Option<&link::Link>,
    namespaces: &Namespaces,
    host: &mut Socket,
    answer: &mut Answer,
) -> Result<(), CniError> {
    prepare_lan(conf, intent, bridge, host)?;
    let (wired, unready) =
        attach_anew(&intent.link, bridge, &namespaces.node, &namespaces.pod, host).map_err(wiring_failed)?;
    ports::publish(record, &conf.ipam.data_dir, link_is_gone).map_err(host_ports_failed)?;
    // Only now that the table guards what listens on loopback.
    if record.host_ports.iter().any(|port| port.host_ip.is_some_and(|ip| ip.is_loopback())) {
        let mut batch = Batch::new();
        link::set_route_localnet(&mut batch, wired.host_index);
        host.execute_all(&mut batch).map_err(kernel_refused)?;
    }
    bandwidth::limit(record, &conf.capabilities.bandwidth, wired.host_index, host)?;
    unready.wait(host).map_err(wiring_failed)?;
    if conf.lan.anti_spoof {
        lan_guard::guard_pod(&mut *netfilter::socket().map_err(kernel_refused)?, record)
            .map_err(kernel_refused)?;
    }
    // Who never heard of the addresses finds the pod all the same.
    if conf.mode.is_of_lan()
        && let Err(error) = lan::announce(&intent.link, wired, &namespaces.pod)
    {
        answer.warn(&format!("the LAN was not told where the pod's addresses are: {error}"));
    }
    Ok(())
}

/// Asks the LAN, where that is wanted, whether somebody has the pod's addresses.
fn prepare_lan(
    conf: &NetConf,
    intent: &Intent,
    bridge: Option<&link::Link>,
    host: &mut Socket,
) -> Result<(), CniError> {
    if let Some(bridge) = bridge.filter(|_| conf.lan.promiscuous) {
        let mut batch = Batch::new();
        link::set_promiscuous(&mut batch, bridge.index);
        host.execute_all(&mut batch).map_err(kernel_refused)?;
    }
    let patience = match (conf.lan.conflict_probe_ms, &conf.ipam.dhcp) {
        (0, Some(dhcp)) if dhcp.conflict_probe => PROBE_PATIENCE,
        (milliseconds, _) => Duration::from_millis(milliseconds.into()),
    };
    let probed = |address: &IpAddr| formed::is_to_be_probed(conf, *address);
    let addresses: Vec<IpAddr> = intent.link.addresses().filter(probed).collect();
    if patience.is_zero() || addresses.is_empty() {
        return Ok(());
    }
    let (index, mac) = match (&intent.link.wiring, bridge) {
        (Wiring::L2Routed { uplink }, _) => {
            let (link, mac) = lan::uplink_of(uplink, host).map_err(wiring_failed)?;
            (link.index, mac)
        }
        (_, Some(link::Link { index, mac: Some(mac), .. })) => (*index, *mac),
        _ => return Ok(()),
    };
    lan::refuse_held(index, mac, &addresses, patience).map_err(wiring_failed)
}

/// Takes back all that was made; what cannot be taken back keeps its record, so that DEL or the agent finds it.
fn undo(cause: CniError, reservation: Reservation<'_>, node: &NetNs, host: &mut Socket) -> CniError {
    let record = reservation.record();
    let leftover =
        Leftover { network: &record.network, attachment: &record.attachment, record: Some(record) };
    // What failed may have been the way back out of the pod, where a link of the same index is another's.
    let torn_down = node.enter().map_err(kernel_refused).and_then(|()| tear_down(leftover, host));
    let undone = match torn_down {
        Ok(()) => reservation.release().map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match undone {
        Ok(()) => cause,
        Err(error) => {
            let details = format!("{} not all could be undone, DEL will: {error}", cause.details);
            cause.with_details(details.trim_start())
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
