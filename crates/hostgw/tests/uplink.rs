//! `hostgw uplink` as a program, on a node with everything that an uplink can hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "uplink_support/mod.rs"]
mod support;

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::unix::process::CommandExt;

use kernel::packet::{EtherType, PacketSocket};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sockopt};
use support::{Node, ip, ip_batch, wait_for_links, wait_until};

#[test]
fn join_then_leave_gives_back_every_address_route_rule_neighbour_and_setting() {
    let node = Node::new();
    let before = node.dump();
    let text = node.join(&[]);
    assert_eq!(text.0, 0, "{}", text.1);
    assert!(text.1.contains("192.0.2.254") && text.1.contains("2001:db8::fe"), "{}", text.1);
    assert!(node.is_port());
    node.run_well(&["confirm"]);
    assert!(node.run_well(&["status"]).contains("eth0: port of br0"));
    node.run_well(&["leave", "--link", "eth0", "--confirm-within", "0s"]);
    node.assert_same(&before, "after leave");
    assert!(node.run_well(&["status"]).contains("no link"));
}

#[test]
fn a_joined_bridge_holds_what_the_link_held_and_the_link_nothing() {
    let node = Node::new();
    let before = node.dump();
    node.run_well(&["join", "--link", "eth0", "--bridge", "br0", "--confirm-within", "0s"]);
    // With the names exchanged, but for the links themselves and what is the port's.
    let of_objects = |lines: &[String]| -> Vec<String> {
        let objects = |line: &&String| {
            // The port keeps the multicast route that every link has.
            let multicast = line.contains("multicast ff00::/8");
            !multicast && line.starts_with("[\"-d\"")
                || line.starts_with("[\"-4\", \"rule")
                || line.starts_with("[\"-6\", \"rule")
                || line.starts_with("[\"neigh\"")
        };
        lines.iter().filter(objects).map(|line| line.replace("br0", "eth0")).collect()
    };
    let (mut was, mut is) = (of_objects(&before), of_objects(&node.dump()));
    was.sort();
    is.sort();
    assert_eq!(is, was);
    let labels = ip(&["-o", "-4", "addr", "show", "dev", "br0"]);
    let order: Vec<_> =
        ["192.0.2.1/24", "198.51.100.7/32", "192.0.2.2/24"].map(|ip| labels.find(ip).unwrap()).to_vec();
    assert!(order.is_sorted() && labels.contains("secondary br0:1"), "{labels}");
    assert!(!ip(&["addr", "show", "dev", "eth0"]).contains("inet"));
    let link = |name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).unwrap();
    assert_eq!(link("br0"), link("eth0"));
}

#[test]
fn what_a_router_advertised_moves_and_goes_on_being_learnt() {
    let node = Node::bare();
    ip_batch("addr add 192.0.2.1/24 dev eth0\nroute add default via 192.0.2.254");
    std::fs::write("/proc/sys/net/ipv6/conf/eth0/dad_transmits", "0").unwrap();
    let advertise = || node.on_router(advertise);
    wait_until("the node has an address and a route by SLAAC", || {
        advertise();
        let addresses = ip(&["-6", "addr", "show", "dev", "eth0"]);
        addresses.contains("2001:db8:0:1:")
            && !addresses.contains("tentative")
            && ip(&["-6", "route"]).contains("default")
    });
    wait_for_links(&["eth0", "eth1", "far1"]);
    let before = node.dump();
    node.run_well(&[
        "join",
        "--link",
        "eth0",
        "--bridge",
        "br0",
        "--probe",
        "192.0.2.254",
        "--confirm-within",
        "0s",
    ]);
    let learnt = ip(&["-6", "addr", "show", "dev", "br0"]);
    assert!(learnt.contains("2001:db8:0:1:") && learnt.contains("mngtmpaddr"), "{learnt}");
    assert!(ip(&["-6", "route"]).contains("default via fe80:"), "{}", ip(&["-6", "route"]));
    node.run_well(&["leave", "--link", "eth0", "--probe", "192.0.2.254", "--confirm-within", "0s"]);
    node.assert_same(&before, "after leave");
}

