//! Asking which route wins.

use std::net::IpAddr;

use rustix::io::Errno;

use super::codec::{RTA_DST, uncloned};
use super::{RTM_GETROUTE, RTM_NEWROUTE, Route, RouteKind};
use crate::KernelError;
use crate::address::{self, Address, DADFAILED, DEPRECATED, TENTATIVE};
use crate::netlink::{Batch, Socket, family_of};

/// `RTM_F_FIB_MATCH`: a look-up answers with the route itself.
const FIB_MATCH: u32 = 0x2000;

/// What a packet of this host to `destination` would do: the route that wins, not a cached copy
/// (`RTM_F_FIB_MATCH`). `Err` with `NETUNREACH`, `HOSTUNREACH` or such where a route refuses it.
pub fn look_up(
    socket: &mut Socket,
    destination: IpAddr,
    source: Option<IpAddr>,
) -> Result<Route, KernelError> {
    get(socket, destination, (source, None), FIB_MATCH)
}

/// How many questions are asked at once: their answers, of about a kilobyte each in the kernel's accounting, must fit an
/// ordinary receive buffer.
const AT_ONCE: usize = 100;

/// As [`look_up`] for each destination, in a third of the system calls. The answers stand in the order of the questions.
pub fn look_up_all(socket: &mut Socket, destinations: &[IpAddr]) -> Vec<Result<Route, KernelError>> {
    let mut answers = Vec::with_capacity(destinations.len());
    for asked in destinations.chunks(AT_ONCE) {
        let mut batch = Batch::new();
        for destination in asked {
            ask(&mut batch, *destination, (None, None), FIB_MATCH);
        }
        let mut found: Vec<Option<Route>> = vec![None; asked.len()];
        let refused = socket.execute_answered(&mut batch, |index, kind, payload| {
            if kind == RTM_NEWROUTE
                && let Some(place) = found.get_mut(index)
            {
                *place = uncloned(payload);
            }
        });
        let failed = |to: &IpAddr, error: KernelError| error.attempting(format!("look up the route to {to}"));
        let nothing = |to: &IpAddr| KernelError::new(format!("look up the route to {to}"), Errno::NODATA);
        match refused {
            Err(error) => answers.extend(asked.iter().map(|to| Err(failed(to, error.clone())))),
            Ok(refused) => {
                let mut chunk: Vec<_> =
                    asked.iter().zip(found).map(|(to, found)| found.ok_or_else(|| nothing(to))).collect();
                for failure in refused {
                    if let (Some(place), Some(to)) = (chunk.get_mut(failure.index), asked.get(failure.index))
                    {
                        *place = Err(failed(to, failure.error));
                    }
                }
                answers.append(&mut chunk);
            }
        }
    }
    answers
}

/// What a packet from `source` that comes in by the link `index` would do, as [`look_up`]: policy rules, and what the
/// kernel thinks of such a source on that link, are part of the answer.
pub fn look_up_forwarded(
    socket: &mut Socket,
    destination: IpAddr,
    source: IpAddr,
    index: u32,
) -> Result<Route, KernelError> {
    get(socket, destination, (Some(source), Some(index)), FIB_MATCH)
}

/// As [`look_up`], with the source address and the link that the kernel would choose, as `source` and the only hop. For IPv6
/// the kernel weighs the addresses of all links, a millisecond with a thousand of them; so it is asked to only where those of
/// the route's own link do not decide ([`only_source`]).
pub fn resolve(socket: &mut Socket, destination: IpAddr) -> Result<Route, KernelError> {
    if destination.is_ipv6() {
        let found = look_up(socket, destination, None)?;
        let source = match found.hops.as_slice() {
            [hop] if found.kind == RouteKind::Unicast => match (found.source, hop.index) {
                (None, Some(index)) => only_source(&address::dump_of(socket, index)?, destination),
                (source, _) => source,
            },
            _ => None,
        };
        if source.is_some() {
            return Ok(Route { source, ..found });
        }
    }
    get(socket, destination, (None, None), 0)
}

