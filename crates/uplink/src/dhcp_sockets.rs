//! DHCP clients as the network namespace's own tables of sockets tell (`/proc/net/udp`, `packet`): whoever has the namespace
//! sees them, also from a container that does not see the node's processes.

use std::fs;
use std::net::IpAddr;

/// Where a client of DHCP is answered (RFC 2131, 4.1).
const CLIENT_PORT: u16 = 68;
/// The same of DHCPv6 (RFC 8415, 7.2).
const CLIENT_PORT_V6: u16 = 546;
/// What packet sockets of DHCP clients listen to: `ETH_P_ALL` or `ETH_P_IP`.
const HEARD: [u16; 2] = [0x0003, 0x0800];

/// The tables of one network namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// UDP sockets, of both families.
    udp: Vec<UdpSocket>,
    /// The link of each packet socket that a client of DHCP could have; 0 hears every link.
    packet: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UdpSocket {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// A socket that a DHCP client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientSocket {
    /// By which `/proc/PID/fd` names its holder.
    pub(crate) inode: u64,
    /// It is bound to an address of the link; otherwise to none, and its holder's words may tell that it is another link's.
    pub(crate) certain: bool,
}

impl Tables {
    /// Those of the calling thread's network namespace. A kernel without a family has no such table.
    pub(crate) fn read() -> Self {
        let table = |name: &str| {
            let path = format!("/proc/thread-self/net/{name}");
            fs::read_to_string(path).unwrap_or_default()
        };
        Self::parse(&[table("udp"), table("udp6")], &table("packet"))
    }

    fn parse(udp: &[String], packet: &str) -> Self {
        let rows = udp.iter().flat_map(|table| table.lines().skip(1));
        Self {
            udp: rows.filter_map(udp_socket).collect(),
            packet: packet.lines().skip(1).filter_map(packet_link).collect(),
        }
    }

    /// The sockets of clients that work on the link of this index, which holds `addresses`. One that is bound to no address
    /// is taken for the link's unless packet sockets beside it hear other links only.
    pub(crate) fn clients_of(&self, index: u32, addresses: &[IpAddr]) -> Vec<ClientSocket> {
        let hears_link = self.packet.iter().any(|heard| [0, index].contains(heard));
        let elsewhere = !hears_link && !self.packet.is_empty();
        let is_clients = |socket: &&UdpSocket| match socket.address {
            IpAddr::V4(_) => socket.port == CLIENT_PORT,
            IpAddr::V6(_) => [CLIENT_PORT, CLIENT_PORT_V6].contains(&socket.port),
        };
        let of_link = |socket: &UdpSocket| {
            let certain = addresses.contains(&socket.address);
            // Packet sockets say nothing of DHCPv6, whose clients have none.
            let possible = socket.address.is_unspecified() && (socket.port == CLIENT_PORT_V6 || !elsewhere);
            (certain || possible).then_some(ClientSocket { inode: socket.inode, certain })
        };
        self.udp.iter().filter(is_clients).filter_map(of_link).collect()
    }
}

/// A row of `/proc/net/udp` or `udp6`: the second word is the local address, of 32-bit words in the machine's order, and the
/// port; the tenth the inode.
fn udp_socket(row: &str) -> Option<UdpSocket> {
    let words: Vec<&str> = row.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = words.get(9)?.parse().ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(UdpSocket { address: unmapped(address), port, inode })
}

/// A socket of both families is bound to an IPv4 address by its mapped form.
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// A row of `/proc/net/packet`: the fourth word is what it listens to, the fifth the link's index.
fn packet_link(row: &str) -> Option<u32> {
    let words: Vec<&str> = row.split_whitespace().collect();
    let heard = u16::from_str_radix(words.get(3)?, 16).ok()?;
    HEARD.contains(&heard).then(|| words.get(4)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
    const PACKET: &str = "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n";

    fn v4(address: [u8; 4], port: u16, inode: u64) -> String {
        let word = u32::from_ne_bytes(address);
        format!(
            "  1: {word:08X}:{port:04X} 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 {inode} 2 0 0\n"
        )
    }

    fn v6(address: Ipv6Addr, port: u16, inode: u64) -> String {
        let octets = address.octets();
        let words: String = octets
            .chunks(4)
            .map(|four| format!("{:08X}", u32::from_ne_bytes([four[0], four[1], four[2], four[3]])))
            .collect();
        format!(
            "  1: {words}:{port:04X} {:032}:0000 07 00000000:00000000 00:00000000 00000000     0        0 {inode} 2 0 0\n",
            0
        )
    }

    fn packet(heard: u16, link: u32) -> String {
        format!("0000000000000000 3      3    {heard:04x}   {link}     1 0      0      99\n")
    }

    /// The inodes of the clients of link 2, which holds 192.0.2.1 and `fe80::1`; a certain one's is followed by `!`.
    fn found(udp: &[String], udp6: &[String], packets: &[String]) -> Vec<String> {
        let tables = Tables::parse(
            &[UDP.to_owned() + &udp.concat(), UDP.to_owned() + &udp6.concat()],
            &(PACKET.to_owned() + &packets.concat()),
        );
        let held = ["192.0.2.1", "fe80::1"].map(|address| address.parse().unwrap());
        let shown =
            |client: &ClientSocket| format!("{}{}", client.inode, if client.certain { "!" } else { "" });
        tables.clients_of(2, &held).iter().map(shown).collect()
    }

    #[test]
    fn a_client_that_is_bound_to_an_address_of_the_link_is_the_links() {
        assert_eq!(found(&[v4([192, 0, 2, 1], 68, 7), v4([10, 1, 1, 1], 68, 8)], &[], &[]), ["7!"]);
        let (own, other) = ("fe80::1".parse().unwrap(), "fe80::2".parse().unwrap());
        assert_eq!(found(&[], &[v6(own, 546, 7), v6(other, 546, 8)], &[]), ["7!"]);
    }

    #[test]
    fn a_client_that_is_bound_to_no_address_is_of_the_link_that_it_hears() {
        let any = || [v4([0, 0, 0, 0], 68, 7)];
        assert_eq!(found(&any(), &[], &[packet(3, 2)]), ["7"]);
        assert_eq!(found(&any(), &[], &[packet(0x0800, 3)]), Vec::<String>::new());
        // Who listens to other frames is no DHCP client, and tells nothing.
        assert_eq!(found(&any(), &[], &[packet(0x88cc, 3)]), ["7"]);
        assert_eq!(found(&any(), &[], &[]), ["7"]);
        let any = v6(Ipv6Addr::UNSPECIFIED, 546, 9);
        assert_eq!(found(&[], &[any], &[packet(3, 3)]), ["9"]);
    }

    #[test]
    fn other_ports_and_rows_that_cannot_be_read_are_nobodys() {
        let odd = ["", "x", "1: 0000:44", "1: 0100007F:XX 2 3 4 5 6 7 8 9"].map(|row| format!("{row}\n"));
        assert_eq!(found(&odd, &odd, &odd), Vec::<String>::new());
        assert_eq!(found(&[v4([192, 0, 2, 1], 67, 7)], &[], &[packet(3, 2)]), Vec::<String>::new());
    }
}
