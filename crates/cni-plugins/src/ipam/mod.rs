//! The IPAM plugin that a configuration names: ours runs in this process, any other is executed, as the specification says.

mod executed;
mod find;

use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::{
    AttachResult, AttachmentCall, CniError, Command, DhcpPluginConf, ErrorCode, GcRequest, HostLocalConf,
    HostLocalStoreConf, StaticConf, StoreConf,
};

use crate::answer::Answer;
use crate::call::Call;
use crate::{dhcp, host_local, static_ipam};

use self::executed::Executed;
use self::find::find;

/// The one that speaks on the pod's link.
const DHCP: &str = "dhcp";

/// Who gives addresses to the pods of a network.
#[derive(Clone, Debug)]
pub(crate) enum Ipam {
    /// Our `host-local`.
    HostLocal,
    /// Our `static`.
    Static,
    /// Our `dhcp`.
    Dhcp,
    /// A program.
    Executed(Executed),
}

impl Ipam {
    /// The plugin of this name on `CNI_PATH`.
    pub(crate) fn named(name: &str) -> Result<Self, CniError> {
        let path = find(name)?;
        match (name, path) {
            ("host-local", None) => Ok(Self::HostLocal),
            ("static", None) => Ok(Self::Static),
            (DHCP, None) => Ok(Self::Dhcp),
            (_, Some(path)) => Ok(Self::Executed(Executed::new(path))),
            (_, None) => Err(CniError::new(
                ErrorCode::InvalidNetworkConfig,
                format!(
                    "`ipam.type` `{name}` is no IPAM plugin of this program: name one of its own, or another's"
                ),
            )),
        }
    }

    /// Whether it speaks on the pod's own link, ours or the reference's: that must be there before ADD, and until after
    /// DEL.
    pub(crate) fn asks_on_link(&self) -> bool {
        match self {
            Self::HostLocal | Self::Static => false,
            Self::Dhcp => true,
            Self::Executed(program) => program.name().is_some_and(|name| name == DHCP),
        }
    }

    /// Asks for addresses.
    pub(crate) fn add(
        &self,
        call: &Call<'_>,
        pod: &AttachmentCall<PathBuf>,
        answer: &mut Answer,
    ) -> Result<AttachResult, CniError> {
        let result = match self {
            Self::HostLocal => {
                host_local::add(&HostLocalConf::parse(call.stdin)?, &pod.attachment, &pod.args)?
            }
            Self::Static => static_ipam::add(&StaticConf::parse(call.stdin, &pod.args)?),
            Self::Dhcp => dhcp::add(&DhcpPluginConf::parse(call.stdin)?, pod, answer)?,
            Self::Executed(program) => program.add(call)?,
        };
        if result.ips.is_empty() {
            return Err(CniError::new(
                ErrorCode::InvalidNetworkConfig,
                "the IPAM plugin gave no address: configure one in `ipam`, or remove `ipam.type`",
            ));
        }
        Ok(result)
    }

    /// Gives back what an attachment has; `known` are the addresses that its link had.
    pub(crate) fn del<N>(
        &self,
        call: &Call<'_>,
        pod: &AttachmentCall<N>,
        known: &[IpAddr],
    ) -> Result<(), CniError> {
        match self {
            Self::HostLocal => {
                host_local::release(&HostLocalStoreConf::parse(call.stdin)?, &pod.attachment, known)
                    .map(|_| ())
            }
            Self::Static => Ok(()),
            Self::Dhcp => dhcp::del(&StoreConf::parse(call.stdin)?, &pod.attachment),
            Self::Executed(program) => program.silently(Command::Del, call),
        }
    }

    /// Verifies that what `prevResult` says is still the attachment's.
    pub(crate) fn check<N>(&self, call: &Call<'_>, pod: &AttachmentCall<N>) -> Result<(), CniError> {
        match self {
            Self::HostLocal => host_local::check(&HostLocalConf::parse(call.stdin)?, &pod.attachment),
            Self::Static => static_ipam::check(call.stdin, &pod.args),
            Self::Dhcp => dhcp::check(&DhcpPluginConf::parse(call.stdin)?, &pod.attachment),
            Self::Executed(program) => program.silently(Command::Check, call),
        }
    }

    /// Frees what belongs to no valid attachment.
    pub(crate) fn gc(
        &self,
        call: &Call<'_>,
        request: &GcRequest,
        answer: &mut Answer,
    ) -> Result<(), CniError> {
        match self {
            Self::HostLocal => host_local::gc(&HostLocalStoreConf::parse(call.stdin)?, request, answer),
            Self::Static => Ok(()),
            Self::Dhcp => dhcp::gc(request),
            Self::Executed(program) => program.silently(Command::Gc, call),
        }
    }

    /// Whether it can give addresses.
    pub(crate) fn status(&self, call: &Call<'_>) -> Result<(), CniError> {
        match self {
            Self::HostLocal => host_local::status(call.stdin),
            Self::Static => Ok(()),
            Self::Dhcp => DhcpPluginConf::parse(call.stdin).map(|_| ()),
            Self::Executed(program) => program.silently(Command::Status, call),
        }
    }
}
