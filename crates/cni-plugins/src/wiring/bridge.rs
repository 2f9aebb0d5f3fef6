//! The bridge that bridged pods share: made by the first pod, found by the others, also when two are first at once.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::KernelError;
use kernel::link::{self, Link, Mac};
use kernel::netlink::{Batch, Socket};
use kernel::sysctl::Sysctls;
use link_name::LinkName;

use super::plan::link_local;
use super::{Side, Step, WiringError, mac_of};

/// What the bridge is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePlan {
    /// Its name.
    pub name: LinkName,
    /// The gateway addresses that it holds, each with its subnet's prefix.
    pub gateways: Vec<IpNet>,
    /// Payload of a frame.
    pub mtu: u32,
}

impl BridgePlan {
    /// The address that a new bridge gets.
    fn mac(&self) -> Mac {
        let first = self.gateways.first().map_or(IpAddr::from([0, 0, 0, 0]), IpNet::addr);
        mac_of(first, Side::Host)
    }

    /// What is done once, to a new bridge.
    fn first_steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::NoAutomaticLinkLocal];
        if self.gateways.iter().any(|gateway| gateway.addr().is_ipv6()) {
            steps.push(Step::Address(link_local(self.mac())));
        }
        steps
    }

    /// Finds or makes the bridge, and gives it the gateway addresses that it lacks.
    pub fn ensure(&self, socket: &mut Socket) -> Result<Link, WiringError> {
        let bridge = match link::by_name(socket, self.name.as_str())? {
            Some(found) => found,
            None => self.create(socket)?,
        };
        if bridge.kind.as_deref() != Some("bridge") {
            let kind = bridge.kind.unwrap_or_else(|| "physical link".to_owned());
            return Err(WiringError::NotABridge { name: self.name.to_string(), kind });
        }
        let mut steps: Vec<Step> = self.gateways.iter().map(|gateway| Step::Address(*gateway)).collect();
        if !bridge.is_up() {
            steps.push(Step::Up);
        }
        self.carry_out(socket, &steps, bridge.index)?;
        Ok(bridge)
    }

    fn create(&self, socket: &mut Socket) -> Result<Link, WiringError> {
        let mut batch = Batch::new();
        link::create_bridge(&mut batch, &self.name, self.mac(), self.mtu);
        match socket.execute_all(&mut batch) {
            Ok(()) => {}
            Err(error) if error.is_present() => {}
            Err(error) => return Err(error.attempting(format!("create bridge {}", self.name)).into()),
        }
        let gone =
            || KernelError::new(format!("find bridge {} just made", self.name), rustix::io::Errno::NODEV);
        let bridge = link::by_name(socket, self.name.as_str())?.ok_or_else(gone)?;
        // A pod must not be able to teach the node routes; kernels without IPv6 have no such setting.
        let accept_ra = format!("net/ipv6/conf/{}/accept_ra", self.name);
        let sysctls = Sysctls::default();
        if sysctls.read(&accept_ra)?.is_some_and(|value| value != "0") {
            sysctls.write(&accept_ra, "0")?;
        }
        self.carry_out(socket, &self.first_steps(), bridge.index)?;
        Ok(bridge)
    }

    /// Another pod's ADD may be doing the same at the same time: what is there already is as good.
    fn carry_out(&self, socket: &mut Socket, steps: &[Step], index: u32) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        for step in steps {
            step.write(&mut batch, index);
        }
        match socket.execute(&mut batch)?.into_iter().find(|failure| !failure.error.is_present()) {
            None => Ok(()),
            Some(failure) => {
                Err(failure.error.attempting(format!("{} on bridge {}", steps[failure.index], self.name)))
            }
        }
    }
}
