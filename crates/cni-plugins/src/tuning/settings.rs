//! Settings of an interface: what is wanted, or what was before.

use cni_spec::{MacAddress, TuningConf};
use kernel::KernelError;
use kernel::link::{self, ALL_MULTICAST, Link, PROMISCUOUS};
use kernel::netlink::{Batch, Socket};

/// None leaves a setting as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) mac: Option<MacAddress>,
    pub(super) promisc: Option<bool>,
    pub(super) mtu: Option<u32>,
    pub(super) allmulti: Option<bool>,
    pub(super) tx_queue_len: Option<u32>,
}

impl Settings {
    pub(super) fn wanted(conf: &TuningConf) -> Self {
        Self {
            mac: conf.mac,
            promisc: conf.promisc.then_some(true),
            mtu: conf.mtu,
            allmulti: conf.allmulti,
            tx_queue_len: conf.tx_queue_len,
        }
    }

    /// Everything in one batch; what fails does not keep the rest from being tried.
    pub(super) fn apply(&self, index: u32, socket: &mut Socket) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        if let Some(mac) = self.mac {
            link::set_mac(&mut batch, index, mac.octets());
        }
        if let Some(on) = self.promisc {
            link::set_flags(&mut batch, index, PROMISCUOUS, on);
        }
        if let Some(mtu) = self.mtu {
            link::set_mtu(&mut batch, index, mtu);
        }
        if let Some(on) = self.allmulti {
            link::set_flags(&mut batch, index, ALL_MULTICAST, on);
        }
        if let Some(packets) = self.tx_queue_len {
            link::set_tx_queue_len(&mut batch, index, packets);
        }
        match batch.is_empty() {
            true => Ok(()),
            false => socket.execute_all(&mut batch),
        }
    }

    pub(super) fn differences(&self, link: &Link) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, wanted: Option<String>, found: String| {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                differences.push(format!("{what} of `{}` is {found}, not {wanted}", link.name));
            }
        };
        let held = link.mac.and_then(|mac| MacAddress::new(mac).ok());
        compare("`mac`", text(self.mac), text(held).unwrap_or_else(|| "none".to_owned()));
        compare("`promisc`", text(self.promisc), (link.promiscuity != 0).to_string());
        compare("`mtu`", text(self.mtu), link.mtu.to_string());
        compare("`allmulti`", text(self.allmulti), (link.flags & ALL_MULTICAST != 0).to_string());
        compare("`txQLen`", text(self.tx_queue_len), link.tx_queue_len.to_string());
        differences
    }
}

fn text<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}
