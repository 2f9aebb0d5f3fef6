//! The answering side: every line or datagram is answered with the same bytes, the server's name, and the source.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

/// A request is at most this long.
const LONGEST: usize = 2048;

/// Serves for ever, on every address of the pod, in both families.
pub fn serve(name: &str, port: u16) -> io::Result<()> {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let tcp = TcpListener::bind(everywhere)?;
    let udp = UdpSocket::bind(everywhere)?;
    let udp_name = name.to_owned();
    thread::spawn(move || {
        let mut buffer = [0; LONGEST];
        loop {
            // An error is an ICMP message about an earlier answer.
            let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
            let _ = udp.send_to(answer(&buffer[..length], &udp_name, from).as_bytes(), from);
        }
    });
    for connection in tcp.incoming().flatten() {
        let name = name.to_owned();
        thread::spawn(move || answer_lines(&connection, &name));
    }
    Ok(())
}

fn answer_lines(connection: &TcpStream, name: &str) -> io::Result<()> {
    let from = connection.peer_addr()?;
    connection.set_nodelay(true)?;
    let mut lines = BufReader::new(connection);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let mut writer = connection;
        writer.write_all((answer(line.trim_ascii_end(), name, from) + "\n").as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// `REQUEST NAME SOURCE`.
fn answer(request: &[u8], name: &str, from: SocketAddr) -> String {
    format!("{} {name} {}", String::from_utf8_lossy(request), from.ip().to_canonical())
}
