//! The IPAM plugin `host-local`, executed as other plugins do, on folders as the reference leaves them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::enter_new_namespace;
use support::plugin::{Call, Outcome};
use tempfile::TempDir;

/// A folder of networks, in a network namespace of its own.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        enter_new_namespace();
        Self(TempDir::new().unwrap())
    }

    fn conf(&self, range_start: &str, range_end: &str) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "net", "type": "bridge",
            "ipam": {
                "type": "host-local", "dataDir": self.0.path(),
                "subnet": "10.1.2.0/24", "rangeStart": range_start, "rangeEnd": range_end,
            },
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("net").join(name)
    }

    /// Writes as the reference does, behind our back.
    fn put(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path("")).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    /// Files of the folder that the reference knows, with what they say.
    fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.') && name != "lock")
            .map(|name| (name.clone(), fs::read_to_string(self.path(&name)).unwrap_or_default()))
            .collect();
        files.sort();
        files
    }

    fn held(&self) -> Vec<String> {
        let names = self.files().into_iter().map(|(name, _)| name);
        names.filter(|name| !name.starts_with("last_reserved_ip.")).collect()
    }
}

fn call(verb: &str, container: &str, conf: &Value) -> Call {
    Call::new(verb, conf)
        .by_name("host-local")
        .with("CNI_CONTAINERID", container)
        .with("CNI_NETNS", "/run/netns/none")
        .with("CNI_IFNAME", "eth0")
}

fn add(container: &str, conf: &Value) -> Outcome {
    call("ADD", container, conf).run()
}

