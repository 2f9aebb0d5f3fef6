//! Host names, read from /etc/hosts and asked of the servers in /etc/resolv.conf. Not by the C library: the static one
//! that we ship would load shared objects for it, and finds none.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;

/// Both families and every server are tried within this.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where this node's own names are. A name in it is asked of nobody: it is there for when name servers are not.
const HOSTS: &str = "/etc/hosts";

/// The addresses of `host`, which may be one itself.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let known = in_hosts(&std::fs::read_to_string(HOSTS).unwrap_or_default(), host);
    if !known.is_empty() {
        return Ok(known.into_iter().map(|address| SocketAddr::new(address, port)).collect());
    }
    // Read anew each time: connections are rare, and DHCP rewrites resolv.conf as it likes.
    let resolver = TokioResolver::builder_tokio()
        .and_then(hickory_resolver::ResolverBuilder::build)
        .map_err(io::Error::other)?;
    let found = tokio::time::timeout(DEADLINE, resolver.lookup_ip(host))
        .await
        .map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the name servers of /etc/resolv.conf do not answer")
        })?
        .map_err(io::Error::other)?;
    Ok(found.iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// What a hosts file (hosts(5)) says of a name; a line that is none says nothing.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let wanted = host.trim_end_matches('.');
    let entries = text.lines().filter_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(wanted)).then_some(address)
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_gives_every_address_of_a_name_and_of_nothing_else() {
        let text = "# api 9.9.9.9\n192.0.2.1 node1 API.example # api2\nfd00::1\tapi.example\nnonsense api.example\n192.0.2.2\n";
        let found = |host| in_hosts(text, host).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("api.example"), ["192.0.2.1", "fd00::1"]);
        assert_eq!(found("api.example."), ["192.0.2.1", "fd00::1"]);
        for host in ["api2", "api", "example", "", "#"] {
            assert!(found(host).is_empty(), "{host}");
        }
    }
}
