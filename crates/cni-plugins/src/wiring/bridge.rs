//! The bridge that bridged pods share: made by the first pod, found by the others, also when two are first at once,
//! and made whole again by the agent.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::KernelError;
use kernel::address;
use kernel::link::{self, Link, Mac};
use kernel::netlink::{Batch, Failure, Socket};
use kernel::sysctl::Sysctls;
use link_name::LinkName;

use super::plan::link_local;
use super::steps::enable_ipv6;
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

/// `IN6_ADDR_GEN_MODE_NONE`, as the sysctl has it.
const NO_AUTOMATIC_LINK_LOCAL: &str = "1";

/// Whether a bridge of this Ethernet address was made by us: others' are random, or a port's.
#[must_use]
pub fn is_our_bridge_mac(mac: Mac) -> bool {
    let ours = mac_of(IpAddr::from([0, 0, 0, 0]), Side::Host);
    mac[..2] == ours[..2]
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
        steps.extend(self.link_local(self.mac()));
        steps
    }

    /// The address from which a bridge with an IPv6 gateway speaks to its neighbours.
    fn link_local(&self, mac: Mac) -> Option<Step> {
        let speaks_ipv6 = self.gateways.iter().any(|gateway| gateway.addr().is_ipv6());
        speaks_ipv6.then(|| Step::Address(link_local(mac)))
    }

    /// Finds or makes the bridge, and gives it the gateway addresses that it lacks.
    pub fn ensure(&self, socket: &mut Socket) -> Result<Link, WiringError> {
        let bridge = match link::by_name(socket, self.name.as_str())? {
            Some(found) => found,
            None => self.create(socket)?,
        };
        let bridge = self.checked(bridge)?;
        let mut steps: Vec<Step> = self.gateways.iter().map(|gateway| Step::Address(*gateway)).collect();
        if !bridge.is_up() {
            steps.push(Step::Up);
        }
        self.carry_out(socket, &steps, bridge.index)?;
        Ok(bridge)
    }

    /// Makes the bridge of living pods what [`Self::ensure`] made it, and says what that took. A link that goes down
    /// loses its IPv6 addresses, and one of ours gets no link-local address from the kernel when it comes back.
    pub fn restore(&self, socket: &mut Socket) -> Result<(Link, Vec<String>), WiringError> {
        let Some(found) = link::by_name(socket, self.name.as_str())? else {
            return Ok((self.ensure(socket)?, vec!["made anew".to_owned()]));
        };
        let mut steps: Vec<Step> = self.gateways.iter().map(|gateway| Step::Address(*gateway)).collect();
        if let Some(mac) = found.mac.filter(|mac| is_our_bridge_mac(*mac)) {
            steps.extend(self.link_local(mac));
            let mode = format!("net/ipv6/conf/{}/addr_gen_mode", self.name);
            if Sysctls::default().read(&mode)?.is_some_and(|mode| mode != NO_AUTOMATIC_LINK_LOCAL) {
                steps.insert(0, Step::NoAutomaticLinkLocal);
            }
        }
        let held: Vec<IpNet> = address::dump(socket)?
            .into_iter()
            .filter(|address| address.index == found.index)
            .map(|address| address.ip)
            .collect();
        steps.retain(|step| !matches!(step, Step::Address(wanted) if held.contains(wanted)));
        if !found.is_up() {
            steps.push(Step::Up);
        }
        if steps.is_empty() {
            return Ok((found, Vec::new()));
        }
        let bridge = self.checked(found)?;
        self.carry_out(socket, &steps, bridge.index)?;
        Ok((bridge, steps.iter().map(Step::to_string).collect()))
    }

    fn checked(&self, found: Link) -> Result<Link, WiringError> {
        match found.kind.as_deref() {
            Some("bridge") => Ok(found),
            kind => {
                let kind = kind.unwrap_or("physical link").to_owned();
                Err(WiringError::NotABridge { name: self.name.to_string(), kind })
            }
        }
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
        if self.gateways.iter().any(|gateway| gateway.addr().is_ipv6()) {
            enable_ipv6(&self.name)?;
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
        let harmful =
            |failure: &Failure| !failure.error.is_present() && !steps[failure.index].may_fail(&failure.error);
        match socket.execute(&mut batch)?.into_iter().find(harmful) {
            None => Ok(()),
            Some(failure) => {
                Err(failure.error.attempting(format!("{} on bridge {}", steps[failure.index], self.name)))
            }
        }
    }
}
