//! The chains that iptables shows, in both of its flavours: what is in them is read, and rules are removed, without
//! executing anything where nftables holds them; rules are added by one `iptables-restore` a family.

mod legacy;
mod program;
mod restore;
mod snapshot;

use cni_spec::CniError;
use kernel::KernelError;
use kernel::route::Family;

pub(crate) use program::Flavour;
pub(crate) use restore::{Script, restore};
pub(crate) use snapshot::{Change, Snapshot, comment_words};

/// Both versions of IP.
pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// iptables of one version of IP, in one of its flavours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xtables {
    pub(crate) version: Family,
    pub(crate) flavour: Flavour,
    /// `iptables-restore`; none where nothing is executed.
    program: Option<std::path::PathBuf>,
}

/// Why chains of iptables could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum XtablesError {
    #[error(
        "`{0}` is not on this node (PATH and the sbin folders were searched): install iptables, or set the backend to \"nftables\""
    )]
    NoProgram(String),
    #[error("failed to run {program}: {cause}")]
    NotRun { program: String, cause: std::io::Error },
    #[error("{program} refused the rules: {said}")]
    Refused { program: String, said: String },
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl From<XtablesError> for CniError {
    fn from(error: XtablesError) -> Self {
        match error {
            XtablesError::Kernel(error) => crate::failure::kernel_refused(error),
            other => Self::new(cni_spec::ErrorCode::KernelRefused, other.to_string()),
        }
    }
}

/// Whether iptables is there for both versions.
pub(crate) fn status() -> Result<(), CniError> {
    for version in BOTH {
        Xtables::named(version)
            .map_err(|error| CniError::new(cni_spec::ErrorCode::NotAvailable, error.to_string()))?;
    }
    Ok(())
}

/// Where chains that iptables made may be, for whoever removes them: always in nftables, and in the tables of the legacy
/// flavour where this namespace has used them.
pub(crate) fn everywhere(version: Family, table: &str) -> Vec<Xtables> {
    let mut places = vec![Xtables { version, flavour: Flavour::Nft, program: None }];
    if legacy::is_used(version, table) {
        places.extend(program::find(version, Some(Flavour::Legacy)).ok());
    }
    places
}

impl Xtables {
    /// The one that goes by the plain name on this node, as the reference plugins take it.
    pub(crate) fn named(version: Family) -> Result<Self, XtablesError> {
        program::find(version, None)
    }

    /// The one whose chains decide here: the legacy flavour where this namespace uses its table, nftables else. The latter
    /// needs no program.
    pub(crate) fn deciding(version: Family, table: &str) -> Result<Self, XtablesError> {
        match legacy::is_used(version, table) {
            true => program::find(version, Some(Flavour::Legacy)),
            false => Ok(Self { version, flavour: Flavour::Nft, program: None }),
        }
    }
}
