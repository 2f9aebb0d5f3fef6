//! What a server offers or confirms, checked: an address and all that goes with it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::message::Message;
use crate::options::code;

/// Where a server does not say for how long (RFC 2131 has it say so).
const DEFAULT_LEASE: u32 = 3600;
/// More is a fault or an attack.
const MAX_ROUTES: usize = 64;
const MAX_NAME_SERVERS: usize = 8;
/// The least that IPv4 works with (RFC 2132, section 5.1).
const MIN_MTU: u16 = 68;

/// The terms of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// The address, with its subnet's prefix length.
    pub address: Ipv4Net,
    /// The server that lends it (option 54).
    pub server: Ipv4Addr,
    /// The first router (option 3) in the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Ipv4Addr>,
    /// Routes (option 121, else 33). Where there are any by 121, the router is to be ignored (RFC 3442).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// The routes are classless.
    #[serde(default)]
    pub classless: bool,
    /// Name servers (option 6), best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<Ipv4Addr>,
    /// The domain (option 15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The link's MTU (option 26), in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// For how many seconds the address is lent; `u32::MAX` is for ever.
    pub lease_seconds: u32,
    /// After how many seconds it is to be renewed (T1).
    pub renew_seconds: u32,
    /// After how many seconds any server is to be asked (T2).
    pub rebind_seconds: u32,
}

/// A route that a server names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Net,
    /// Through whom; none is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}

/// Why terms are not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// Option 54 is missing or no address of a host.
    #[error("it does not name its server (option 54)")]
    NoServer,
    /// No host can have this address.
    #[error("{0} is no address that a host can have")]
    NoHostAddress(Ipv4Addr),
    /// Option 1 is missing or no mask.
    #[error("it has no subnet mask (option 1)")]
    NoMask,
    /// The address is the network's or the broadcast address of its own subnet.
    #[error("{0} is the first or the last of its subnet")]
    EndOfSubnet(Ipv4Net),
    /// The address is outside the configured subnet.
    #[error("{offered} is outside the subnet {wanted} of the configuration")]
    OutsideSubnet {
        /// What was offered.
        offered: Ipv4Net,
        /// What `subnet` says.
        wanted: Ipv4Net,
    },
    /// The address is that of the router or of the server.
    #[error("{0} is the router's or the server's own address")]
    Taken(Ipv4Addr),
    /// It is lent for no time at all.
    #[error("it is lent for 0 s (option 51)")]
    NoTime,
    /// An option's content is damaged.
    #[error("option {0} is damaged")]
    Damaged(u8),
}

impl Terms {
    /// Reads an OFFER or an ACK; `subnet` is the one that addresses must be of.
    pub fn of(message: &Message, subnet: Option<Ipv4Net>) -> Result<Self, TermsError> {
        let options = &message.options;
        let server = message.address(code::SERVER).filter(is_host).ok_or(TermsError::NoServer)?;
        let host = message.your_address;
        if !is_host(&host) {
            return Err(TermsError::NoHostAddress(host));
        }
        let mask = message.address(code::SUBNET_MASK).ok_or(TermsError::NoMask)?;
        let address = Ipv4Net::with_netmask(host, mask)
            .ok()
            .filter(|net| net.prefix_len() > 0)
            .ok_or(TermsError::NoMask)?;
        if address.prefix_len() < 31 && (host == address.network() || host == address.broadcast()) {
            return Err(TermsError::EndOfSubnet(address));
        }
        if let Some(wanted) = subnet.filter(|wanted| !wanted.contains(&host)) {
            return Err(TermsError::OutsideSubnet { offered: address, wanted });
        }
        let routers = addresses(options.get(code::ROUTER), code::ROUTER)?;
        if server == host || routers.contains(&host) {
            return Err(TermsError::Taken(host));
        }
        // One that is not on the link is no next hop, but for a subnet of one address, where nothing else would be.
        let on_link = |router: &Ipv4Addr| address.prefix_len() == 32 || address.contains(router);
        let router = routers.into_iter().find(|router| is_host(router) && on_link(router));
        let classless = options.get(code::CLASSLESS_ROUTES);
        let routes = match (classless, options.get(code::STATIC_ROUTE)) {
            (Some(bytes), _) => classless_routes(bytes)?,
            (None, Some(bytes)) => classful_routes(bytes)?,
            (None, None) => Vec::new(),
        };
        let mtu = match options.get(code::MTU) {
            Some(&[high, low]) => Some(u16::from_be_bytes([high, low])).filter(|mtu| *mtu >= MIN_MTU),
            Some(_) => return Err(TermsError::Damaged(code::MTU)),
            None => None,
        };
        let mut name_servers = addresses(options.get(code::NAME_SERVER), code::NAME_SERVER)?;
        name_servers.truncate(MAX_NAME_SERVERS);
        let (lease_seconds, renew_seconds, rebind_seconds) = times(message)?;
        Ok(Self {
            address,
            server,
            router,
            routes,
            classless: classless.is_some(),
            name_servers,
            domain: options.get(code::DOMAIN_NAME).and_then(domain),
            mtu,
            lease_seconds,
            renew_seconds,
            rebind_seconds,
        })
    }

