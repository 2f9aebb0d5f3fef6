//! What the configuration of each program becomes, and what that program's own checker says of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use uplink::configured_by::{Client, Program};
use uplink::persist::{Proposal, diff, propose};
use uplink::plan::NewBridge;

const UUID: &str = "0a1b2c3d-1111-4222-8333-444455556666";

struct Case {
    name: &'static str,
    program: Program,
    file: &'static str,
    before: &'static str,
    /// What must stand in one of the files afterwards.
    after: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "networkd",
            program: Program::Networkd {
                file: Some(PathBuf::from("/etc/systemd/network/lan.network")),
                dhcp: true,
            },
            file: "/etc/systemd/network/lan.network",
            before: "[Match]\nName=eth0\n\n[Link]\nMTUBytes=1400\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nUseDNS=no\n",
            after: &[
                "[NetDev]\nName=br0\nKind=bridge\nMACAddress=02:00:00:00:00:01\nMTUBytes=1500\n\n[Bridge]\nSTP=no\n",
                "[Match]\nName=eth0\n\n[Network]\nBridge=br0\nLinkLocalAddressing=no\n",
                "[Match]\nName=br0\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nUseDNS=no\n",
            ],
        },
        Case {
            name: "netplan",
            program: Program::Netplan { dhcp: true },
            file: "/etc/netplan/50-cloud-init.yaml",
            before: "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    eth0:\n      match:\n        macaddress: \"02:00:00:00:00:01\"\n      set-name: eth0\n      # by the provider\n      addresses:\n        - 192.0.2.1/24\n      dhcp6: true\n      routes:\n        - to: default\n          via: 192.0.2.254\n    eth1:\n      dhcp4: true\n",
            after: &[
                "    eth0:\n      match:\n        macaddress: \"02:00:00:00:00:01\"\n      set-name: eth0\n",
                "      dhcp4: false\n      dhcp6: false\n    eth1:\n      dhcp4: true\n  bridges:\n    br0:\n      interfaces: [eth0]\n",
                "        forward-delay: 0\n      addresses:\n        - 192.0.2.1/24\n      dhcp6: true\n      routes:\n        - to: default\n          via: 192.0.2.254\n",
            ],
        },
        Case {
            name: "network_manager",
            program: Program::NetworkManager { connection: Some(UUID.to_owned()) },
            file: "/etc/NetworkManager/system-connections/lan.nmconnection",
            before: "[connection]\nid=lan\nuuid=0a1b2c3d-1111-4222-8333-444455556666\ntype=ethernet\ninterface-name=eth0\n\n[ethernet]\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\naddr-gen-mode=stable-privacy\n",
            after: &[
                "[connection]\nid=hostgw-br0\nuuid=f5e4d3c2-1111-4222-8333-444455556666\ntype=bridge\ninterface-name=br0\n\n[bridge]\nmac-address=02:00:00:00:00:01\nstp=false\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\naddr-gen-mode=stable-privacy\n",
                "[connection]\nid=lan\nuuid=0a1b2c3d-1111-4222-8333-444455556666\ntype=ethernet\ninterface-name=eth0\nmaster=br0\nslave-type=bridge\n\n[ethernet]\n\n",
            ],
        },
        Case {
            name: "ifupdown",
            program: Program::Ifupdown { client: Some(Client { process: Some(("dhclient".to_owned(), 7)) }) },
            file: "/etc/network/interfaces",
            before: "auto lo\niface lo inet loopback\n\n# the uplink\nallow-hotplug eth0\niface eth0 inet dhcp\niface eth0 inet6 static\n    address 2001:db8::1/64\n    up ip route add 10.0.0.0/8 dev eth0\n\nauto eth01\niface eth01 inet manual\n",
            after: &[
                "auto br0\niface br0 inet dhcp\n    bridge_ports eth0\n    bridge_hw 02:00:00:00:00:01\n    bridge_stp off\n    bridge_fd 0\niface br0 inet6 static\n    address 2001:db8::1/64\n    up ip route add 10.0.0.0/8 dev br0\n\nauto eth01\niface eth01 inet manual\n",
            ],
        },
    ]
}

