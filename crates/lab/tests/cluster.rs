//! The lab with the built programs: every mode and family, every planted fault, and every way to end.
//!
//! Needs `hostgw` and `hostgw-cni`, in `$HOSTGW_BIN_DIR` or the target folder that this test was built in, and a machine
//! that allows namespaces. The lab makes its own; the tests assert that the machine's network stays as it is.

use std::borrow::Cow;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

const KINDS: [&str; 10] = [
    "pod-pod-same",
    "pod-pod-remote",
    "pod-node",
    "node-pod",
    "hostport-outside",
    "hostport-node",
    "hostport-hairpin",
    "egress-masq",
    "egress-nomasq",
    "mtu",
];

fn bin_dir() -> PathBuf {
    let built = || {
        let own = std::env::current_exe().expect("a test knows its file");
        own.ancestors().nth(2).expect("tests are built two folders below the programs").to_owned()
    };
    let folder = std::env::var_os("HOSTGW_BIN_DIR").map_or_else(built, PathBuf::from);
    for program in ["hostgw", "hostgw-cni"] {
        let path = folder.join(program);
        assert!(path.exists(), "{} is missing: `cargo build -p hostgw -p cni-plugins` first", path.display());
    }
    folder
}

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(bin_dir().join("hostgw"));
    command.arg("lab").args(arguments);
    // What is planted to fail is waited for in vain, by several labs at once on a machine that may be busy with others.
    if arguments.first().is_none_or(|first| first.starts_with('-')) {
        command.args(["--timeout", "900"]);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    lab(arguments).output().expect("the lab starts")
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} in {}", said(output)))
}

fn said(output: &Output) -> Cow<'_, str> {
    String::from_utf8_lossy(&output.stderr)
}

/// What the machine's own network looks like, without counters.
fn machine_network() -> Vec<String> {
    let read = |file: &str| fs::read_to_string(Path::new("/proc/self/net").join(file)).unwrap_or_default();
    let links =
        read("dev").lines().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect();
    let forwarding = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    let mut found: Vec<String> = links;
    found.extend([read("route"), read("if_inet6"), forwarding]);
    found
}

