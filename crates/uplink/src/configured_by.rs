//! Which program configures a link, and which DHCP client works on it, as their run-time files, sockets and processes tell.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use kernel::netns;

use crate::dhcp_sockets::{ClientSocket, Tables};
use crate::object::LinkRef;

/// DHCP clients that are programs of their own, and programs that manage links in a way we cannot write.
const CLIENTS: [&str; 4] = ["dhclient", "dhcpcd", "udhcpc", "connmand"];
/// The machine's first namespace of processes (`PID_NS_INIT_INO`, `linux/nsfs.h`).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A DHCP client, or a manager that is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its name and process; none where only its socket is seen from here.
    pub process: Option<(String, u32)>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((name, pid)) => write!(f, "{name} (process {pid})"),
            None => f.write_str("a DHCP client (it listens to UDP port 68 or 546, `ss -lunp` names it)"),
        }
    }
}

/// A program that configures links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// systemd-networkd; with the `.network` file that applies.
    Networkd {
        /// The file.
        file: Option<PathBuf>,
        /// Its DHCP client has a lease on the link.
        dhcp: bool,
    },
    /// netplan, which writes configuration for systemd-networkd.
    Netplan {
        /// Its DHCP client has a lease on the link.
        dhcp: bool,
    },
    /// NetworkManager; with the uuid of the connection.
    NetworkManager {
        /// `connection-uuid`.
        connection: Option<String>,
    },
    /// ifupdown; with the DHCP client that it started.
    Ifupdown {
        /// The client.
        client: Option<Client>,
    },
    /// Another DHCP client, or manager.
    Client(Client),
}

impl Program {
    /// Why a join that does not change, or with `persist` does change, this program's configuration is unsafe: the remedy.
    #[must_use]
    pub fn objection(&self, persist: bool) -> Option<&'static str> {
        match self {
            Self::Client(_) => Some("end it, or let one of the programs that --persist knows do its work"),
            Self::Ifupdown { client: None } => None,
            _ if persist => None,
            _ => Some("add --persist, which changes its configuration too, or make it leave the link alone"),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lease = |dhcp: &bool| if *dhcp { " (with its DHCP client)" } else { "" };
        match self {
            Self::Networkd { dhcp, .. } => write!(f, "systemd-networkd{}", lease(dhcp)),
            Self::Netplan { dhcp } => write!(f, "netplan by systemd-networkd{}", lease(dhcp)),
            Self::NetworkManager { .. } => f.write_str("NetworkManager"),
            Self::Ifupdown { client: None } => f.write_str("ifupdown"),
            Self::Ifupdown { client: Some(client) } => write!(f, "ifupdown by {client}"),
            Self::Client(client) => client.fmt(f),
        }
    }
}

/// Who configures the link, which holds `addresses`. `root` is `/`, or where a container has the host's.
#[must_use]
pub fn configured_by(root: &Path, link: &LinkRef, addresses: &[IpAddr]) -> Option<Program> {
    let client = client_of(link, addresses);
    networkd(root, link.index)
        .or_else(|| network_manager(root, link.index))
        .or_else(|| ifupdown(root, &link.name, client.as_ref()))
        .or_else(|| client.map(Program::Client))
}

/// Whether `/proc` shows the processes of the whole machine here. Where it does not, as in a container that does not share
/// them, a DHCP client that has no socket between two renewals cannot be seen.
#[must_use]
pub fn sees_every_process() -> bool {
    netns::id_of(Path::new("/proc/self/ns/pid")).is_some_and(|id| id.inode == FIRST_PID_NAMESPACE)
}