    /// The way to everywhere else, if the server names one.
    #[must_use]
    pub fn default_gateway(&self) -> Option<Ipv4Addr> {
        let default = self.routes.iter().find(|route| route.destination.prefix_len() == 0);
        match self.classless {
            true => default.and_then(|route| route.gateway),
            false => self.router,
        }
    }
}

fn is_host(address: &Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback() && !address.is_link_local()
}

/// Lease, T1 and T2; what contradicts itself is as RFC 2131, section 4.4.5 has it.
fn times(message: &Message) -> Result<(u32, u32, u32), TermsError> {
    let lease = match (message.options.get(code::LEASE_TIME), message.options.number(code::LEASE_TIME)) {
        (None, _) => DEFAULT_LEASE,
        (Some(_), None) => return Err(TermsError::Damaged(code::LEASE_TIME)),
        (_, Some(0)) => return Err(TermsError::NoTime),
        (_, Some(lease)) => lease,
    };
    let rebind = message.options.number(code::REBIND_TIME).filter(|rebind| *rebind > 0 && *rebind < lease);
    let rebind = rebind.unwrap_or(lease - lease / 8);
    let renew = message.options.number(code::RENEW_TIME).filter(|renew| *renew > 0 && *renew < rebind);
    Ok((lease, renew.unwrap_or((lease / 2).min(rebind)), rebind))
}

fn addresses(bytes: Option<&[u8]>, code: u8) -> Result<Vec<Ipv4Addr>, TermsError> {
    let (addresses, rest) = bytes.unwrap_or_default().as_chunks::<4>();
    if !rest.is_empty() {
        return Err(TermsError::Damaged(code));
    }
    Ok(addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect())
}

fn hop(octets: [u8; 4]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(octets)).filter(|gateway| !gateway.is_unspecified())
}

/// RFC 3442: prefix length, as many octets as it needs, gateway.
fn classless_routes(bytes: &[u8]) -> Result<Vec<Route>, TermsError> {
    let damaged = TermsError::Damaged(code::CLASSLESS_ROUTES);
    let mut routes = Vec::new();
    let mut rest = bytes;
    while let [prefix_len, after @ ..] = rest {
        let significant = usize::from(prefix_len.div_ceil(8));
        if *prefix_len > 32 || after.len() < significant + 4 || routes.len() == MAX_ROUTES {
            return Err(damaged);
        }
        let mut octets = [0; 4];
        octets[..significant].copy_from_slice(&after[..significant]);
        let (gateway, next) = after[significant..].split_first_chunk::<4>().ok_or(damaged.clone())?;
        let destination = Ipv4Net::new(octets.into(), *prefix_len).map_err(|_| damaged.clone())?.trunc();
        routes.push(Route { destination, gateway: hop(*gateway) });
        rest = next;
    }
    Ok(routes)
}

