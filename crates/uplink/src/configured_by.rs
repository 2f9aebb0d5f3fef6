//! Which program configures a link, and which DHCP client works on it, as their run-time files and processes tell.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use kernel::netns;

/// DHCP clients that are programs of their own, and programs that manage links in a way we cannot write.
const CLIENTS: [&str; 4] = ["dhclient", "dhcpcd", "udhcpc", "connmand"];

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
        /// The client's name and process.
        client: Option<(String, u32)>,
    },
    /// Another DHCP client, or manager.
    Client {
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
    },
}

impl Program {
    /// Why a join that does not change, or with `persist` does change, this program's configuration is unsafe: the remedy.
    #[must_use]
    pub fn objection(&self, persist: bool) -> Option<&'static str> {
        match self {
            Self::Client { .. } => {
                Some("end it, or let one of the programs that --persist knows do its work")
            }
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
            Self::Ifupdown { client: Some((name, pid)) } => write!(f, "ifupdown by {name} (process {pid})"),
            Self::Client { name, pid } => write!(f, "{name} (process {pid})"),
        }
    }
}

/// Who configures the link. `root` is `/`, or where a container has the host's.
#[must_use]
pub fn configured_by(root: &Path, index: u32, link: &str) -> Option<Program> {
    let client = client_of(link);
    networkd(root, index)
        .or_else(|| network_manager(root, index))
        .or_else(|| ifupdown(root, link, client.as_ref()))
        .or_else(|| client.map(|(name, pid)| Program::Client { name, pid }))
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

fn ifupdown(root: &Path, link: &str, client: Option<&(String, u32)>) -> Option<Program> {
    let state = fs::read_to_string(root.join("run/network/ifstate")).ok()?;
    let up = |line: &str| line.split_once('=').map_or(line, |(link, _)| link) == link;
    state.lines().any(up).then(|| Program::Ifupdown { client: client.cloned() })
}

/// A DHCP client of this network namespace that was started for the link, or for all.
fn client_of(link: &str) -> Option<(String, u32)> {
    let here = netns::id_of(Path::new("/proc/thread-self/ns/net"))?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim_end().to_owned();
        if !CLIENTS.contains(&name.as_str()) || netns::id_of(&entry.path().join("ns/net")) != Some(here) {
            return None;
        }
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        let mut arguments = arguments.split(|byte| *byte == 0).skip(1);
        let for_all = matches!(name.as_str(), "dhcpcd" | "connmand");
        (for_all || arguments.any(|argument| argument == link.as_bytes())).then_some((name, pid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(configured_by(root.path(), 7, "eth0").unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_link_that_they_leave_alone_is_not_theirs() {
        let root = root_with(&[
            ("run/systemd/netif/links/7", "ADMIN_STATE=unmanaged\n"),
            ("run/NetworkManager/devices/7", "[device]\nmanaged=false\n"),
            ("run/network/ifstate", "lo=lo\neth01=eth01\n"),
        ]);
        assert_eq!(configured_by(root.path(), 7, "eth0"), None);
    }

    #[test]
    fn without_a_change_of_its_configuration_a_manager_is_an_objection() {
        let networkd = Program::Networkd { file: None, dhcp: false };
        assert!(networkd.objection(false).is_some());
        assert!(networkd.objection(true).is_none());
        assert!(Program::Client { name: "dhcpcd".to_owned(), pid: 9 }.objection(true).is_some());
        assert!(Program::Ifupdown { client: None }.objection(false).is_none());
    }
}
