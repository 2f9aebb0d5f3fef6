//! The scenario of DHCP with the built programs and real servers: what each trial notices, and a lab of it that stays.
//! Run by `tests/dhcp-servers`, which unpacks the servers and names their folder in `$HOSTGW_DHCP_SERVERS`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn lab(arguments: &[&str]) -> Output {
    let built = || {
        let own = std::env::current_exe().expect("a test knows its file");
        own.ancestors().nth(2).expect("tests are built two folders below the programs").to_owned()
    };
    let folder = std::env::var_os("HOSTGW_BIN_DIR").map_or_else(built, PathBuf::from);
    Command::new(folder.join("hostgw")).arg("lab").args(arguments).output().expect("the lab starts")
}

fn scenario(arguments: &[&str]) -> (Value, Option<i32>) {
    let servers = std::env::var("HOSTGW_DHCP_SERVERS").expect("tests/dhcp-servers says where servers are");
    let always = ["--scenario", "dhcp", "--nodes", "2", "--pods", "1", "--timeout", "900", "-o", "json"];
    let output = lab(&[&always[..], &["--dhcp-servers", &servers], arguments].concat());
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.code())
}

/// The trials that a spoiled run finds at fault.
fn noticed(sabotage: &str) -> BTreeSet<String> {
    let (report, code) = scenario(&["--sabotage", sabotage]);
    assert_eq!(code, Some(1), "{sabotage}: {report:#}");
    let trials = report["dhcp"]["trials"].as_array().unwrap();
    let red = trials.iter().filter(|trial| !trial["error"].is_null());
    red.map(|trial| trial["name"].as_str().unwrap().to_owned()).collect()
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
#[ignore = "needs dnsmasq and Kea: tests/dhcp-servers"]
fn every_trial_notices_what_does_not_happen_and_what_is_not_overcome() {
    let harmless = [
        "server-down",
        "server-slow",
        "server-without-addresses",
        "range-changed",
        "two-servers",
        "lease-refused",
    ];
    // Most of the time goes by in waiting for what must not come.
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(noticed("no-damage"), named(&harmless)));
        scope.spawn(|| assert_eq!(noticed("hold-agents"), named(&["agent-restarted", "lease-refused"])));
        scope.spawn(|| assert_eq!(noticed("lose-pods"), named(&["node-restarted"])));
    });
    let dropping = noticed("keep-dropping");
    assert!(dropping.contains("server-slow") && !dropping.contains("server-down"), "{dropping:?}");
}

#[test]
#[ignore = "needs dnsmasq and Kea: tests/dhcp-servers"]
fn a_kept_lab_has_its_server_and_pods_come_and_go() {
    let name = format!("dhcp-{}", std::process::id());
    let (report, code) = scenario(&["--keep", "--name", &name]);
    assert_eq!((code, &report["ok"]), (Some(0), &true.into()), "{report:#}");
    let said = |place: &str, script: &str| {
        let output = lab(&["exec", &name, place, "--", "sh", "-c", script]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(said("outside", "grep -c ':0043 ' /proc/net/udp"), "1");
    assert_eq!(said("node1", "ls /var/lib/hostgw/leases/hostgw | grep -c eth0"), "1");
    assert_eq!(lab(&["down", &name]).status.code(), Some(0));
}
