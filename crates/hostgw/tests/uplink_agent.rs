//! The uplink as the agent moves it, and as `uninstall` and a boot find it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "uplink_support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};

use support::{Node, ip, ip_batch, wait_until};

const JOIN: [&str; 7] = ["join", "--link", "eth0", "--bridge", "br0", "--confirm-within", "0s"];
const ROUTED: &str = "uplink: {link: eth0, bridge: br0}\nforwarding: {enabled: false}\n";

const LAN: &str = "mode: l2\nbridge: br0\nuplink: {link: eth0, bridge: br0}\n\
                   lan: {subnets: [192.0.2.0/24]}\nforwarding: {enabled: false}\n";

/// A node with everything on its uplink, settings, and a list of itself.
struct Host(Node);

impl Host {
    fn new(settings: &str, pod_cidr: &str) -> Self {
        let host = Self(Node::new());
        host.write("etc/hostgw/config.yaml", settings);
        host.write(
            "nodes.yaml",
            &format!(
                "{{kind: Node, metadata: {{name: node1}}, spec: {{podCIDRs: [\"{pod_cidr}\"]}}, \
                 status: {{addresses: [{{type: InternalIP, address: 192.0.2.1}}]}}}}\n"
            ),
        );
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn hostgw(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostgw"));
        command.args(arguments).arg("--root").arg(self.0.root.path()).env_remove("NODE_NAME");
        Node::outcome(&command.output().unwrap())
    }

    fn pass(&self) -> (i32, String) {
        let source = self.source();
        self.hostgw(&["agent", "--source", &source, "--node-name", "node1", "--once"])
    }

    fn source(&self) -> String {
        format!("file:{}", self.0.root.path().join("nodes.yaml").display())
    }

    /// An agent that runs until it is told to stop.
    fn agent(&self) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostgw"));
        command.args(["agent", "--source", &self.source(), "--node-name", "node1", "--root"]);
        command.arg(self.0.root.path()).args(["--listen", "127.0.0.1:0"]).env_remove("NODE_NAME");
        Agent(command.stderr(Stdio::null()).spawn().unwrap())
    }

    /// What the agent says of itself, as of its last pass.
    fn state(&self) -> String {
        std::fs::read_to_string(self.0.root.path().join("run/hostgw/state.json")).unwrap_or_default()
    }

    fn conflist(&self) -> Option<Vec<u8>> {
        std::fs::read(self.0.root.path().join("etc/cni/net.d/10-hostgw.conflist")).ok()
    }

    /// What a boot brings whose configuration has the bridge: nothing of `/run` is left.
    fn forget_the_run_folder(&self) {
        std::fs::remove_dir_all(self.0.root.path().join("run/hostgw")).unwrap();
    }
}

struct Agent(Child);