fn assert_all_passed(output: &Output, arguments: &[&str]) {
    let said = said(output);
    let report = document(output);
    let failed: Vec<_> =
        report["probes"].as_array().unwrap().iter().filter(|probe| probe["ok"] != true).collect();
    assert!(failed.is_empty(), "{arguments:?}: {failed:#?}\n{said}");
    let aftermath = ["removed_node", "foreign_objects", "teardown"].map(|part| &report[part]);
    assert_eq!(report["ok"], true, "{arguments:?}: {aftermath:#?}\n{said}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn every_probe_passes_in_every_mode_and_family() {
    let before = machine_network();
    for mode in ["ptp", "bridge"] {
        for (family, families) in [("dual", &["ipv4", "ipv6"][..]), ("ipv4", &["ipv4"]), ("ipv6", &["ipv6"])]
        {
            let arguments = ["--mode", mode, "--family", family, "-o", "json"];
            let output = run(&arguments);
            assert_all_passed(&output, &arguments);
            let report = document(&output);
            for kind in KINDS {
                for family in families {
                    let probed = |probe: &Value| probe["kind"] == kind && probe["family"] == *family;
                    assert!(
                        report["probes"].as_array().unwrap().iter().any(probed),
                        "{arguments:?} {kind} {family}"
                    );
                }
            }
            assert_eq!(report["removed_node"]["ok"], true);
        }
    }
    assert_eq!(machine_network(), before);
}

#[test]
fn hosts_of_the_lan_and_pods_there_reach_each_other_and_a_node_that_does_not_answer_is_noticed() {
    for mode in ["l2", "l2-routed"] {
        let arguments = ["--mode", mode, "-o", "json"];
        let output = run(&arguments);
        assert_all_passed(&output, &arguments);
        let report = document(&output);
        let probes = report["probes"].as_array().unwrap();
        let of_kind = |kind: &str| probes.iter().filter(|probe| probe["kind"] == kind).count();
        // Six pods in two families, from one host; none of them is masqueraded.
        assert_eq!((of_kind("lan-pod"), of_kind("egress-masq")), (12, 0));
        for kind in ["lan-pod", "egress-nomasq", "hostport-outside"] {
            assert_noticed(mode, kind);
        }
    }
}

#[test]
fn agents_and_nodes_of_a_flat_network_start_anew_although_its_nodes_drop_what_they_forward() {
    for scenario in ["l2", "l2-routed"] {
        let arguments = ["--scenario", scenario, "--nodes", "2", "-o", "json"];
        let output = run(&arguments);
        assert_all_passed(&output, &arguments);
        let report = document(&output);
        assert_eq!(report["mode"], scenario);
        let repaired: Vec<_> =
            report["repairs"].as_array().unwrap().iter().map(|repair| &repair["fault"]).collect();
        assert_eq!(repaired, ["agent-restarted", "node-rebooted"]);
    }
}

#[test]
fn pods_form_addresses_of_what_the_lans_router_announces_and_keep_them_while_agents_restart() {
    for mode in ["l2-routed", "l2"] {
        let arguments = ["--scenario", "slaac", "--mode", mode, "--nodes", "2", "--pods", "1", "-o", "json"];
        let output = run(&arguments);
        assert_all_passed(&output, &arguments);
        let report = document(&output);
        assert_eq!(report["repairs"].as_array().unwrap().len(), 2, "{:#}", report["repairs"]);
        for node in report["nodes"].as_array().unwrap() {
            assert_eq!(node["pod_cidrs"].as_array().unwrap().len(), 1, "no slice of IPv6");
            let formed = node["pods"][0]["ips"][1].as_str().unwrap();
            assert!(formed.starts_with("2001:db8:0:1:"), "{mode}: {formed}");
        }
    }
    let silent = run(&["--scenario", "slaac", "--sabotage", "silent-router"]);
    let said = said(&silent);
    assert_eq!(silent.status.code(), Some(1), "{said}");
    assert!(said.contains("node1 has not formed 2001:db8:0:1:0:ff:fe00:11/64"), "{said}");
}

#[test]
fn a_restart_that_breaks_nothing_or_is_not_overcome_and_a_node_that_goes_on_dropping_fail_the_run() {
    let spoiled = |sabotage: &str| {
        let output = run(&["--scenario", "l2-routed", "--nodes", "2", "--sabotage", sabotage, "-o", "json"]);
        assert_eq!(output.status.code(), Some(1), "{sabotage}: {}", said(&output));
        document(&output)
    };
    // Most of the time goes by in waiting for what must not come.
    std::thread::scope(|scope| {
        for (sabotage, fault, code) in [
            ("hold-agents", "agent-restarted", "not_restored"),
            ("no-damage", "agent-restarted", "fault_not_observed"),
            ("lose-pods", "node-rebooted", "not_restored"),
        ] {
            scope.spawn(move || {
                let report = spoiled(sabotage);
                let failure = &report["restarts"]["failures"][0];
                assert_eq!(
                    (&failure["fault"], &failure["code"]),
                    (&fault.into(), &code.into()),
                    "{sabotage}: {report:#}"
                );
            });
        }
    });
    let dropping = spoiled("keep-dropping");
    let lost = |probe: &Value| probe["kind"] == "lan-pod" && probe["ok"] == false;
    assert!(dropping["probes"].as_array().unwrap().iter().any(lost));
}

#[test]
fn every_kind_of_probe_notices_its_planted_fault() {
    // Most of the time goes by in waiting for answers that must not come.
    std::thread::scope(|scope| {
        for mode in ["ptp", "bridge"] {
            for kinds in KINDS.chunks(5) {
                scope.spawn(move || kinds.iter().for_each(|kind| assert_noticed(mode, kind)));
            }
        }
    });
}

fn assert_noticed(mode: &str, kind: &str) {
    let output = run(&["--nodes", "2", "--mode", mode, "--fault", kind, "-o", "json"]);
    let report = document(&output);
    for family in ["ipv4", "ipv6"] {
        let red = |probe: &Value| probe["kind"] == kind && probe["family"] == family && probe["ok"] == false;
        let probes = report["probes"].as_array().unwrap();
        assert!(probes.iter().any(red), "{mode} {kind} {family} stayed green: {report:#}\n{}", said(&output));
    }
    assert_eq!(output.status.code(), Some(1), "{mode} {kind}: {}", said(&output));
}

#[test]
fn first_packets_that_are_lost_and_routes_that_stay_are_noticed() {
    let report = |fault: &str| {
        let output = run(&["--nodes", "2", "--fault", fault, "-o", "json"]);
        assert_eq!(output.status.code(), Some(1), "{fault}: {}", said(&output));
        document(&output)
    };
    let lost = report("first-packet");
    let probes = lost["probes"].as_array().unwrap();
    let (first, later): (Vec<_>, Vec<_>) = probes.iter().partition(|probe| probe["first_packet"] == true);
    let mut silenced = first.iter().filter(|probe| probe["from"] == "node1/pod2").peekable();
    assert!(silenced.peek().is_some() && silenced.all(|probe| probe["ok"] == false), "{first:#?}");
    assert!(later.iter().all(|probe| probe["ok"] == true), "{later:#?}");
    let stayed = report("removed-node");
    assert_eq!(stayed["removed_node"]["ok"], false, "{}", stayed["removed_node"]);
    assert!(stayed["probes"].as_array().unwrap().iter().all(|probe| probe["ok"] == true));
}

/// Chaos with something planted that must make it fail; what its document says.
fn spoiled(sabotage: &str) -> Value {
    let output = run(&["--chaos", "--duration", "1s", "--seed", "7", "--sabotage", sabotage, "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{sabotage}: {}", said(&output));
    let report = document(&output);
    assert_eq!(report["ok"], false, "{sabotage}: {report:#}");
    report
}

fn chaos_failure(sabotage: &str) -> Value {
    let report = spoiled(sabotage);
    let code = report["chaos"]["failures"][0]["code"].clone();
    assert!(code.is_string(), "{sabotage}: {:#}", report["chaos"]);
    code
}

#[test]
fn damage_that_nobody_notices_and_damage_that_nobody_repairs_fail_the_run() {
    assert_eq!(chaos_failure("no-damage"), "fault_not_observed");
    assert_eq!(chaos_failure("hold-agents"), "not_restored");
}

#[test]
fn a_dead_connection_a_pod_left_behind_and_a_lost_foreign_route_fail_the_run() {
    assert_eq!(chaos_failure("cut-flow"), "flow_dead");
    let left = |node: &Value| node["ok"] == false;
    assert!(spoiled("leave-pod")["teardown"].as_array().unwrap().iter().any(left));
    assert!(spoiled("delete-foreign")["foreign_objects"].as_array().unwrap().iter().any(left));
}

#[test]
fn a_cluster_of_one_node_and_a_larger_one_pass_too() {
    for arguments in
        [["--nodes", "1", "--pods", "1", "-o", "json"], ["--nodes", "6", "--pods", "3", "-o", "json"]]
    {
        assert_all_passed(&run(&arguments), &arguments);
    }
}

/// Whether this process may become that user: root of the machine may, root of a small user namespace may not.
fn has_user(uid: u32) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let ranges = map
        .lines()
        .map(|line| line.split_whitespace().map(|n| n.parse::<u64>().unwrap()).collect::<Vec<_>>());
    rustix::process::geteuid().is_root()
        && ranges.into_iter().any(|range| (range[0]..range[0] + range[2]).contains(&u64::from(uid)))
}

#[test]
fn an_ordinary_user_may_run_it() {
    let folder = tempfile::Builder::new().prefix("hostgw-test-").tempdir().unwrap();
    // Whatever the mask was with which the programs were built.
    let let_in = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let_in(folder.path());
    for program in ["hostgw", "hostgw-cni"] {
        fs::copy(bin_dir().join(program), folder.path().join(program)).unwrap();
        let_in(&folder.path().join(program));
    }
    let mut command = Command::new(folder.path().join("hostgw"));
    command.args(["lab", "-o", "json"]).env_remove("XDG_RUNTIME_DIR").current_dir("/");
    // Where there is no other user, the tests run in a user namespace, and an ordinary user runs them.
    if has_user(65534) {
        command.uid(65534).gid(65534);
    }
    assert_all_passed(&command.output().unwrap(), &["as an ordinary user"]);
}

#[test]
fn a_kept_lab_can_be_listed_entered_and_ended() {
    let name = format!("kept-{}", std::process::id());
    let kept = run(&["--keep", "--name", &name, "--nodes", "2", "--pods", "1", "-o", "json"]);
    assert_all_passed(&kept, &["--keep"]);
    let listed = |name: &str| {
        let labs = document(&run(&["list", "-o", "json"]));
        labs["labs"].as_array().unwrap().iter().any(|lab| lab["name"] == name)
    };
    assert!(listed(&name));
    let refused = run(&["--keep", "--name", &name]);
    assert_eq!(refused.status.code(), Some(2), "a name is given once");
    for (place, script, said) in [
        ("node2", "cat /etc/hostname", "node2"),
        ("node2", "ls /etc/cni/net.d", "10-hostgw.conflist"),
        ("node1/pod1", "grep -c eth0 /proc/net/dev", "1"),
        ("lan", "grep -c lan0 /proc/net/dev", "1"),
        ("outside", "cat /proc/sys/kernel/hostname", "outside"),
    ] {
        let output = run(&["exec", &name, place, "--", "sh", "-c", script]);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), said, "{place}: {script}: {output:?}");
    }
    for (place, command, code) in [
        ("node1", &["sh", "-c", "exit 7"][..], 7),
        ("node1", &["sh", "-c", "kill -9 $$"], 137),
        ("node1", &["no-such-command"], 127),
        ("node7", &["true"], 2),
    ] {
        let mut arguments = vec!["exec", &name, place, "--"];
        arguments.extend(command);
        assert_eq!(run(&arguments).status.code(), Some(code), "{arguments:?}");
    }
    let ended = run(&["down", &name]);
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    assert!(!listed(&name));
    assert_eq!(run(&["down", &name]).status.code(), Some(2));
}

