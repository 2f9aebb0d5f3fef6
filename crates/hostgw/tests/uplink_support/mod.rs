//! A node with one uplink, and the router at its other end; the calling thread is in the node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate that uses its own part")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use kernel::netns::NetNs;
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

/// Moves the calling thread into a network namespace of its own. Programs that it starts are in it too.
pub fn enter_fresh_netns() {
    let before = NetNs::current().unwrap().id().unwrap();
    let initial = NetNs::open(Path::new("/proc/1/ns/net")).ok().map(|ns| ns.id().unwrap());
    // SAFETY: only the network namespace is unshared, which is an attribute of this thread alone.
    #[allow(unsafe_code, reason = "rustix marks unshare unsafe for flags that are not used here")]
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .expect("cannot make a network namespace: run the tests as root, or in `unshare -rn`");
    let after = NetNs::current().unwrap().id().unwrap();
    assert_ne!(before, after, "still in the namespace that the test was started in");
    assert_ne!(initial, Some(after), "refusing to run in the machine's own network namespace");
}

/// A thread that lives in the router's namespace, and does what it is told there.
struct Router {
    thread: i32,
    work: Sender<Box<dyn FnOnce() + Send>>,
}

impl Router {
    fn start() -> Self {
        let (work, to_do) = channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            enter_fresh_netns();
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            to_do.into_iter().for_each(|work| work());
        });
        Self { thread: told.recv().unwrap(), work }
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        self.work.send(Box::new(move || tell.send(work()).unwrap())).unwrap();
        told.recv().unwrap()
    }
}

/// A node: a folder as root of all paths, `eth0`, and the router behind it.
pub struct Node {
    pub root: TempDir,
    router: Router,
}

/// What the uplink of every test holds: both families, several addresses, labels, lifetimes and tables.
const HOLDINGS: &str = "\
    addr add 192.0.2.1/24 brd + dev eth0 label eth0\n\
    addr add 192.0.2.2/24 brd + dev eth0 label eth0:1\n\
    addr add 198.51.100.7/32 dev eth0 valid_lft 300000 preferred_lft 200000\n\
    addr add 2001:db8::1/64 dev eth0 nodad\n\
    addr add 2001:db8::2/64 dev eth0 nodad noprefixroute\n\
    addr add 2001:db8::3/64 dev eth0 nodad valid_lft 300000 preferred_lft 200000\n\
    route add default via 192.0.2.254 dev eth0 metric 100 proto dhcp src 192.0.2.1\n\
    route add 10.9.0.0/16 via 192.0.2.253 dev eth0 mtu 1400 table 77\n\
    route add 203.0.113.0/24 nexthop via 192.0.2.254 dev eth0 weight 2 nexthop via 192.0.2.253 dev eth0\n\
    route add 203.0.114.0/24 nexthop via 192.0.2.254 dev eth0 nexthop via 10.1.1.254 dev eth1\n\
    route add 100.64.0.1 dev eth0 scope link\n\
    route add 100.65.0.0/16 via 100.64.0.1 dev eth0 onlink\n\
    -6 route add default via 2001:db8::fe dev eth0 metric 512 expires 90000 proto ra\n\
    -6 route add 2001:db8:5::/48 nexthop via 2001:db8::fe dev eth0 nexthop via 2001:db8::fd dev eth0\n\
    -6 route add 2001:db8:6::/48 via fe80::fe dev eth0 table 78\n\
    rule add iif eth0 lookup 77 pref 100\n\
    -6 rule add oif eth0 lookup 78 pref 101\n\
    neigh add 192.0.2.50 lladdr 02:00:00:00:00:50 dev eth0 nud permanent\n\
    neigh add proxy 192.0.2.60 dev eth0\n";

impl Node {
    /// With everything on `eth0`, and a second link that nobody may touch.
    pub fn new() -> Self {
        let node = Self::bare();
        ip_batch(HOLDINGS);
        let set = |key: &str, value: &str| std::fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
        set("ipv4/conf/eth0/rp_filter", "2");
        set("ipv6/conf/eth0/accept_ra", "2");
        set("ipv4/neigh/eth0/gc_stale_time", "77");
        wait_for_links(&["eth0", "eth1", "far1"]);
        node
    }