fn address(outcome: &Outcome) -> String {
    outcome.result()["ips"][0]["address"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_written_is_what_the_reference_writes() {
    let folder = Folder::new();
    let mut conf = folder.conf("10.1.2.9", "10.1.2.20");
    conf["ipam"]["ranges"] = json!([[{"subnet": "fd00:1::/64"}]]);
    conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.2.254"}]);
    assert_eq!(
        add("4f1d", &conf).result(),
        json!({
            "cniVersion": "1.0.0",
            "ips": [
                {"address": "10.1.2.9/24", "gateway": "10.1.2.1"},
                {"address": "fd00:1::2/64", "gateway": "fd00:1::1"},
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.2.254"}],
        })
    );
    let file = |name: &str, content: &str| (name.to_owned(), content.to_owned());
    assert_eq!(
        folder.files(),
        [
            file("10.1.2.9", "4f1d\r\neth0"),
            file("fd00:1::2", "4f1d\r\neth0"),
            file("last_reserved_ip.0", "10.1.2.9"),
            file("last_reserved_ip.1", "fd00:1::2"),
        ]
    );
    assert_eq!(fs::metadata(folder.path("10.1.2.9")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(folder.path("lock").exists());
    conf["cniVersion"] = json!("0.2.0");
    let old = add("4f1e", &conf).result();
    assert_eq!((&old["ip4"]["ip"], &old["ip6"]["gateway"]), (&json!("10.1.2.10/24"), &json!("fd00:1::1")));
}

#[test]
fn addresses_go_round_and_the_turn_survives_a_shorter_text() {
    let folder = Folder::new();
    let conf = folder.conf("10.1.2.9", "10.1.2.11");
    folder.put("last_reserved_ip.0", "10.1.2.10");
    assert_eq!(address(&add("a", &conf)), "10.1.2.11/24");
    assert_eq!(address(&add("b", &conf)), "10.1.2.9/24");
    assert_eq!(fs::read_to_string(folder.path("last_reserved_ip.0")).unwrap(), "10.1.2.9");
    assert_eq!(address(&add("c", &conf)), "10.1.2.10/24");
    let (code, msg) = add("d", &conf).error();
    assert_eq!(code, 100);
    assert!(msg.contains("10.1.2.9-10.1.2.11"), "{msg}");
    call("DEL", "a", &conf).run().silent();
    assert_eq!(address(&add("d", &conf)), "10.1.2.11/24");
}

#[test]
fn a_failing_add_leaves_nothing_behind() {
    let folder = Folder::new();
    let mut conf = folder.conf("10.1.2.9", "10.1.2.20");
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.3.0/24", "rangeEnd": "10.1.3.2"}]]);
    folder.put("10.1.3.2", "other\r\neth0");
    let before = folder.held();
    assert_eq!(add("a", &conf).error().0, 100);
    assert_eq!(folder.held(), before);
    for (patch, wanted) in [("10.9.9.9", 7), ("10.1.3.2", 106)] {
        conf["runtimeConfig"] = json!({"ips": [patch]});
        assert_eq!(add("a", &conf).error().0, wanted, "{patch}");
        assert_eq!(folder.held(), before);
    }
}

#[test]
fn a_second_add_is_refused_also_of_what_the_reference_added() {
    let folder = Folder::new();
    let conf = folder.conf("10.1.2.9", "10.1.2.20");
    assert_eq!(address(&add("a", &conf)), "10.1.2.9/24");
    assert_eq!(add("a", &conf).error().0, 105);
    // Within the same tick of the kernel's clock, which the folder's time of change does not tell.
    folder.put("10.1.2.15", "b\r\neth0");
    assert_eq!(add("b", &conf).error().0, 105);
    assert_eq!(folder.held(), ["10.1.2.15", "10.1.2.9"]);
    let other_interface = call("ADD", "b", &conf).with("CNI_IFNAME", "net1").run();
    assert_eq!(address(&other_interface), "10.1.2.10/24");
}

#[test]
fn del_frees_what_the_reference_or_an_old_version_of_it_reserved_and_succeeds_twice() {
    let folder = Folder::new();
    let conf = folder.conf("10.1.2.9", "10.1.2.20");
    add("ours", &conf).result();
    folder.put("10.1.2.15", "theirs\r\neth0");
    folder.put("10.1.2.16", "old");
    folder.put("10.9.9.9", "ours\r\neth0");
    for container in ["theirs", "old", "nobody", "ours"] {
        for _ in 0..2 {
            call("DEL", container, &conf).without("CNI_NETNS").run().silent();
        }
    }
    assert!(folder.held().is_empty(), "{:?}", folder.held());
    fs::remove_dir_all(folder.0.path()).unwrap();
    call("DEL", "ours", &conf).run().silent();
}

#[test]
fn del_needs_neither_ranges_nor_the_right_prev_result() {
    let folder = Folder::new();
    let mut conf = folder.conf("10.1.2.9", "10.1.2.20");
    add("a", &conf).result();
    add("b", &conf).result();
    // The address of b, in a result that claims to be a's.
    conf["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.10/24"}]});
    conf["ipam"].as_object_mut().unwrap().retain(|key, _| key == "dataDir");
    call("DEL", "a", &conf).run().silent();
    assert_eq!(folder.held(), ["10.1.2.10"]);
    call("DEL", "b", &conf).run().silent();
    assert!(folder.held().is_empty());
}

#[test]
fn what_the_reference_leaks_is_taken_over() {
    let folder = Folder::new();
    let conf = folder.conf("10.1.2.9", "10.1.2.11");
    // Its writer was killed; the container of an earlier boot; a pod of this one.
    folder.put("10.1.2.9", "");
    folder.put("10.1.2.10", "dead\r\neth0");
    folder.put("10.1.2.11", "living\r\neth0");
    let before_boot = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(folder.path("10.1.2.10")).unwrap().set_modified(before_boot).unwrap();
    assert_eq!(address(&add("a", &conf)), "10.1.2.9/24");
    assert_eq!(address(&add("b", &conf)), "10.1.2.10/24");
    assert_eq!(add("c", &conf).error().0, 100);
    assert_eq!(fs::read_to_string(folder.path("10.1.2.10")).unwrap(), "b\r\neth0");
}

#[test]
fn foreign_files_are_survived_and_kept() {
    let folder = Folder::new();
    let conf = folder.conf("10.1.2.9", "10.1.2.13");
    fs::create_dir_all(folder.path("10.1.2.9")).unwrap();
    folder.put("10.1.2.10", &"x".repeat(5000));
    std::os::unix::fs::symlink("/etc/passwd", folder.path("10.1.2.11")).unwrap();
    folder.put("last_reserved_ip.0", "not an address");
    folder.put(".hostgw-index", "torn");
    assert_eq!(address(&add("a", &conf)), "10.1.2.12/24");
    assert_eq!(address(&add("b", &conf)), "10.1.2.13/24");
    assert_eq!(add("c", &conf).error().0, 100);
    let mut gc = conf;
    gc["cniVersion"] = json!("1.1.0");
    let outcome = Call::gc(&gc, &["b"]).by_name("host-local").run();
    assert_eq!(outcome.answer(), "");
    let foreign = outcome.warnings().iter().filter(|warning| warning.contains("is foreign: it is"));
    assert_eq!(foreign.count(), 3, "{:?}", outcome.warnings());
    assert_eq!(folder.held(), ["10.1.2.10", "10.1.2.11", "10.1.2.13", "10.1.2.9"]);
}

#[test]
fn gc_frees_what_is_not_valid_and_add_works_after_it() {
    let folder = Folder::new();
    let mut conf = folder.conf("10.1.2.9", "10.1.2.20");
    conf["cniVersion"] = json!("1.1.0");
    for container in ["a", "b", "c"] {
        add(container, &conf).result();
    }
    Call::gc(&conf, &["b"]).by_name("host-local").run().silent();
    assert_eq!(folder.held(), ["10.1.2.10"]);
    assert_eq!(add("b", &conf).error().0, 105);
    assert_eq!(address(&add("a", &conf)), "10.1.2.12/24");
    conf["disableGC"] = json!(true);
    Call::gc(&conf, &[]).by_name("host-local").run().silent();
    assert_eq!(folder.held(), ["10.1.2.10", "10.1.2.12"]);
}

#[test]
fn check_finds_an_address_that_is_gone_or_anothers() {
    let folder = Folder::new();
    let mut conf = folder.conf("10.1.2.9", "10.1.2.20");
    assert_eq!(call("CHECK", "a", &conf).run().error().0, 3);
    let result = add("a", &conf).result();
    call("CHECK", "a", &conf).run().silent();
    assert_eq!(call("CHECK", "b", &conf).run().error().0, 3);
    conf["prevResult"] = result;
    call("CHECK", "a", &conf).run().silent();
    folder.put("10.1.2.9", "b\r\neth0");
    let (code, msg) = call("CHECK", "a", &conf).run().error();
    assert_eq!(code, 107);
    assert!(msg.contains("10.1.2.9 is held by b:eth0"), "{msg}");
    fs::remove_file(folder.path("10.1.2.9")).unwrap();
    assert_eq!(call("CHECK", "a", &conf).run().error().0, 107);
}

#[test]
fn status_tells_of_exhaustion_only_where_it_is_strict() {
    let folder = Folder::new();
    let mut conf = folder.conf("10.1.2.9", "10.1.2.9");
    conf["cniVersion"] = json!("1.1.0");
    let status = |conf: &Value| Call::new("STATUS", conf).by_name("host-local").run();
    add("a", &conf).result();
    status(&conf).silent();
    conf["strictStatus"] = json!(true);
    assert_eq!(status(&conf).error().0, 50);
    call("DEL", "a", &conf).run().silent();
    status(&conf).silent();
}

#[test]
fn forty_at_once_get_forty_addresses() {
    let folder = Folder::new();
    let conf = folder.conf("10.1.2.9", "10.1.2.200");
    let containers: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let running: Vec<_> = containers.iter().map(|container| call("ADD", container, &conf).start()).collect();
    let mut addresses: Vec<String> = running.into_iter().map(|running| address(&running.finish())).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 40);
    let running: Vec<_> = containers.iter().map(|container| call("DEL", container, &conf).start()).collect();
    running.into_iter().for_each(|running| running.finish().silent());
    assert!(folder.held().is_empty());
}

#[test]
fn what_is_wrong_with_a_configuration_is_named() {
    let folder = Folder::new();
    let good = folder.conf("10.1.2.9", "10.1.2.20");
    let refused = |key: &str, value: Value| {
        let mut conf = good.clone();
        conf["ipam"][key] = value;
        add("a", &conf).error()
    };
    assert_eq!(refused("subnet", json!("10.1.2.0")).0, 7);
    assert_eq!(refused("rangeEnd", json!("10.1.3.9")).0, 7);
    assert_eq!(refused("ranges", json!([[]])).0, 7);
    assert_eq!(refused("resolvConf", json!("/nowhere/resolv.conf")).0, 5);
    assert_eq!(refused("dataDir", json!("/proc/nowhere")).0, 5);
    let without_ranges = json!({"cniVersion": "1.0.0", "name": "net", "type": "t", "ipam": {}});
    assert_eq!(add("a", &without_ranges).error().0, 7);
    assert!(!folder.path("").exists());
}
