//! Host names in a kubeconfig, looked up by the program that ships: it is static, so that the C library's own look-up would
//! want shared objects which the image does not have.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use kernel::link;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

/// Any certificate authority: the connection does not come so far.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUFoxQ8eKwsm41suqqmsdVjp3v3UcwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjYxMTIxMTU0MzAyWhgPMjEy
NjEwMjgxNTQzMDJaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEgM+pcRmV1pkAKnImgAl7ax/6Ewd0IYfa26lC+rc9
jB1Tqte2EDkuFYgmoKnptjhUbxStudnDX2+Qw7fW/2JYRKNTMFEwHQYDVR0OBBYE
FJe9GFDyBH3M+7qe+sIDTg/Y2KZ5MB8GA1UdIwQYMBaAFJe9GFDyBH3M+7qe+sID
Tg/Y2KZ5MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgBYCTRQP+
v4efSidQGTSL9fEwUd0EHthuZRdjQ1omPUwCIAK0lantIUMgxUu364+jL7oay6zu
gLToN3FY7Oy4pOxB
-----END CERTIFICATE-----
";

/// Moves the calling thread into a network and a mount namespace of its own, with these two files.
fn enter(hosts: &str, resolv_conf: &str) {
    let before = NetNs::current().unwrap().id().unwrap();
    // SAFETY: unsharing the namespaces of this thread breaks no memory; other threads keep theirs.
    #[allow(unsafe_code, reason = "rustix marks unshare unsafe for flags that are not used here")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::FS)
            .expect("tests need CAP_SYS_ADMIN for namespaces: run them as root, or in `unshare -rnm`");
    }
    assert_ne!(
        NetNs::current().unwrap().id().unwrap(),
        before,
        "refusing to run in the machine's own namespace"
    );
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut batch = Batch::new();
    link::set_up(&mut batch, 1);
    socket.execute_all(&mut batch).unwrap();
    for (path, text) in [("/etc/hosts", hosts), ("/etc/resolv.conf", resolv_conf)] {
        // The mount keeps the file; its name may go.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        mount_bind(file.path(), Path::new(path).canonicalize().unwrap()).unwrap();
    }
}

/// What `hostgw plan` says of an API server by this name, at a port where nobody listens.
fn plan_with(host: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(folder.path().join("ca.crt"), AUTHORITY).unwrap();
    let text = format!(
        "kind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"https://{host}:1\", certificate-authority: ca.crt}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hostgw"))
        .args(["plan", "--source", "kubernetes", "--node-name", "node1", "--kubeconfig"])
        .arg(&kubeconfig)
        .arg("--root")
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// Answers every query for an address of `api.example` with 127.0.0.1, and every other with no such name.
fn serve_names(address: &str) {
    let socket = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut query = [0_u8; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let question = &query[..length];
            let wanted = b"\x03api\x07example\x00";
            let known = question[12..].starts_with(wanted);
            let is_a = question.get(12 + wanted.len()..).is_some_and(|rest| rest.starts_with(&[0, 1]));
            let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap_or(0) + 5;
            let mut answer = question[..end].to_vec();
            // A response to a recursive query; NXDOMAIN where the name is not known; no additional records.
            (answer[2], answer[3]) = (0x81, if known { 0x80 } else { 0x83 });
            answer[6..12].copy_from_slice(&[0, u8::from(known && is_a), 0, 0, 0, 0]);
            if known && is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
}

#[test]
fn a_name_in_etc_hosts_is_found_without_any_name_server() {
    enter("127.0.0.1 localhost\n127.0.0.1 api.internal\n", "nameserver 127.0.0.1\n");
    let told = plan_with("api.internal");
    assert!(
        told.contains("failed to connect to API server api.internal:1") && told.contains("refused"),
        "{told}"
    );
}

#[test]
fn a_name_is_asked_of_the_servers_in_resolv_conf() {
    enter("127.0.0.1 localhost\n", "nameserver 127.0.0.1\n");
    serve_names("127.0.0.1:53");
    let told = plan_with("api.example");
    assert!(
        told.contains("failed to connect to API server api.example:1") && told.contains("refused"),
        "{told}"
    );
}

#[test]
fn a_name_that_nobody_knows_is_told_as_such() {
    enter("127.0.0.1 localhost\n", "nameserver 127.0.0.1\n");
    serve_names("127.0.0.1:53");
    let told = plan_with("nowhere.example");
    assert!(told.contains("failed to resolve the name of API server nowhere.example:1"), "{told}");
}