/// Bonds and VLAN links: what makes them what they are stays with them.
fn layered() -> Vec<Case> {
    vec![
        Case {
            name: "netplan",
            program: Program::Netplan { dhcp: false },
            file: "/etc/netplan/bond.yaml",
            before: "network:\n  ethernets:\n    eno1: {}\n    eno2: {}\n  bonds:\n    eth0:\n      interfaces: [eno1, eno2]\n      parameters:\n        mode: active-backup\n      addresses: [192.0.2.1/24]\n",
            after: &[
                "    eth0:\n      interfaces: [eno1, eno2]\n      parameters:\n        mode: active-backup\n      dhcp4: false\n      dhcp6: false\n  bridges:\n    br0:\n      interfaces: [eth0]\n",
                "        forward-delay: 0\n      addresses: [192.0.2.1/24]\n",
            ],
        },
        Case {
            name: "netplan",
            program: Program::Netplan { dhcp: false },
            file: "/etc/netplan/vlan.yaml",
            before: "network:\n  ethernets:\n    eno1: {}\n  vlans:\n    eth0:\n      id: 5\n      link: eno1\n      addresses: [192.0.2.1/24]\n",
            after: &[
                "    eth0:\n      id: 5\n      link: eno1\n      dhcp4: false\n",
                "  bridges:\n    br0:\n",
            ],
        },
        Case {
            name: "networkd",
            program: Program::Networkd {
                file: Some(PathBuf::from("/etc/systemd/network/lan.network")),
                dhcp: false,
            },
            file: "/etc/systemd/network/lan.network",
            before: "[Match]\nName=eth0\n\n[Network]\nVLAN=eth0.5\nAddress=192.0.2.1/24\n",
            after: &[
                "[Network]\nBridge=br0\nLinkLocalAddressing=no\nVLAN=eth0.5\n",
                "[Match]\nName=br0\n\n[Network]\nAddress=192.0.2.1/24\n",
            ],
        },
        Case {
            name: "network_manager",
            program: Program::NetworkManager { connection: Some(UUID.to_owned()) },
            file: "/etc/NetworkManager/system-connections/bond.nmconnection",
            before: "[connection]\nid=lan\nuuid=0a1b2c3d-1111-4222-8333-444455556666\ntype=bond\ninterface-name=eth0\n\n[bond]\nmode=active-backup\n\n[ipv4]\nmethod=auto\n",
            after: &[
                "type=bond\ninterface-name=eth0\nmaster=br0\nslave-type=bridge\n\n[bond]\nmode=active-backup\n",
                "stp=false\n\n[ipv4]\nmethod=auto\n",
            ],
        },
        Case {
            name: "ifupdown",
            program: Program::Ifupdown { client: None },
            file: "/etc/network/interfaces",
            before: "auto eth0\niface eth0 inet static\n    address 192.0.2.1/24\n    bond-slaves eno1 eno2\n    bond-mode active-backup\n",
            after: &[
                "auto eth0 br0\niface eth0 inet manual\n    bond-slaves eno1 eno2\n    bond-mode active-backup\n\niface br0 inet static\n    bridge_ports eth0\n    bridge_hw 02:00:00:00:00:01\n    bridge_stp off\n    bridge_fd 0\n    address 192.0.2.1/24\n",
            ],
        },
        Case {
            name: "ifupdown",
            program: Program::Ifupdown { client: None },
            file: "/etc/network/interfaces",
            before: "allow-hotplug eth0\niface eth0 inet dhcp\n    vlan-raw-device eno1\n",
            after: &[
                "auto eth0 br0\niface eth0 inet manual\n    vlan-raw-device eno1\n\niface br0 inet dhcp\n",
            ],
        },
    ]
}