/// RFC 2132, section 5.8: pairs of a destination, whose length its class says, and a gateway.
fn classful_routes(bytes: &[u8]) -> Result<Vec<Route>, TermsError> {
    let (pairs, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || pairs.len() > MAX_ROUTES {
        return Err(TermsError::Damaged(code::STATIC_ROUTE));
    }
    let route = |pair: &[u8; 8]| {
        let [a, b, c, d, gateway @ ..] = *pair;
        let prefix_len = match a {
            0..128 => 8,
            128..192 => 16,
            _ => 24,
        };
        let destination = Ipv4Net::new(Ipv4Addr::new(a, b, c, d), prefix_len).ok()?.trunc();
        // A default route is not to be told this way.
        Some(Route { destination, gateway: hop(gateway) })
            .filter(|route| !route.destination.network().is_unspecified())
    };
    Ok(pairs.iter().filter_map(route).collect())
}

/// A name of letters, digits, dots and hyphens; anything else would end in some resolver's file.
fn domain(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').trim_end_matches('.');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!text.is_empty() && text.len() <= 253 && text.chars().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Kind;
    use crate::options::Options;
    use proptest::prelude::*;

    fn ack(changes: &[(u8, &[u8])]) -> Message {
        let mut options = Options::default();
        options.set(code::SERVER, [192, 0, 2, 1]);
        options.set(code::SUBNET_MASK, [255, 255, 255, 0]);
        options.set(code::LEASE_TIME, 800_u32.to_be_bytes());
        for (code, value) in changes {
            options.set(*code, *value);
        }
        Message {
            is_reply: true,
            kind: Kind::Ack,
            xid: 1,
            seconds: 0,
            broadcast: true,
            client_address: Ipv4Addr::UNSPECIFIED,
            your_address: Ipv4Addr::new(192, 0, 2, 50),
            relay: Ipv4Addr::UNSPECIFIED,
            mac: [2; 6],
            options,
        }
    }

    fn terms(changes: &[(u8, &[u8])]) -> Result<Terms, String> {
        Terms::of(&ack(changes), None).map_err(|error| error.to_string())
    }

    #[test]
    fn times_that_are_missing_or_contradict_each_other_are_the_rfcs() {
        let read = |t1: u32, t2: u32| {
            let terms =
                terms(&[(code::RENEW_TIME, &t1.to_be_bytes()), (code::REBIND_TIME, &t2.to_be_bytes())])
                    .unwrap();
            (terms.renew_seconds, terms.rebind_seconds)
        };
        assert_eq!(read(100, 200), (100, 200));
        assert_eq!(read(300, 200), (200, 200));
        assert_eq!(read(0, 900), (400, 700));
        let forever = terms(&[(code::LEASE_TIME, &[255; 4])]).unwrap();
        assert_eq!(forever.lease_seconds, u32::MAX);
        assert!(forever.renew_seconds < forever.rebind_seconds && forever.rebind_seconds < u32::MAX);
    }

    #[test]
    fn classless_routes_go_before_the_router() {
        let routes = [0, 192, 0, 2, 9, 17, 10, 1, 128, 0, 0, 0, 0];
        let terms = terms(&[(code::CLASSLESS_ROUTES, &routes), (code::ROUTER, &[192, 0, 2, 1])]).unwrap();
        assert_eq!(terms.default_gateway(), Some(Ipv4Addr::new(192, 0, 2, 9)));
        let on_link = Route { destination: "10.1.128.0/17".parse().unwrap(), gateway: None };
        assert_eq!(terms.routes[1], on_link);
    }

    #[test]
    fn routes_by_class_are_read_and_go_beside_the_router() {
        let routes = [10, 9, 9, 9, 192, 0, 2, 7, 0, 0, 0, 0, 192, 0, 2, 8];
        let terms = terms(&[(code::STATIC_ROUTE, &routes), (code::ROUTER, &[192, 0, 2, 1])]).unwrap();
        assert_eq!(terms.routes.len(), 1);
        assert_eq!(terms.routes[0].destination, "10.0.0.0/8".parse().unwrap());
        assert_eq!(terms.default_gateway(), Some(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn a_router_that_is_not_on_the_link_is_no_next_hop() {
        let routers = [198, 51, 100, 1, 192, 0, 2, 3];
        assert_eq!(terms(&[(code::ROUTER, &routers)]).unwrap().router, Some(Ipv4Addr::new(192, 0, 2, 3)));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let refused = |changes: &[(u8, &[u8])]| terms(changes).unwrap_err();
        let of = |address: [u8; 4], subnet: Option<&str>| {
            let message = Message { your_address: address.into(), ..ack(&[]) };
            Terms::of(&message, subnet.map(|subnet| subnet.parse().unwrap())).unwrap_err().to_string()
        };
        insta::assert_snapshot!([
            refused(&[(code::SERVER, &[])]),
            refused(&[(code::SERVER, &[0; 4])]),
            refused(&[(code::SUBNET_MASK, &[255, 0, 255, 0])]),
            refused(&[(code::SUBNET_MASK, &[0; 4])]),
            refused(&[(code::ROUTER, &[192, 0, 2])]),
            refused(&[(code::ROUTER, &[192, 0, 2, 50])]),
            refused(&[(code::LEASE_TIME, &[0; 4])]),
            refused(&[(code::LEASE_TIME, &[1])]),
            refused(&[(code::CLASSLESS_ROUTES, &[33, 1, 1, 1, 1, 1, 1, 1, 1])]),
            refused(&[(code::CLASSLESS_ROUTES, &[24, 10, 1])]),
            refused(&[(code::MTU, &[1])]),
            of([0, 0, 0, 0], None),
            of([127, 0, 0, 1], None),
            of([255, 255, 255, 255], None),
            of([192, 0, 2, 255], None),
            of([192, 0, 2, 1], None),
            of([192, 0, 2, 50], Some("192.0.2.64/26")),
        ].join("\n"), @r"
        it does not name its server (option 54)
        it does not name its server (option 54)
        it has no subnet mask (option 1)
        it has no subnet mask (option 1)
        option 3 is damaged
        192.0.2.50 is the router's or the server's own address
        it is lent for 0 s (option 51)
        option 51 is damaged
        option 121 is damaged
        option 121 is damaged
        option 26 is damaged
        0.0.0.0 is no address that a host can have
        127.0.0.1 is no address that a host can have
        255.255.255.255 is no address that a host can have
        192.0.2.255/24 is the first or the last of its subnet
        192.0.2.1 is the router's or the server's own address
        192.0.2.50/24 is outside the subnet 192.0.2.64/26 of the configuration
        ");
    }

    proptest! {
        #[test]
        fn whatever_the_options_say_nothing_panics_and_the_times_are_in_order(
            entries in proptest::collection::vec(
                (prop_oneof![Just(1u8), Just(3), Just(6), Just(26), Just(33), Just(51), Just(54), Just(58), Just(59), Just(121)],
                 proptest::collection::vec(any::<u8>(), 0..40)),
                0..10,
            ),
            address: u32,
        ) {
            let entries: Vec<(u8, &[u8])> = entries.iter().map(|(code, value)| (*code, value.as_slice())).collect();
            let message = Message { your_address: address.into(), ..ack(&entries) };
            if let Ok(terms) = Terms::of(&message, None) {
                prop_assert!(terms.renew_seconds <= terms.rebind_seconds);
                prop_assert!(terms.rebind_seconds <= terms.lease_seconds);
                prop_assert_ne!(terms.router, Some(terms.address.addr()));
            }
        }
    }
}
