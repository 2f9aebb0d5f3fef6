//! Bridges as others configure them, and the VLANs of their ports (`linux/if_bridge.h`).

use link_name::LinkName;

use crate::KernelError;
use crate::link::{
    IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU,
    RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK, header,
};
use crate::netlink::{AF_BRIDGE, Attributes, Batch, CREATE, EXCL, Socket};

const RTM_DELLINK: u16 = 17;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
/// `RTEXT_FILTER_BRVLAN` (`linux/rtnetlink.h`).
const RTEXT_FILTER_BRVLAN: u32 = 1 << 1;
const VLAN_PVID: u16 = 1 << 1;
const VLAN_UNTAGGED: u16 = 1 << 2;

/// Makes a bridge, down, whose address the kernel chooses. Without `mtu` it follows its ports'.
pub fn create(batch: &mut Batch, name: &LinkName, mtu: Option<u32>, vlan_filtering: bool) {
    let mut message = batch.message("create a bridge", RTM_NEWLINK, CREATE | EXCL, &header(0, 0, 0, 0));
    message.text(IFLA_IFNAME, name.as_str());
    if let Some(mtu) = mtu {
        message.u32(IFLA_MTU, mtu);
    }
    message.nest_unflagged(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "bridge");
        if vlan_filtering {
            info.nest_unflagged(IFLA_INFO_DATA, |data| {
                data.u8(IFLA_BR_VLAN_FILTERING, 1);
            });
        }
    });
}

/// A VLAN of a bridge's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortVlan {
    /// Its id, 1 to 4094.
    pub id: u16,
    /// Whether frames without a tag, both ways, are of it.
    pub native: bool,
}

impl PortVlan {
    /// `struct bridge_vlan_info`.
    fn info(self) -> [u8; 4] {
        let flags = if self.native { VLAN_PVID | VLAN_UNTAGGED } else { 0 };
        let ([a, b], [c, d]) = (u16::to_ne_bytes(flags), self.id.to_ne_bytes());
        [a, b, c, d]
    }

    fn parse(info: &[u8]) -> Option<Self> {
        let &[a, b, c, d] = info else { return None };
        Some(Self { id: u16::from_ne_bytes([c, d]), native: u16::from_ne_bytes([a, b]) & VLAN_PVID != 0 })
    }
}

/// Lets frames of a VLAN through a port.
pub fn add_vlan(batch: &mut Batch, port: u32, vlan: PortVlan) {
    write_vlan(batch, ("add a VLAN to a bridge port", RTM_SETLINK), port, vlan);
}

/// Lets frames of a VLAN through no longer.
pub fn delete_vlan(batch: &mut Batch, port: u32, id: u16) {
    write_vlan(batch, ("take a VLAN from a bridge port", RTM_DELLINK), port, PortVlan { id, native: false });
}

fn write_vlan(batch: &mut Batch, (what, kind): (&'static str, u16), port: u32, vlan: PortVlan) {
    batch.message(what, kind, 0, &header(AF_BRIDGE, port, 0, 0)).nest(IFLA_AF_SPEC, |spec| {
        spec.attribute(IFLA_BRIDGE_VLAN_INFO, &vlan.info());
    });
}

/// The VLANs of a port; none where the kernel knows no VLANs of ports.
pub fn vlans(socket: &mut Socket, port: u32) -> Result<Vec<PortVlan>, KernelError> {
    let mut request = Batch::new();
    request
        .message("list VLANs of bridge ports", RTM_GETLINK, 0, &header(AF_BRIDGE, 0, 0, 0))
        .u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN);
    let mut vlans = Vec::new();
    socket.dump(&mut request, |object| match object {
        Some((RTM_NEWLINK, payload)) => vlans.extend(parse_vlans(payload, port)),
        Some(_) => {}
        None => vlans.clear(),
    })?;
    Ok(vlans)
}

fn parse_vlans(payload: &[u8], port: u32) -> Vec<PortVlan> {
    let index = payload.get(4..8).and_then(|index| index.try_into().ok()).map(u32::from_ne_bytes);
    let Some(attributes) = payload.get(16..).filter(|_| index == Some(port)) else { return Vec::new() };
    let spec = Attributes::new(attributes).get(IFLA_AF_SPEC);
    let infos = spec.into_iter().flat_map(|spec| spec.nested());
    infos
        .filter(|info| info.kind() == IFLA_BRIDGE_VLAN_INFO)
        .filter_map(|info| PortVlan::parse(info.value()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_vlan_is_written_as_it_is_read() {
        for vlan in [PortVlan { id: 1, native: true }, PortVlan { id: 4094, native: false }] {
            assert_eq!(PortVlan::parse(&vlan.info()), Some(vlan));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_vlans(&bytes, 0);
        }
    }
}
