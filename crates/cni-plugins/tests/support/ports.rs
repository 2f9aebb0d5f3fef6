//! What tests of host ports share: configurations, and connections that are made and tried.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use kernel::link;
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use serde_json::{Value, json};

use super::node::{NODE_ADDRESSES, Node, Pod, change, ip};
use super::{PATIENCE, one_datagram};

/// What nobody has answered for so long, nobody answers: everything here is one machine.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// A configuration with the node's addresses and these mappings.
pub(crate) fn conf(node: &Node, mode: &str, mappings: &Value) -> Value {
    let runtime = json!({"portMappings": mappings});
    node.conf_with(json!({"mode": mode, "nodeAddresses": NODE_ADDRESSES, "runtimeConfig": runtime}))
}

pub(crate) fn web() -> Value {
    json!([
        {"hostPort": 8080, "containerPort": 80},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
    ])
}

pub(crate) fn web_on(port: u16) -> Value {
    json!([{"hostPort": port, "containerPort": 80}])
}

/// Connects from `client` and gives the address that `server` sees, after a word each way.
pub(crate) fn connect(client: &NetNs, to: SocketAddr, server: &TcpListener) -> IpAddr {
    let mut stream = client.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
    let (mut accepted, seen) = server.accept().unwrap();
    for stream in [&stream, &accepted] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut word = [0; 4];
    stream.write_all(b"ping").unwrap();
    accepted.read_exact(&mut word).unwrap();
    accepted.write_all(b"pong").unwrap();
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"pong");
    seen.ip()
}

pub(crate) fn listen(pod: &Pod, address: IpAddr, port: u16) -> TcpListener {
    pod.ns.run(|| TcpListener::bind((address, port))).unwrap().unwrap()
}

/// As when a pod's namespace dies and nobody runs DEL.
pub(crate) fn drop_links() {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    for found in link::dump(&mut socket).unwrap() {
        if found.name.starts_with("hgw") {
            change(|batch, _| link::delete(batch, found.index));
        }
    }
}

/// Whether nobody answers there.
pub(crate) fn is_closed(client: &NetNs, to: SocketAddr) -> bool {
    let outcome = client.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// One datagram there and its answer back, which must come from where it was sent to.
pub(crate) fn ask(client: &UdpSocket, to: SocketAddr, server: &UdpSocket) -> IpAddr {
    let seen = one_datagram(client, to, server);
    assert_eq!(one_datagram(server, seen, client), to, "the answer comes from elsewhere");
    seen.ip()
}

/// All addresses of the family of this one.
pub(crate) fn any(of: &str) -> IpAddr {
    ip(if of.contains(':') { "::" } else { "0.0.0.0" })
}