fn networkd(root: &Path, index: u32) -> Option<Program> {
    let text = fs::read_to_string(root.join("run/systemd/netif/links").join(index.to_string())).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if matches!(value("ADMIN_STATE"), None | Some("unmanaged" | "initialized" | "pending")) {
        return None;
    }
    let file = value("NETWORK_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
    let dhcp = text.lines().any(|line| line.starts_with("DHCP_LEASE=") || line.starts_with("DHCP_SERVER="))
        || root.join("run/systemd/netif/leases").join(index.to_string()).exists();
    let by_netplan = file
        .as_deref()
        .and_then(Path::file_name)
        .is_some_and(|name| name.to_string_lossy().contains("-netplan-"));
    Some(if by_netplan { Program::Netplan { dhcp } } else { Program::Networkd { file, dhcp } })
}

fn network_manager(root: &Path, index: u32) -> Option<Program> {
    let text = fs::read_to_string(root.join("run/NetworkManager/devices").join(index.to_string())).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    (value("managed") == Some("true"))
        .then(|| Program::NetworkManager { connection: value("connection-uuid").map(str::to_owned) })
}

fn ifupdown(root: &Path, link: &str, client: Option<&Client>) -> Option<Program> {
    let state = fs::read_to_string(root.join("run/network/ifstate")).ok()?;
    let up = |line: &str| line.split_once('=').map_or(line, |(link, _)| link) == link;
    state.lines().any(up).then(|| Program::Ifupdown { client: client.cloned() })
}

/// A process that may configure links.
#[derive(Debug)]
struct Process {
    pid: u32,
    name: String,
    arguments: Vec<Vec<u8>>,
    /// It is in this network namespace, as far as its first thread tells: its sockets may be of another.
    is_here: bool,
    /// `/proc/PID/fd`.
    open: PathBuf,
}

impl Process {
    /// Those that can be seen from here.
    fn all() -> Vec<Self> {
        let here = netns::id_of(Path::new("/proc/thread-self/ns/net"));
        let read = |entry: fs::DirEntry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let is_here = netns::id_of(&entry.path().join("ns/net")) == here;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim_end().to_owned();
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let arguments = arguments.split(|byte| *byte == 0).skip(1).map(<[u8]>::to_vec).collect();
            Some(Self { pid, name, arguments, is_here, open: entry.path().join("fd") })
        };
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(read).collect()
    }

    fn is_told(&self, link: &str) -> bool {
        self.arguments.iter().any(|argument| argument == link.as_bytes())
    }

    fn holds(&self, socket: ClientSocket) -> bool {
        let name = format!("socket:[{}]", socket.inode);
        let open = fs::read_dir(&self.open).into_iter().flatten().flatten();
        open.into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == name.as_str()))
    }

    fn as_client(&self) -> Client {
        Client { process: Some((self.name.clone(), self.pid)) }
    }
}

/// A DHCP client of this network namespace that works on the link: one that has a socket for it, or a process that was
/// started for it, or for all links.
fn client_of(link: &LinkRef, addresses: &[IpAddr]) -> Option<Client> {
    let processes = Process::all();
    let by_socket = Tables::read().clients_of(link.index, addresses).into_iter().find_map(|socket| {
        let Some(holder) = processes.iter().find(|process| process.holds(socket)) else {
            return Some(Client { process: None });
        };
        let for_another = !socket.certain && !holder.is_told(&link.name) && names_a_link(&holder.arguments);
        (!for_another).then(|| holder.as_client())
    });
    by_socket.or_else(|| {
        let for_link = |process: &&Process| {
            let for_all = matches!(process.name.as_str(), "dhcpcd" | "connmand");
            process.is_here
                && CLIENTS.contains(&process.name.as_str())
                && (for_all || process.is_told(&link.name))
        };
        processes.iter().find(for_link).map(Process::as_client)
    })
}

/// Whether a link is named among the arguments of a program.
fn names_a_link(arguments: &[Vec<u8>]) -> bool {
    let is_link = |name: &str| {
        let is_name = !name.contains('/') && !["", ".", "..", "all", "default"].contains(&name);
        is_name && Path::new("/proc/sys/net/ipv4/conf").join(name).exists()
    };
    arguments.iter().filter_map(|argument| std::str::from_utf8(argument).ok()).any(is_link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> LinkRef {
        LinkRef { index: 7, name: "eth0".to_owned() }
    }

    fn root_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn each_program_is_known_by_its_run_time_files() {
        let cases = [
            (
                "run/systemd/netif/links/7",
                "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/lan.network\nDHCP_LEASE=x\n",
                "systemd-networkd (with its DHCP client)",
            ),
            (
                "run/systemd/netif/links/7",
                "ADMIN_STATE=configured\nNETWORK_FILE=/run/systemd/network/10-netplan-eth0.network\n",
                "netplan by systemd-networkd",
            ),
            ("run/NetworkManager/devices/7", "[device]\nmanaged=true\nconnection-uuid=u\n", "NetworkManager"),
            ("run/network/ifstate", "lo=lo\neth0=eth0\n", "ifupdown"),
        ];
        for (path, text, name) in cases {
            let root = root_with(&[(path, text)]);
            assert_eq!(configured_by(root.path(), &link(), &[]).unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_link_that_they_leave_alone_is_not_theirs() {
        let root = root_with(&[
            ("run/systemd/netif/links/7", "ADMIN_STATE=unmanaged\n"),
            ("run/NetworkManager/devices/7", "[device]\nmanaged=false\n"),
            ("run/network/ifstate", "lo=lo\neth01=eth01\n"),
        ]);
        assert_eq!(configured_by(root.path(), &link(), &[]), None);
    }

    #[test]
    fn without_a_change_of_its_configuration_a_manager_is_an_objection() {
        let networkd = Program::Networkd { file: None, dhcp: false };
        assert!(networkd.objection(false).is_some());
        assert!(networkd.objection(true).is_none());
        let dhcpcd = Client { process: Some(("dhcpcd".to_owned(), 9)) };
        assert!(Program::Client(dhcpcd).objection(true).is_some());
        assert!(Program::Ifupdown { client: None }.objection(false).is_none());
    }
}