fn bridge() -> NewBridge {
    NewBridge { name: "br0".to_owned(), mac: [2, 0, 0, 0, 0, 1], mtu: 1500 }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap())
}

fn proposal(case: &Case) -> (TempDir, Proposal) {
    let root = tempfile::tempdir().unwrap();
    let file = below(root.path(), Path::new(case.file));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, case.before).unwrap();
    let proposal = propose(root.path(), Some(&case.program), "eth0", &bridge())
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    (root, proposal)
}

#[test]
fn each_programs_configuration_makes_the_bridge_and_moves_its_dhcp_client() {
    for case in cases().into_iter().chain(layered()) {
        let (_root, proposal) = proposal(&case);
        let texts: Vec<_> = proposal.changes.iter().filter_map(|change| change.after.clone()).collect();
        for wanted in case.after {
            assert!(
                texts.iter().any(|text| text.contains(wanted)),
                "{}: {wanted}\nis not in\n{texts:#?}",
                case.name
            );
        }
        let shown = diff(&proposal.changes);
        assert!(shown.contains("+++ /etc/"), "{shown}");
        for change in &proposal.changes {
            let side = |mark: char| -> String {
                let own = shown
                    .split("--- ")
                    .find(|part| part.contains(&format!("+++ {}\n", change.path.display())));
                let lines = own.unwrap().lines().skip(2);
                lines
                    .filter(|line| line.starts_with([' ', mark]))
                    .map(|line| line[1..].to_owned() + "\n")
                    .collect()
            };
            assert_eq!(side('+'), change.after.clone().unwrap(), "{}", case.name);
            assert_eq!(side('-'), change.before.clone().unwrap_or_default(), "{}", case.name);
        }
    }
}

#[test]
fn a_file_that_is_not_understood_is_named_with_the_remedy() {
    let odd = [
        (
            Program::Netplan { dhcp: false },
            "/etc/netplan/x.yaml",
            "network: {ethernets: {eth0: {dhcp4: true}}}\n",
            "/etc/netplan",
        ),
        (Program::Ifupdown { client: None }, "/etc/network/interfaces", "auto lo\n", "no `iface eth0`"),
        (
            Program::NetworkManager { connection: Some(UUID.to_owned()) },
            "/etc/NetworkManager/system-connections/x.nmconnection",
            "[connection]\nuuid=other\n",
            UUID,
        ),
        (
            Program::Networkd { file: Some(PathBuf::from("/etc/systemd/network/x.network")), dhcp: false },
            "/etc/systemd/network/x.network",
            "",
            "[Match]",
        ),
    ];
    for (program, file, text, words) in odd {
        let root = tempfile::tempdir().unwrap();
        let path = below(root.path(), Path::new(file));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        let error = propose(root.path(), Some(&program), "eth0", &bridge()).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("--persist"), "{error}");
    }
    let error = propose(Path::new("/nowhere"), None, "eth0", &bridge()).unwrap_err().to_string();
    assert!(error.contains("eth0 is configured by nobody"), "{error}");
}

#[test]
fn a_networkd_file_with_drop_ins_is_left_alone() {
    let case = cases().remove(0);
    let (root, _) = proposal(&case);
    let drop_in = below(root.path(), Path::new("/run/systemd/network/lan.network.d/more.conf"));
    fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
    fs::write(&drop_in, "[Network]\nDNS=192.0.2.53\n").unwrap();
    let error = propose(root.path(), Some(&case.program), "eth0", &bridge()).unwrap_err().to_string();
    assert!(error.contains("lan.network.d") && error.contains("drop-ins"), "{error}");
}