/// Starts a lab that does not end by itself for a minute, and waits until its first process exists.
fn start() -> (Child, OwnedFd) {
    let mut command = lab(&["--chaos", "--duration", "60s"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Progress is told once the first process is past its start.
    let mut first_word = [0; 1];
    child.stderr.as_mut().unwrap().read_exact(&mut first_word).unwrap();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let inner = Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap();
    // Held from now on: later its number may be another's.
    (child, pidfd_open(inner, PidfdFlags::empty()).unwrap())
}

/// Waits until a process is gone; all of its namespace goes before it.
fn assert_gone(process: &OwnedFd) {
    let mut fds = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(
        rustix::event::poll(&mut fds, Some(&limit)),
        Ok(1),
        "process 1 of the lab outlived its launcher"
    );
}

#[test]
fn an_interrupted_lab_ends_at_once_and_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let (mut child, inner) = start();
        kill_process(Pid::from_child(&child), signal).unwrap();
        // One that goes on to its end tells what it has found.
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_gone(&inner);
    }
}

#[test]
fn a_lab_whose_launcher_is_killed_dies_with_it() {
    let (mut child, inner) = start();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_gone(&inner);
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    for arguments in [
        &["--nodes", "0"][..],
        &["--nodes", "33"],
        &["--nodes", "32", "--pods", "5"],
        &["--family", "ipv5"],
        &["--name", "../x"],
        &["exec", "none", "node1", "--", "true"],
        &["--bin-dir", "/nonexistent"],
        &["--scenario", "l2", "--mode", "bridge"],
        &["--scenario", "l2", "--sabotage", "cut-flow"],
        &["--sabotage", "hold-agents"],
        &["--scenario", "uplink", "--keep"],
    ] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
