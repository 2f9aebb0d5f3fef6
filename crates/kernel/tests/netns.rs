//! Network namespaces and their settings: entered, left, told apart, and nothing else taken for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use kernel::netns::{NetNs, id_of};
use kernel::sysctl::Sysctls;
use rustix::io::Errno;
use support::{another_netns, enter_fresh_netns};

#[test]
fn work_in_another_namespace_brings_the_thread_back() {
    enter_fresh_netns();
    let here = NetNs::current().unwrap().id().unwrap();
    let pod = another_netns();
    let there = pod.run(|| NetNs::current().unwrap().id().unwrap()).unwrap();
    assert_eq!(there, pod.id().unwrap());
    assert_ne!(there, here);
    assert_eq!(NetNs::current().unwrap().id().unwrap(), here);
    assert_eq!(id_of(Path::new("/proc/thread-self/ns/net")), Some(here));
}

#[test]
fn a_path_that_is_no_network_namespace_is_refused_and_one_that_is_gone_is_absent() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = NetNs::open(file.path()).unwrap_err();
    assert_eq!(refused.errno, Errno::INVAL);
    assert!(refused.to_string().contains(&file.path().display().to_string()), "{refused}");
    let another_kind = NetNs::open(Path::new("/proc/self/ns/mnt")).unwrap_err();
    assert_eq!(another_kind.errno, Errno::INVAL);
    assert!(NetNs::open(Path::new("/proc/self/absent")).unwrap_err().is_absent());
    assert_eq!(id_of(file.path()), None);
}

#[test]
fn a_setting_belongs_to_the_namespace_that_the_thread_is_in() {
    enter_fresh_netns();
    let key = "net/ipv4/conf/all/forwarding";
    let pod = another_netns();
    for sysctls in [Sysctls::default(), Sysctls::apart()] {
        sysctls.write(key, "1").unwrap();
        assert_eq!(sysctls.read(key).unwrap().as_deref(), Some("1"));
        pod.run(|| sysctls.write(key, "0").unwrap()).unwrap();
        assert_eq!(pod.run(|| sysctls.read(key).unwrap()).unwrap().as_deref(), Some("0"));
        assert_eq!(sysctls.read(key).unwrap().as_deref(), Some("1"));
        assert_eq!(Sysctls::default().read(key).unwrap().as_deref(), Some("1"));
        assert_eq!(sysctls.read("net/ipv4/conf/absent/forwarding").unwrap(), None);
        let refused = sysctls.write(key, "no number").unwrap_err();
        assert_eq!(refused.to_string(), format!("failed to set sysctl {key} to no number: invalid argument"));
    }
}