/// A router advertisement with a default route and one prefix (RFC 4861, 4.2 and 4.6.2).
fn advertise() {
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
    sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    message.extend("2001:db8:0:1::".parse::<Ipv6Addr>().unwrap().octets());
    let index = ip(&["-o", "link", "show", "dev", "r0"]).split(':').next().unwrap().parse().unwrap();
    let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
    // While the router's own link-local address is new, there is nothing to send from.
    let _ = rustix::net::sendto(&socket, &message, SendFlags::empty(), &all_nodes);
}

#[test]
fn a_move_that_nobody_confirms_is_put_back() {
    let node = Node::new();
    let before = node.dump();
    assert_eq!(node.join(&["--confirm-within", "300ms"]).0, 0);
    node.wait_for_same(&before, "nobody confirmed");
    assert!(node.run(&["confirm"]).1.contains("no move waits"));
}

#[test]
fn an_unconfirmed_leave_brings_back_the_bridge() {
    let node = Node::new();
    node.run_well(&["join", "--link", "eth0", "--bridge", "br0", "--confirm-within", "0s"]);
    let joined = node.dump();
    node.run_well(&["leave", "--link", "eth0", "--confirm-within", "200ms"]);
    wait_until("the bridge is back", || node.is_port() && !node.journal().exists());
    // The bridge is another, with another index and the same all else.
    let unnumbered = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.starts_with("[\"-o\", \"link")).collect()
    };
    assert_eq!(unnumbered(node.dump()), unnumbered(joined));
    assert!(node.run_well(&["status"]).contains("eth0: port of br0"));
}

