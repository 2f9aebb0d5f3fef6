//! Reading from the kernel what the plan needs.

use std::path::Path;

use kernel::KernelError;
use kernel::link::{self, Link};
use kernel::netlink::{Attributes, Batch, Socket};
use kernel::sysctl::Sysctls;

use crate::holdings::{Dumped, Holdings};
use crate::object::{Kind, LinkRef};
use crate::plan::{LinkLocalMode, Observed, Port};

const NTF_PROXY: u8 = 0x08;
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;

impl From<&Link> for LinkRef {
    fn from(link: &Link) -> Self {
        Self { index: link.index, name: link.name.clone() }
    }
}

/// Every address, route, rule and neighbour of the namespace.
pub(crate) fn dump(socket: &mut Socket) -> Result<Dumped, KernelError> {
    let mut dumped = Dumped::default();
    let both = [libc::AF_INET, libc::AF_INET6];
    for family in both {
        list(socket, &mut dumped, Kind::Address, &header(8, family, 0))?;
        list(socket, &mut dumped, Kind::Route, &header(12, family, 0))?;
        list(socket, &mut dumped, Kind::Rule, &header(12, family, 0))?;
        list(socket, &mut dumped, Kind::Neighbour, &header(12, family, 0))?;
        list(socket, &mut dumped, Kind::Neighbour, &header(12, family, NTF_PROXY))?;
    }
    Ok(dumped)
}

/// The fixed header of a dump's request: of the family, and for neighbours the flag that asks for those answered for.
fn header(length: usize, family: i32, flags: u8) -> Vec<u8> {
    let mut header = vec![0; length];
    header[0] = family.to_le_bytes()[0];
    if flags != 0 {
        header[10] = flags;
    }
    header
}

fn list(socket: &mut Socket, into: &mut Dumped, kind: Kind, header: &[u8]) -> Result<(), KernelError> {
    let attempted = match kind {
        Kind::Address => "list addresses",
        Kind::Route => "list routes",
        Kind::Rule => "list policy rules",
        Kind::Neighbour => "list neighbours",
    };
    let mut request = Batch::new();
    // `RTM_GET…` is two more than `RTM_NEW…`.
    request.message(attempted, kind.new_message() + 2, 0, header);
    let before = into.objects.len();
    socket.dump(&mut request, |object| match object {
        Some((message, payload)) if message == kind.new_message() => {
            into.objects.push((kind, payload.to_vec()));
        }
        Some(_) => {}
        None => into.objects.truncate(before),
    })
}

/// How the kernel makes the link's link-local address; none where it has no IPv6.
pub(crate) fn link_local_mode(socket: &mut Socket, index: u32) -> Result<LinkLocalMode, KernelError> {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut batch = Batch::new();
    batch.message("look up a link's addr_gen_mode", RTM_GETLINK, 0, &header);
    let mut mode = None;
    let failures = socket.execute_reading(&mut batch, |kind, payload| {
        if kind == RTM_NEWLINK && payload.len() >= 16 {
            let inet6 = Attributes::new(&payload[16..])
                .get(IFLA_AF_SPEC)
                .and_then(|families| families.nested().get(u16::try_from(libc::AF_INET6).unwrap_or(10)));
            mode = inet6.and_then(|inet6| inet6.nested().get(IFLA_INET6_ADDR_GEN_MODE)?.u8());
        }
    })?;
    match failures.into_iter().next() {
        Some(failure) => Err(failure.error),
        None => Ok(mode.unwrap_or_default()),
    }
}

/// What the link and the bridge hold now. None where the link is gone.
pub(crate) fn observe(
    socket: &mut Socket,
    link: &str,
    bridge: &str,
) -> Result<Option<Observed>, KernelError> {
    let Some(found) = link::by_name(socket, link)? else { return Ok(None) };
    let bridge = link::by_name(socket, bridge)?.map(|bridge| LinkRef::from(&bridge));
    let link_local = link_local_mode(socket, found.index)?;
    let port = Port { link: LinkRef::from(&found), master: found.master, link_local };
    let all = dump(socket)?;
    let on_link = Holdings::of(&all, &port.link);
    let on_bridge = bridge.as_ref().map(|bridge| Holdings::of(&all, bridge)).unwrap_or_default();
    Ok(Some(Observed { port, bridge, on_link, on_bridge }))
}

/// Folders below `/proc/sys/net` that hold a link's own settings.
pub(crate) const SYSCTL_FOLDERS: [&str; 4] = ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"];

/// Not to be copied: what the kernel keeps by itself, what is set otherwise, and the coarse twins of values in milliseconds.
const NOT_COPIED: [&str; 6] =
    ["mc_forwarding", "addr_gen_mode", "mtu", "base_reachable_time", "retrans_time", "anycast_delay"];

/// The settings of one link: folder and name below `/proc/sys/net`, and the value.
pub(crate) fn sysctls(sysctls: &Sysctls, link: &str) -> Result<Vec<(String, String)>, KernelError> {
    let mut found = Vec::new();
    for folder in SYSCTL_FOLDERS {
        let path = Path::new("/proc/sys/net").join(folder).join(link);
        // A kernel or a link without the family has no folder.
        let Ok(entries) = std::fs::read_dir(path) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if NOT_COPIED.contains(&name.as_str()) {
                continue;
            }
            // `stable_secret` cannot be read before it was set; others are for the kernel to write alone.
            if let Ok(Some(value)) = sysctls.read(&format!("net/{folder}/{link}/{name}")) {
                found.push((format!("{folder}/*/{name}"), value));
            }
        }
    }
    found.sort();
    Ok(found)
}
