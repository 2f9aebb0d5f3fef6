//! `agent`, `plan`, `status`, `uninstall` and `schema` as programs: what they print where, and their exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::{address, link};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use rustix::thread::UnshareFlags;
use serde_json::Value;
use tempfile::TempDir;

const NODE: &str = "{kind: Node, metadata: {name: node1}, spec: {podCIDRs: [\"10.244.1.0/24\"]}, \
    status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}\n";

/// A folder as root of all paths, in a network namespace of the calling thread's own.
struct Node {
    root: TempDir,
}

impl Node {
    fn new() -> Self {
        let before = NetNs::current().unwrap().id().unwrap();
        // SAFETY: unsharing the network namespace of this thread breaks no memory; other threads keep theirs.
        #[allow(unsafe_code, reason = "rustix marks unshare unsafe for flags that are not used here")]
        unsafe {
            rustix::thread::unshare_unsafe(UnshareFlags::NEWNET).expect(
                "tests need CAP_SYS_ADMIN for a network namespace: run them as root, or in `unshare -rn`",
            );
        }
        assert_ne!(
            NetNs::current().unwrap().id().unwrap(),
            before,
            "refusing to run in the machine's own namespace"
        );
        // A node is announced once it holds its address.
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        link::set_up(&mut batch, 1);
        address::add(&mut batch, 1, "192.0.2.1/24".parse().unwrap(), 0);
        socket.execute_all(&mut batch).unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("nodes.yaml"), NODE).unwrap();
        Self { root }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostgw"));
        command.args(arguments).arg("--root").arg(self.root.path()).env_remove("NODE_NAME");
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(arguments).output().unwrap())
    }

    /// A command that takes a source, about `node1`.
    fn about_node1(&self, arguments: &[&str]) -> Outcome {
        self.run(&[arguments, &["--source", "file:/nodes.yaml", "--node-name", "node1"]].concat())
    }

    fn exists(&self, path: &str) -> bool {
        self.root.path().join(path).exists()
    }
}

/// A running agent, killed with the test if it still runs then.
struct Agent(Child);

impl Agent {
    fn start(node: &Node) -> Self {
        let mut command = node.command(&["agent", "--source", "file:/nodes.yaml", "--node-name", "node1"]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn plan_then_once_then_status_then_uninstall() {
    let node = Node::new();
    let plan = node.about_node1(&["plan", "-o", "json"]).exits(10).json();
    assert_eq!(plan["schemaVersion"], 1);
    assert_eq!(plan["changes"].as_array().unwrap().last().unwrap()["kind"], "conflist");
    assert!(!node.exists("etc/cni"), "a plan changes nothing");
    let once = node.about_node1(&["agent", "--once", "-o", "json"]).exits(0);
    assert_eq!(once.json()["converged"], true);
    assert!(once.stderr.contains("reconciled"), "logs go to stderr: {}", once.stderr);
    let plan = node.about_node1(&["plan"]).exits(0);
    assert!(plan.stdout.starts_with("node node1: nothing to change"), "{}", plan.stdout);
    let status = node.run(&["status"]).exits(0);
    assert!(status.stdout.contains("NetworkPolicy is not enforced"), "{}", status.stdout);
    assert_eq!(node.run(&["status", "-o", "json"]).exits(0).json()["node"], "node1");
    let uninstalled = node.run(&["uninstall"]).exits(0);
    assert!(uninstalled.stdout.ends_with("nothing of hostgw is left\n"), "{}", uninstalled.stdout);
    assert!(node.run(&["status"]).exits(1).stderr.contains("start the agent"));
    assert!(node.exists("nodes.yaml"));
}

#[test]
fn bad_usage_and_settings_are_2_and_a_silent_source_is_3() {
    let node = Node::new();
    let bad_source = node.run(&["plan", "--source", "etcd:x", "--node-name", "node1"]).exits(2);
    assert!(bad_source.stderr.contains("give kubernetes or file:PATH"), "{}", bad_source.stderr);
    node.run(&["plan", "--source", "file:/nodes.yaml", "--node-name", "Not A Name"]).exits(2);
    node.run(&["plan", "--source", "file:/nodes.yaml"]).exits(2);
    let absent =
        node.run(&["agent", "--once", "--source", "file:/absent.yaml", "--node-name", "node1"]).exits(3);
    assert!(absent.stderr.contains("absent.yaml"), "{}", absent.stderr);
    node.run(&["plan", "--source", "file:/nodes.yaml", "--node-name", "node2"]).exits(3);
    std::fs::create_dir_all(node.root.path().join("etc/hostgw")).unwrap();
    std::fs::write(node.root.path().join("etc/hostgw/config.yaml"), "routes: {metric: 0}").unwrap();
    for command in [&["plan"][..], &["agent", "--once"], &["agent"]] {
        let bad_settings = node.about_node1(command).exits(2);
        assert!(bad_settings.stderr.contains("setting routes.metric is `0`"), "{}", bad_settings.stderr);
    }
    node.run(&["uninstall"]).exits(2);
    node.run(&["uninstall", "--config", "/absent.yaml"]).exits(2);
}

#[test]
fn sigterm_ends_with_0_and_sigint_with_130() {
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130)] {
        let node = Node::new();
        let mut agent = Agent::start(&node);
        wait_until("the node is announced", || node.exists("etc/cni/net.d/10-hostgw.conflist"));
        wait_until("the state is written", || node.run(&["status"]).code == Some(0));
        kill_process(Pid::from_child(&agent.0), signal).unwrap();
        assert_eq!(agent.0.wait().unwrap().code(), Some(code));
        assert!(node.run(&["status"]).exits(1).stderr.contains("no agent runs"));
        node.run(&["uninstall"]).exits(0);
    }
}

#[test]
fn status_is_red_for_an_agent_that_runs_and_makes_no_pass() {
    let node = Node::new();
    let agent = Agent::start(&node);
    wait_until("the state is written", || node.run(&["status"]).code == Some(0));
    let pid = Pid::from_child(&agent.0);
    kill_process(pid, Signal::STOP).unwrap();
    // Until the thread that takes the signal has had its turn, the others may write the state once more.
    waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).unwrap();
    let path = node.root.path().join("run/hostgw/state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    state["updated"] = 1.into();
    std::fs::write(&path, state.to_string()).unwrap();
    assert!(node.run(&["status"]).exits(1).stderr.contains("has made no pass for"));
}

#[test]
fn uninstall_is_refused_while_the_agent_runs() {
    let node = Node::new();
    let mut agent = Agent::start(&node);
    wait_until("the node is announced", || node.exists("etc/cni/net.d/10-hostgw.conflist"));
    let refused = node.run(&["uninstall", "--force"]).exits(1);
    assert!(refused.stderr.contains("stop it first"), "{}", refused.stderr);
    agent.0.kill().unwrap();
    agent.0.wait().unwrap();
    node.run(&["uninstall"]).exits(0);
}

#[test]
fn every_schema_is_json_with_a_title() {
    for document in ["bench", "lab", "plan", "status"] {
        let output = Command::new(env!("CARGO_BIN_EXE_hostgw")).args(["schema", document]).output().unwrap();
        let schema = Outcome::of(output).exits(0).json();
        assert!(schema["title"].as_str().is_some_and(|title| title.contains(document)), "{document}");
        assert!(schema["properties"]["schemaVersion"].is_object());
    }
}