#[test]
fn a_gateway_that_does_not_answer_over_the_bridge_brings_everything_back() {
    let node = Node::new();
    // The rule stands before the move, as a firewall's would that knows the link's name only.
    let chain = "{\n chain input {\n type filter hook input priority 0;\n iifname \"br0\" drop;\n }\n}\n";
    let rules = format!("table ip guard {chain}table arp guard {chain}");
    let file = node.root.path().join("rules");
    std::fs::write(&file, rules).unwrap();
    let loaded =
        std::process::Command::new("nft").arg("-f").arg(&file).status().expect("nft must be installed");
    assert!(loaded.success());
    let before = node.dump();
    let (code, text) = node.join(&["--probe", "192.0.2.254"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("192.0.2.254 does not answer over br0; everything was put back"), "{text}");
    node.assert_same(&before, "the probe failed");
}

#[test]
fn a_dry_run_prints_the_sequence_and_changes_nothing() {
    let node = Node::new();
    let before = node.dump();
    let (code, text) = node.join(&["--dry-run"]);
    assert_eq!(code, 0, "{text}");
    for step in [
        "create bridge br0",
        "make eth0 a port of br0",
        "add rule 100 iif br0",
        "delete address 192.0.2.1/24",
        "probe 192.0.2.254",
    ] {
        assert!(text.contains(step), "{step} is not in {text}");
    }
    node.assert_same(&before, "after a dry run");
}

/// A name for the case, what is done to the node before, arguments of join, exit code and words of the error.
type Refused = (&'static str, &'static str, &'static [&'static str], i32, &'static str);

#[test]
fn what_cannot_be_moved_is_refused_by_name_before_anything_is_touched() {
    const CASES: [Refused; 11] = [
        ("no link", "", &["--link", "eth7", "--bridge", "br0"], 2, "no link eth7"),
        ("loopback", "", &["--link", "lo", "--bridge", "br0"], 2, "loopback"),
        (
            "port",
            "link add old0 type bridge\nlink set eth0 master old0",
            &["--link", "eth0", "--bridge", "br0"],
            2,
            "port of old0",
        ),
        (
            "no address",
            "-4 addr flush dev eth0\n-6 addr flush dev eth0",
            &["--link", "eth0", "--bridge", "br0"],
            2,
            "no address",
        ),
        ("down", "link set eth0 down", &["--link", "eth0", "--bridge", "br0"], 2, "down"),
        ("macvlan", "link add mv0 link eth0 type macvlan", &["--link", "eth0", "--bridge", "br0"], 2, "mv0"),
        (
            "bridge taken",
            "link add br0 type veth peer name br1",
            &["--link", "eth0", "--bridge", "br0"],
            2,
            "br0 exists already (veth)",
        ),
        (
            "a pod's",
            "route add 10.244.1.9 dev eth0 proto 105",
            &["--link", "eth0", "--bridge", "br0"],
            2,
            "pod's",
        ),
        (
            "no gateway",
            "route del default via 192.0.2.254\n-6 route del default",
            &["--link", "eth0", "--bridge", "br0"],
            2,
            "--probe",
        ),
        (
            "silent before",
            "",
            &["--link", "eth0", "--bridge", "br0", "--probe", "192.0.2.99"],
            2,
            "192.0.2.99 does not answer before",
        ),
        ("bad probe", "", &["--link", "eth0", "--bridge", "br0", "--probe", "gateway"], 2, "gateway"),
    ];
    for (case, planted, arguments, code, words) in CASES {
        std::thread::spawn(move || {
            let node = Node::new();
            ip_batch(planted);
            let before = node.dump();
            let (got, text) = node.run(&[&["join"], arguments].concat());
            assert_eq!(got, code, "{case}: {text}");
            assert!(text.contains(words), "{case}: {text}");
            node.assert_same(&before, case);
            assert!(!node.journal().exists(), "{case}");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_link_that_a_program_manages_and_a_nexthop_object_are_refused() {
    let node = Node::new();
    let index = ip(&["-o", "link", "show", "dev", "eth0"]).split(':').next().unwrap().to_owned();
    let links = node.root.path().join("run/systemd/netif/links");
    std::fs::create_dir_all(&links).unwrap();
    std::fs::write(links.join(&index), "ADMIN_STATE=configured\n").unwrap();
    let (code, text) = node.join(&[]);
    assert!(code == 2 && text.contains("managed by systemd-networkd"), "{text}");
    std::fs::remove_file(links.join(&index)).unwrap();
    ip_batch("nexthop add id 7 via 192.0.2.254 dev eth0\nroute add 198.18.0.0/15 nhid 7");
    let (code, text) = node.join(&[]);
    assert!(code == 2 && text.contains("nexthop object 7"), "{text}");
}

/// A packet socket on a link, as a DHCP client has it.
fn hears(link: &str) -> PacketSocket {
    let index = ip(&["-o", "link", "show", "dev", link]).split(':').next().unwrap().parse().unwrap();
    PacketSocket::open(index, EtherType::Ipv4, &[]).unwrap()
}

#[test]
fn a_dhcp_client_is_known_by_its_socket_and_named_where_it_can_be_seen() {
    let node = Node::new();
    let before = node.dump();
    let bound = std::net::UdpSocket::bind(("192.0.2.1", 68)).unwrap();
    let (code, text) = node.join(&["--persist"]);
    let named = format!("(process {})", std::process::id());
    assert!(code == 2 && text.contains("managed by") && text.contains(&named), "{code}: {text}");
    // As from a container that sees none of the node's processes.
    let mut hidden = std::process::Command::new("unshare");
    hidden.args(["--pid", "--fork", "--mount-proc"]).arg(env!("CARGO_BIN_EXE_hostgw"));
    hidden.args(["uplink", "join", "--link", "eth0", "--bridge", "br0", "--dry-run", "--root"]);
    hidden.arg(node.root.path());
    let (code, text) = Node::outcome(&hidden.output().unwrap());
    assert!(code == 2 && text.contains("managed by a DHCP client"), "{code}: {text}");
    drop(bound);
    let (code, text) = Node::outcome(&hidden.output().unwrap());
    assert!(code == 0 && text.contains("processes cannot be seen from here"), "{code}: {text}");
    // Bound to no address, it is of the link that it hears.
    let _bound = std::net::UdpSocket::bind(("0.0.0.0", 68)).unwrap();
    let of_another = hears("eth1");
    assert_eq!(node.join(&["--dry-run"]).0, 0);
    let _of_link = hears("eth0");
    drop(of_another);
    let (code, text) = node.join(&[]);
    assert!(code == 2 && text.contains(&named), "{code}: {text}");
    node.assert_same(&before, "after refusals");
}

#[test]
#[allow(unsafe_code, reason = "between fork and exec, only system calls are made")]
fn without_privilege_a_move_ends_before_anything_is_touched() {
    let node = Node::new();
    let before = node.dump();
    for (capability, named) in [(libc::c_ulong::from(12_u8), "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")] {
        let mut command = node.command(&["join", "--link", "eth0", "--bridge", "br0"]);
        // SAFETY: `prctl` is a system call, and this one concerns the child alone.
        unsafe {
            command.pre_exec(move || match libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let (code, text) = Node::outcome(&command.output().unwrap());
        assert!(code == 4 && text.contains(named), "{named}: {code}: {text}");
        node.assert_same(&before, named);
        assert!(!node.journal().exists(), "{named}");
    }
}

#[test]
fn a_bridge_with_a_pod_is_not_left() {
    let node = Node::new();
    node.run_well(&["join", "--link", "eth0", "--bridge", "br0", "--confirm-within", "0s"]);
    ip_batch("link add pod0 type veth peer name pod1\nlink set pod0 master br0");
    let (code, text) = node.run(&["leave", "--link", "eth0"]);
    assert!(code == 2 && text.contains("pod0"), "{text}");
    assert!(node.is_port());
}

#[test]
fn persist_shows_and_writes_what_the_program_needs_and_leave_takes_it_back() {
    let node = Node::new();
    let index = ip(&["-o", "link", "show", "dev", "eth0"]).split(':').next().unwrap().to_owned();
    let write = |path: &str, text: &str| {
        let path = node.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let state = "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/lan.network\n";
    write(&format!("run/systemd/netif/links/{index}"), state);
    write("etc/systemd/network/lan.network", "[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n");
    let files = || std::fs::read_dir(node.root.path().join("etc/systemd/network")).unwrap().count();
    let (code, text) = node.join(&["--persist", "--dry-run"]);
    assert!(code == 0 && text.contains("+Kind=bridge") && text.contains("+DHCP=yes"), "{text}");
    assert!(text.contains("note: eth0 is configured by systemd-networkd"), "{text}");
    assert_eq!(files(), 1);
    let (code, text) = node.join(&["--persist", "--confirm-within", "100ms"]);
    assert!(code == 0 && text.contains("networkctl reload"), "{text}");
    wait_until("it is put back", || !node.is_port() && !node.journal().exists());
    assert_eq!(files(), 1, "nothing is written before it is confirmed");
    assert_eq!(node.join(&["--persist"]).0, 0);
    node.run_well(&["confirm"]);
    assert_eq!(files(), 4);
    node.run_well(&["leave", "--link", "eth0", "--confirm-within", "0s"]);
    let left = std::fs::read_dir(node.root.path().join("etc/systemd/network")).unwrap();
    let live =
        left.flatten().filter(|entry| !entry.file_name().to_string_lossy().ends_with(".hostgw-before"));
    assert_eq!(live.count(), 1);
}

/// Neither driver is in every kernel: what was not run is said.
#[test]
#[allow(clippy::print_stdout, reason = "what was not run is to be told")]
fn vlan_and_bond_links_join_where_the_kernel_has_them() {
    const CASES: [(&str, &str, &str); 2] = [
        ("vlan", "link add up0 link eth0 type vlan id 5", "link add r5 link r0 type vlan id 5"),
        ("bond", "link add up0 type bond mode active-backup", "link show r0"),
    ];
    for (kind, make, on_router) in CASES {
        std::thread::spawn(move || {
            let node = Node::bare();
            let made = std::process::Command::new("ip").args(make.split(' ')).output().unwrap();
            let errors = String::from_utf8_lossy(&made.stderr);
            if errors.contains("Unknown device type") {
                println!("not run: this kernel has no {kind} links");
                return;
            }
            assert!(made.status.success(), "{errors}");
            if kind == "bond" {
                ip_batch("link set eth0 down\nlink set eth0 master up0");
                node.on_router(|| ip_batch("addr add 198.18.0.254/24 dev r0"));
            } else {
                node.on_router(move || {
                    ip_batch(&format!("{on_router}\naddr add 198.18.0.254/24 dev r5\nlink set r5 up"));
                });
            }
            ip_batch("link set up0 up\naddr add 198.18.0.1/24 dev up0\nroute add default via 198.18.0.254");
            wait_for_links(&["up0", "eth1", "far1"]);
            let before = node.dump();
            node.run_well(&["join", "--link", "up0", "--bridge", "br0", "--confirm-within", "0s"]);
            node.run_well(&["leave", "--link", "up0", "--confirm-within", "0s"]);
            node.assert_same(&before, kind);
        })
        .join()
        .unwrap();
    }
}
