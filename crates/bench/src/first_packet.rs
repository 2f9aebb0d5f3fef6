//! The proof that an attached pod can speak at once: exactly one datagram in each of its families, never repeated, must arrive
//! at the node.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::error::{Attempting, BenchError};
use crate::node::Pod;
use crate::side::Side;

const PORT: u16 = 9999;
const PATIENCE: Duration = Duration::from_secs(1);
/// The pods' gateways, which are the node's on every side; IPv4's first.
const GATEWAYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 88, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 1))];

/// Sends the two datagrams from the pod; says which did not arrive.
pub(crate) fn prove(side: &Side, pod: &Pod) -> Result<(), BenchError> {
    let families = if side.is_dual_stack { 2 } else { 1 };
    for gateway in GATEWAYS.into_iter().take(families) {
        let any: IpAddr = if gateway.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let attempted = || format!("reach {gateway} from {} of {} by its first packet", pod.id, side.name());
        let listener = bind(any, PORT).attempting("listen for first packets")?;
        let sent = side.node.inside(pod, || {
            let socket = bind(any, 0)?;
            socket.send_to(pod.id.as_bytes(), SocketAddr::new(gateway, PORT)).map(|_| ())
        })?;
        sent.attempting(attempted())?;
        let mut datagram = [0; 64];
        loop {
            let length = listener.recv(&mut datagram).attempting(attempted())?;
            if datagram.get(..length) == Some(pod.id.as_bytes()) {
                break;
            }
        }
    }
    Ok(())
}

fn bind(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}