/// The source address of packets that leave for an IPv6 destination by the link that holds these addresses; none where
/// the kernel must choose. Of the addresses that are preferred and of the destination's scope, one on the link itself goes
/// before those of all other links (RFC 6724, section 5, rules 2, 3 and 5; `ipv6_get_saddr_eval` in `net/ipv6/addrconf.c`).
fn only_source(held: &[Address], destination: IpAddr) -> Option<IpAddr> {
    const GLOBAL: u8 = 0;
    let IpAddr::V6(to) = destination else { return None };
    if to.is_multicast() || to.is_unicast_link_local() || to.is_loopback() {
        return None;
    }
    let unfit = TENTATIVE | DADFAILED | DEPRECATED;
    let mut fit = held.iter().filter(|held| {
        held.ip.addr().is_ipv6()
            && held.scope == GLOBAL
            && held.flags & unfit == 0
            && held.ip.addr() != destination
    });
    fit.next().filter(|_| fit.next().is_none()).map(|only| only.ip.addr())
}

fn get(
    socket: &mut Socket,
    to: IpAddr,
    (from, over): (Option<IpAddr>, Option<u32>),
    flags: u32,
) -> Result<Route, KernelError> {
    let mut batch = Batch::new();
    ask(&mut batch, to, (from, over), flags);
    let mut found = None;
    let failures = socket.execute_reading(&mut batch, |kind, payload| {
        if kind == RTM_NEWROUTE {
            found = uncloned(payload);
        }
    })?;
    match (failures.into_iter().next(), found) {
        (Some(failure), _) => Err(failure.error.attempting(format!("look up the route to {to}"))),
        (None, Some(route)) => Ok(route),
        (None, None) => Err(KernelError::new(format!("look up the route to {to}"), Errno::NODATA)),
    }
}

/// Writes one question.
fn ask(batch: &mut Batch, to: IpAddr, (from, over): (Option<IpAddr>, Option<u32>), flags: u32) {
    let mut header = [0; 12];
    header[0] = family_of(to);
    let whole = if to.is_ipv4() { 32 } else { 128 };
    header[1] = whole;
    header[2] = if from.is_some() { whole } else { 0 };
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    let mut message = batch.message("look up a route", RTM_GETROUTE, 0, &header);
    message.ip(RTA_DST, to);
    if let Some(from) = from {
        const RTA_SRC: u16 = 2;
        message.ip(RTA_SRC, from);
    }
    if let Some(index) = over {
        const RTA_IIF: u16 = 3;
        message.u32(RTA_IIF, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(ip: &str, flags: u32, scope: u8) -> Address {
        let ip = ip.parse().unwrap();
        Address {
            index: 2,
            ip,
            peer: None,
            flags,
            scope,
            valid_lifetime: u32::MAX,
            preferred_lifetime: u32::MAX,
        }
    }

    #[test]
    fn one_address_that_is_fit_decides_and_two_or_none_leave_it_to_the_kernel() {
        let to = |to: &str, held: &[Address]| only_source(held, to.parse().unwrap());
        let own = held("fd00::1/64", 0, 0);
        let alone = [
            own.clone(),
            held("192.0.2.1/24", 0, 0),
            held("fe80::1/64", 0, 253),
            held("fd00::2/64", DEPRECATED, 0),
            held("fd00::3/64", TENTATIVE, 0),
        ];
        assert_eq!(to("fd00::9", &alone), Some(own.ip.addr()));
        assert_eq!(to("2001:db8::9", &alone), Some(own.ip.addr()));
        assert_eq!(to("fd00::9", &alone[1..]), None);
        assert_eq!(to("fd00::9", &[own.clone(), held("2001:db8::1/64", 0, 0)]), None);
        for special in ["fe80::9", "ff02::1", "::1"] {
            assert_eq!(to(special, &alone), None, "{special}");
        }
    }
}