impl Agent {
    /// As `systemctl stop` does it; its exit code.
    #[allow(unsafe_code, reason = "kill has no safe wrapper in the standard library")]
    fn stop(mut self) -> Option<i32> {
        // SAFETY: a process that this test started, and has not waited for yet.
        unsafe { libc::kill(self.0.id().cast_signed(), libc::SIGTERM) };
        self.0.wait().unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_agent_moves_the_uplink_once_and_uninstall_moves_it_back() {
    let host = Host::new(ROUTED, "10.244.1.0/24");
    let before = host.0.dump();
    for pass in ["first", "second"] {
        let (_, text) = host.pass();
        assert!(host.0.is_port(), "{pass} pass: {text}");
    }
    assert!(host.0.run_well(&["status"]).contains("eth0: port of br0"));
    let (_, text) = host.hostgw(&["uninstall"]);
    assert!(text.contains("took eth0 out of br0"), "{text}");
    host.0.assert_same(&before, "after uninstall");
}

#[test]
fn a_link_that_its_own_configuration_put_into_the_bridge_is_left_there() {
    let host = Host::new(ROUTED, "10.244.1.0/24");
    host.0.run_well(&JOIN);
    host.forget_the_run_folder();
    let before = host.0.dump();
    let (code, text) = host.pass();
    assert!(code <= 1 && !text.contains("uplink:"), "{code}: {text}");
    let (gone, _) = support::difference(&before, &host.0.dump());
    assert!(gone.is_empty(), "{gone:#?}");
    ip_batch("link add br1 type bridge\nlink set eth0 master br1");
    let (code, text) = host.pass();
    assert!(code == 1 && text.contains("port of br1"), "{code}: {text}");
}

#[test]
fn pods_of_the_lan_are_announced_on_the_bridge_that_the_agent_made_of_the_uplink() {
    let host = Host::new(LAN, "192.0.2.128/26");
    let (code, text) = host.pass();
    assert_eq!(code, 0, "{text}");
    assert!(host.0.is_port());
    let conflist: serde_json::Value = serde_json::from_slice(&host.conflist().unwrap()).unwrap();
    let plugin = &conflist["plugins"][0];
    assert_eq!((&plugin["mode"], &plugin["bridge"]), (&"l2".into(), &"br0".into()));
    assert_eq!(plugin["nodeAddresses"], serde_json::json!(["192.0.2.1"]));
    let joined = host.0.dump();
    assert_eq!(host.pass().0, 0);
    host.0.assert_same(&joined, "after a second pass");
}

#[test]
fn a_bridge_of_pods_that_is_not_the_uplinks_is_refused() {
    let settings =
        "mode: l2\nbridge: br1\nuplink: {link: eth0, bridge: br0}\nlan: {subnets: [192.0.2.0/24]}\n";
    let host = Host::new(settings, "192.0.2.128/26");
    let before = host.0.dump();
    let (code, text) = host.pass();
    assert!(code == 2 && text.contains("setting uplink.bridge is `br0`"), "{code}: {text}");
    host.0.assert_same(&before, "after the settings were refused");
}

#[test]
fn an_uninstall_leaves_a_move_that_is_not_confirmed_to_its_watchdog() {
    let host = Host::new(ROUTED, "10.244.1.0/24");
    let before = host.0.dump();
    host.0.run_well(&["join", "--link", "eth0", "--bridge", "br0", "--confirm-within", "10m"]);
    let (code, text) = host.hostgw(&["uninstall"]);
    assert!(code == 1 && text.contains("`hostgw uplink confirm`"), "{code}: {text}");
    assert!(host.0.journal().exists(), "the watchdog has nothing to put back by");
    host.0.run_well(&["confirm"]);
    let (code, text) = host.hostgw(&["uninstall"]);
    assert_eq!(code, 0, "{text}");
    host.0.assert_same(&before, "after uninstall");
}

#[test]
fn what_was_persisted_is_left_after_a_boot_too() {
    let host = Host::new(ROUTED, "10.244.1.0/24");
    let index = ip(&["-o", "link", "show", "dev", "eth0"]).split(':').next().unwrap().to_owned();
    let state = "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/lan.network\n";
    host.write(&format!("run/systemd/netif/links/{index}"), state);
    host.write("etc/systemd/network/lan.network", "[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n");
    let before = host.0.dump();
    host.0.run_well(&[&JOIN[..], &["--persist"]].concat());
    host.forget_the_run_folder();
    assert!(host.0.run_well(&["status"]).contains("eth0: port of br0"));
    host.0.run_well(&["leave", "--link", "eth0", "--confirm-within", "0s"]);
    host.0.assert_same(&before, "after leave");
    let networkd = host.0.root.path().join("etc/systemd/network");
    let live = |name: &str| !name.ends_with(".hostgw-before");
    let files = std::fs::read_dir(networkd).unwrap().flatten();
    let files: Vec<_> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
    assert_eq!(files.iter().filter(|name| live(name)).count(), 1, "{files:?}");
    assert!(host.0.run_well(&["status"]).contains("no link"));
    wait_until("no watchdog is left", || !host.0.journal().exists());
}

#[test]
fn a_refused_join_leaves_the_agent_at_work_and_is_made_once_nothing_is_in_its_way() {
    let host = Host::new(ROUTED, "10.244.1.0/24");
    ip_batch("link add mv0 link eth0 type macvlan");
    let agent = host.agent();
    wait_until("the agent tells why", || host.state().contains("uplink-not-joined"));
    let state = host.state();
    assert!(state.contains("carries mv0"), "{state}");
    // The guard of this node's own pods is among what a pass does.
    wait_until("the agent has made a pass", || {
        ip(&["route"]).contains("10.244.1.0/24") && host.conflist().is_some()
    });
    ip_batch("link del mv0");
    wait_until("the link has joined", || host.0.is_port() && !host.0.journal().exists());
    wait_until("the agent is content", || !host.state().contains("uplink-not-joined"));
    assert_eq!(agent.stop(), Some(0));
    assert!(host.0.is_port());
}

#[test]
fn a_link_that_gets_its_address_late_joins_when_it_has_it() {
    let host = Host(Node::bare());
    host.write("etc/hostgw/config.yaml", ROUTED);
    host.write("nodes.yaml", "{kind: Node, metadata: {name: node1}, spec: {podCIDRs: [10.244.1.0/24]}}\n");
    let agent = host.agent();
    wait_until("the agent tells why", || host.state().contains("has no address"));
    ip_batch("addr add 192.0.2.1/24 dev eth0\nroute add default via 192.0.2.254");
    wait_until("the link has joined", || host.0.is_port());
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn an_agent_that_is_told_to_stop_lets_a_move_that_is_being_made_come_to_its_end() {
    let host = Host::new(ROUTED, "10.244.1.0/24");
    // As a firewall that knows the link's name only: nobody answers over the bridge, and the move is put back.
    let chain = "{\n chain input {\n type filter hook input priority 0;\n iifname \"br0\" drop;\n }\n}\n";
    host.write("rules", &format!("table ip guard {chain}table ip6 guard {chain}table arp guard {chain}"));
    let loaded = Command::new("nft").arg("-f").arg(host.0.root.path().join("rules")).status().unwrap();
    assert!(loaded.success());
    let before = host.0.dump();
    let agent = host.agent();
    wait_until("the move is being made", || host.0.is_port());
    assert_eq!(agent.stop(), Some(0));
    assert!(!host.0.journal().exists(), "the agent left a move half-way");
    host.0.assert_same(&before, "after the agent has ended");
    let (code, text) = host.pass();
    assert!(code == 1 && text.contains("does not answer over br0; everything was put back"), "{text}");
    let (gone, _) = support::difference(&before, &host.0.dump());
    assert!(gone.is_empty(), "{gone:#?}");
}

#[test]
fn a_node_is_not_announced_for_pods_of_the_lan_before_there_is_a_bridge_and_stays_announced_without() {
    let host = Host::new(LAN, "192.0.2.128/26");
    ip_batch("link add mv0 link eth0 type macvlan");
    let (code, text) = host.pass();
    assert!(code == 1 && text.contains("no bridge of that name") && text.contains("carries mv0"), "{text}");
    assert_eq!(host.conflist(), None);
    ip_batch("link del mv0");
    let (code, text) = host.pass();
    assert_eq!(code, 0, "{text}");
    let announced = host.conflist();
    assert!(announced.is_some());
    host.0.run_well(&["leave", "--link", "eth0", "--confirm-within", "0s"]);
    ip_batch("link add mv0 link eth0 type macvlan");
    let (code, text) = host.pass();
    assert!(code == 1 && text.contains("no bridge of that name"), "{text}");
    assert_eq!(host.conflist(), announced);
    // The plugin's STATUS asks for this file: a node that has the bridge no more is as ready as it was, and one that
    // boots without it is not before it has it.
    let ready = || host.0.root.path().join("run/hostgw/ready").exists();
    assert!(ready());
    host.forget_the_run_folder();
    host.pass();
    assert!(!ready() && host.conflist() == announced);
    ip_batch("link del mv0");
    assert_eq!(host.pass().0, 0);
    assert!(ready());
}