/// `tests/persist-checkers` unpacks the programs, and runs this.
#[test]
#[ignore = "needs ifupdown, netplan and NetworkManager unpacked: run tests/persist-checkers"]
fn each_programs_own_checker_takes_what_it_becomes() {
    let unpacked = PathBuf::from(
        std::env::var("HOSTGW_CHECKERS").expect("HOSTGW_CHECKERS is the folder of the unpacked programs"),
    );
    let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu", unpacked.display());
    let run = |program: &str, arguments: &[&str], input: Option<&Path>| {
        let mut command = Command::new(unpacked.join(program));
        command.args(arguments).env("LD_LIBRARY_PATH", &libraries);
        if let Some(input) = input {
            command.stdin(fs::File::open(input).unwrap());
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    for case in layered() {
        let (root, proposal) = proposal(&case);
        for change in &proposal.changes {
            fs::write(below(root.path(), &change.path), change.after.as_ref().unwrap()).unwrap();
        }
        let file = below(root.path(), Path::new(case.file));
        let (well, text) = match case.name {
            "netplan" => {
                run("usr/libexec/netplan/generate", &["--root-dir", root.path().to_str().unwrap()], None)
            }
            "ifupdown" => run("sbin/ifquery", &["eth0", "br0", "--interfaces", file.to_str().unwrap()], None),
            _ => continue,
        };
        assert!(well, "{}: {text}", case.before);
    }
    for case in cases() {
        let (root, proposal) = proposal(&case);
        for change in &proposal.changes {
            fs::write(below(root.path(), &change.path), change.after.as_ref().unwrap()).unwrap();
        }
        match case.name {
            "ifupdown" => {
                let file = below(root.path(), Path::new(case.file));
                let state = root.path().join("state");
                let both = ["--state-dir", state.to_str().unwrap(), "--interfaces", file.to_str().unwrap()];
                let (well, text) = run("sbin/ifquery", &[&["--list"], &both[..]].concat(), None);
                assert!(well && text.lines().any(|line| line == "br0"), "{text}");
                let (well, text) = run("sbin/ifquery", &[&["br0"], &both[..]].concat(), None);
                assert!(
                    well && text.contains("bridge_ports: eth0") || text.contains("bridge-ports: eth0"),
                    "{text}"
                );
                fs::write(&file, "iface eth0 inet nonsense\n").unwrap();
                assert!(
                    !run("sbin/ifquery", &[&["--list"], &both[..]].concat(), None).0,
                    "a checker that takes anything"
                );
            }
            "netplan" => {
                let at = ["--root-dir", root.path().to_str().unwrap()];
                let (well, text) = run("usr/libexec/netplan/generate", &at, None);
                assert!(well, "{text}");
                let network = |name: &str| {
                    fs::read_to_string(root.path().join("run/systemd/network").join(name)).unwrap()
                };
                assert!(network("10-netplan-eth0.network").contains("Bridge=br0"));
                assert!(network("10-netplan-br0.network").contains("Address=192.0.2.1/24"));
                assert!(network("10-netplan-br0.netdev").contains("MACAddress=02:00:00:00:00:01"));
                fs::write(
                    below(root.path(), Path::new(case.file)),
                    "network: {ethernets: {eth0: {adresses: []}}}\n",
                )
                .unwrap();
                assert!(!run("usr/libexec/netplan/generate", &at, None).0, "a checker that takes anything");
            }
            "network_manager" => {
                for change in &proposal.changes {
                    let file = below(root.path(), &change.path);
                    let arguments = ["--offline", "connection", "modify", "connection.autoconnect", "yes"];
                    let (well, text) = run("usr/bin/nmcli", &arguments, Some(&file));
                    assert!(well && text.contains("[connection]"), "{text}");
                }
                let odd = root.path().join("odd");
                fs::write(&odd, "[connection]\ntype=bridge\nmaster=7\nslave-type=nonsense\n").unwrap();
                let arguments = ["--offline", "connection", "modify", "connection.autoconnect", "yes"];
                assert!(!run("usr/bin/nmcli", &arguments, Some(&odd)).0, "a checker that takes anything");
            }
            // systemd-networkd has none.
            name => assert_eq!(name, "networkd"),
        }
    }
}
