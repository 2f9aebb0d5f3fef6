//! What a server granted, in the words of CNI (pure but for the look at the node's addresses).

use std::net::{IpAddr, Ipv4Addr};

use cni_spec::{CniError, DhcpConf, Dns, ErrorCode, Range, RangeSet, RangeSets, Route};
use dhcp_client::Terms;
use ipnet::{IpNet, Ipv4Net};
use kernel::address;
use kernel::netlink::Socket;

use crate::failure::kernel_refused;

/// The routes of a lease: to everywhere through `gateway`, and those that the server names.
pub(crate) fn routes(conf: &DhcpConf, terms: &Terms, gateway: Option<Ipv4Addr>) -> Vec<Route> {
    let default = gateway.map(|gateway| (Ipv4Net::default(), Some(gateway)));
    let named = terms.routes.iter().filter(|route| route.destination.prefix_len() > 0);
    // One to the subnet itself says nothing that the address does not.
    let named = named.filter(|route| route.destination != terms.address.trunc());
    let all = named.map(|route| (route.destination, route.gateway)).chain(default);
    all.map(|(destination, gateway)| {
        let route = Route::new(IpNet::V4(destination), gateway.map(IpAddr::V4));
        Route { priority: conf.priority, ..route }
    })
    .collect()
}

/// Name servers and domain of a lease.
pub(crate) fn dns(terms: &Terms) -> Dns {
    Dns {
        nameservers: terms.name_servers.iter().map(ToString::to_string).collect(),
        domain: terms.domain.clone(),
        ..Dns::default()
    }
}

/// The subnet of a lease as the one range of a network; `gateway` is what its pods reach first, where it says.
pub(crate) fn range_sets(terms: &Terms, gateway: Option<Ipv4Addr>) -> Result<RangeSets, CniError> {
    let subnet = IpNet::V4(terms.address.trunc());
    let unusable = |error: &dyn std::fmt::Display| {
        CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!("DHCP server {} granted {}, which pods cannot use: {error}", terms.server, terms.address),
        )
    };
    let range = Range::new(subnet, None, None, gateway.map(IpAddr::V4)).map_err(|error| unusable(&error))?;
    let set = RangeSet::new(vec![range]).map_err(|error| unusable(&error))?;
    RangeSets::new(vec![set]).map_err(|error| unusable(&error))
}

/// The node's own address on its link of `index`, in the subnet of a lease.
pub(crate) fn node_gateway(socket: &mut Socket, index: u32, terms: &Terms) -> Result<Ipv4Addr, CniError> {
    let held = address::dump(socket).map_err(kernel_refused)?;
    let own = held.iter().filter(|held| held.index == index).find_map(|held| match held.ip.addr() {
        IpAddr::V4(own) if terms.address.contains(&own) && own != terms.address.addr() => Some(own),
        _ => None,
    });
    own.ok_or_else(|| {
        CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!(
                "`ipam.defaultRoute` is `node`, but the node has no address of {} on the pods' link: give it one, or \
                 write `router`",
                terms.address.trunc()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni_spec::DhcpPluginConf;

    #[test]
    fn routes_of_the_server_and_the_way_to_everywhere_carry_the_priority() {
        let conf = br#"{"cniVersion":"1.0.0","name":"n","type":"x","ipam":{"type":"dhcp","priority":50}}"#;
        let conf = DhcpPluginConf::parse(conf).unwrap().dhcp;
        let terms: Terms = serde_json::from_str(
            r#"{"address":"192.0.2.5/24","server":"192.0.2.1","classless":true,"leaseSeconds":1,"renewSeconds":1,
                "rebindSeconds":1,"routes":[{"destination":"0.0.0.0/0","gateway":"192.0.2.9"},
                {"destination":"10.0.0.0/8","gateway":"192.0.2.7"},{"destination":"192.0.2.0/24"}]}"#,
        )
        .unwrap();
        let routes = routes(&conf, &terms, terms.default_gateway());
        let shown: Vec<_> = routes.iter().map(|r| (r.dst.to_string(), r.gw, r.priority)).collect();
        let gw = |text: &str| Some(text.parse().unwrap());
        assert_eq!(
            shown,
            [
                ("10.0.0.0/8".to_owned(), gw("192.0.2.7"), Some(50)),
                ("0.0.0.0/0".to_owned(), gw("192.0.2.9"), Some(50))
            ]
        );
    }
}
