//! Host names, read from /etc/hosts and asked of the servers in /etc/resolv.conf. Not by the C library: the static one
//! that we ship would load shared objects for it, and finds none.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;

/// Both families and every server are tried within this.
const DEADLINE: Duration = Duration::from_secs(10);

/// The addresses of `host`, which may be one itself.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
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