    /// With a link-local address at most.
    pub fn bare() -> Self {
        let router = Router::start();
        enter_fresh_netns();
        let at = router.thread.to_string();
        ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "r0", "netns", &at]);
        ip_batch(
            "link set lo up\nlink add eth1 type veth peer name far1\nlink set far1 up\nlink set eth1 up\naddr add 10.1.1.1/24 dev eth1\n\
             route add 10.200.0.0/16 via 10.1.1.254\nlink set eth0 up\n",
        );
        router.run(|| {
            ip_batch(
                "link set lo up\naddr add 192.0.2.254/24 dev r0\naddr add 2001:db8::fe/64 dev r0 nodad\n\
                 link set r0 up\n",
            );
        });
        Self { root: tempfile::tempdir().unwrap(), router }
    }

    pub fn on_router<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.router.run(work)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostgw"));
        command.arg("uplink").args(arguments).arg("--root").arg(self.root.path()).stdin(Stdio::null());
        command
    }

    /// Exit code, and both outputs.
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        Self::outcome(&self.command(arguments).output().unwrap())
    }

    pub fn outcome(output: &Output) -> (i32, String) {
        let text = [&output.stdout[..], &output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
    }

    pub fn run_well(&self, arguments: &[&str]) -> String {
        let (code, text) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}");
        text
    }

    pub fn join(&self, more: &[&str]) -> (i32, String) {
        self.run(&[&["join", "--link", "eth0", "--bridge", "br0"], more].concat())
    }

    /// Everything of this namespace that a move may change, one thing a line. What only time changes is left out.
    pub fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut list = |arguments: &[&str]| {
            lines.extend(ip(arguments).lines().map(|line| format!("{arguments:?} {}", timeless(line))));
        };
        list(&["-o", "link", "show"]);
        for link in ["eth0", "eth1"] {
            list(&["-o", "-d", "-4", "addr", "show", "dev", link]);
            list(&["-o", "-d", "-6", "addr", "show", "dev", link]);
        }
        list(&["-d", "-4", "route", "show", "table", "all"]);
        list(&["-d", "-6", "route", "show", "table", "all"]);
        list(&["-4", "rule"]);
        list(&["-6", "rule"]);
        list(&["neigh", "show", "nud", "permanent"]);
        list(&["neigh", "show", "proxy"]);
        let mut settings = BTreeSet::new();
        for folder in ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"] {
            for entry in std::fs::read_dir(format!("/proc/sys/net/{folder}/eth0")).unwrap() {
                let path = entry.unwrap().path();
                if let Ok(value) = std::fs::read_to_string(&path) {
                    settings.insert(format!("{} {}", path.display(), value.trim_end()));
                }
            }
        }
        lines.extend(settings);
        // The routes of tables stand in the kernel's order of tables, which means nothing.
        lines.sort();
        lines
    }

    pub fn is_port(&self) -> bool {
        ip(&["-o", "link", "show", "dev", "eth0"]).contains("master br0")
    }

    /// Fails, and says how, if the node is not as `before`.
    pub fn assert_same(&self, before: &[String], when: &str) {
        let (gone, new) = difference(before, &self.dump());
        assert!(gone.is_empty() && new.is_empty(), "{when}:\ngone {gone:#?}\nnew {new:#?}");
    }

    /// Waits for the watchdog to have brought back `before`, and to have ended.
    pub fn wait_for_same(&self, before: &[String], when: &str) {
        let deadline = Instant::now() + Duration::from_secs(90);
        while self.dump() != before || self.journal().exists() {
            if Instant::now() > deadline {
                self.assert_same(before, when);
                panic!("{when}: the journal is still there");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn journal(&self) -> std::path::PathBuf {
        self.root.path().join("run/hostgw/uplink/eth0/journal.json")
    }
}

/// Waits until each of these links has carrier and its link-local address: both come a while after the link is up, and what
/// is dumped before must not differ for it.
pub fn wait_for_links(names: &[&str]) {
    wait_until("links have carrier, and link-local addresses that are not tentative", || {
        names.iter().all(|name| {
            let own = ip(&["-6", "addr", "show", "dev", name]);
            own.contains("state UP") && own.contains("scope link") && !own.contains("tentative")
        })
    });
}

pub fn difference(before: &[String], after: &[String]) -> (Vec<String>, Vec<String>) {
    let lacking = |from: &[String], of: &[String]| -> Vec<String> {
        from.iter().filter(|line| !of.contains(line)).cloned().collect()
    };
    (lacking(before, after), lacking(after, before))
}

/// Without lifetimes that pass, the number of a line, and the alias of a name.
fn timeless(line: &str) -> String {
    let mut words = Vec::new();
    let mut skip = false;
    for word in line.split_whitespace() {
        let of_time = word.ends_with("sec") && word.chars().any(|c| c.is_ascii_digit());
        if !skip && !of_time {
            words.push(word);
        }
        skip = word == "expires";
    }
    words.join(" ")
}

pub fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 must be installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn ip_batch(lines: &str) {
    for line in lines.lines() {
        ip(&line.split_whitespace().collect::<Vec<_>>());
    }
}

/// Longer than a watchdog waits for a command that hangs: the machine may be busy.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
