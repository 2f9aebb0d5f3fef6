//! STATUS: whether ADD can be served. Anything but "yes" makes the node NotReady and drives its pods away, so the only
//! "no" is the time before the first data path after a boot; whoever wants more says `strictStatus`.

use std::collections::HashSet;
use std::net::IpAddr;

use attachment::{Range, State, Store};
use cni_spec::{CniError, ErrorCode, IpFamily, NetConf, StatusConf};
use kernel::link;
use kernel::netlink::{Protocol, Socket};

use super::facts::holder;
use super::intent::ranges;
use crate::failure::{kernel_refused, store_failed};

/// Fails with code 50 while the file does not exist that the agent writes once packets flow; a strict one also where
/// the configuration in `stdin` cannot be used, a configured address of the node is lost (51), or a range set has no
/// address left (50).
pub(crate) fn status(conf: &StatusConf, stdin: &[u8]) -> Result<(), CniError> {
    if let Some(ready_file) = &conf.ready_file
        // A file that cannot be examined is no reason to drive pods away.
        && !ready_file.try_exists().unwrap_or(true)
    {
        return Err(CniError::new(
            ErrorCode::NotAvailable,
            format!(
                "the routes of this node are not in place yet: `readyFile` {} does not exist; hostgw agent writes it, see \
                 its log",
                ready_file.display()
            ),
        ));
    }
    if !conf.strict {
        return Ok(());
    }
    let conf = NetConf::parse(stdin)?;
    let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    refuse_lost_address(&conf, &mut socket)?;
    refuse_exhausted(&conf, &mut socket)
}

/// New pods would work by another address of the node, but peers cannot send to those that run.
fn refuse_lost_address(conf: &NetConf, socket: &mut Socket) -> Result<(), CniError> {
    for family in IpFamily::BOTH {
        if let Some(address) = conf.node_addresses.of(family)
            && holder(socket, Some(address))?.is_none()
        {
            return Err(CniError::new(
                ErrorCode::NotAvailableLimitedConnectivity,
                format!(
                    "`nodeAddresses`: {address} is no address of this node (any more), so its peers cannot reach its \
                     pods; give the node its address back, or correct the key"
                ),
            ));
        }
    }
    Ok(())
}

fn refuse_exhausted(conf: &NetConf, socket: &mut Socket) -> Result<(), CniError> {
    let Some(store) = Store::find(&conf.ipam.data_dir, &conf.base.name).map_err(store_failed)? else {
        return Ok(());
    };
    let living = held_by_the_living(&store, socket)?;
    let is_full = |set: &Vec<Range>| {
        let usable: u64 = set.iter().fold(0, |sum, range| sum.saturating_add(range.usable()));
        let held = |range: &Range| living.iter().filter(|ip| range.addresses.contains(**ip)).count() as u64;
        usable <= set.iter().map(held).sum()
    };
    let Some(full) = ranges(conf, &conf.node_addresses)?.into_iter().find(is_full) else { return Ok(()) };
    let shown: Vec<String> = full.iter().map(|range| range.addresses.to_string()).collect();
    Err(CniError::new(
        ErrorCode::NotAvailable,
        format!(
            "every address of {} is held by a living pod: widen the range, or move pods to other nodes",
            shown.join(", ")
        ),
    ))
}

/// What the dead hold, the next ADD takes from them.
fn held_by_the_living(store: &Store, socket: &mut Socket) -> Result<HashSet<IpAddr>, CniError> {
    let links = link::dump(socket).map_err(kernel_refused)?;
    let names: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let mut held = HashSet::new();
    for entry in store.records().map_err(store_failed)?.flatten() {
        if entry.state == State::Adding || names.contains(entry.record.wiring.host_link.as_str()) {
            held.extend(entry.record.addresses.iter().map(|given| given.address.addr()));
        }
    }
    Ok(held)
}
