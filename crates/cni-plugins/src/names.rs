//! The names of a call as the store has them: both crates check the same characters, each for its own reason.

use attachment::{Attachment, NetworkName};
use cni_spec::{BaseConf, CniError, ErrorCode};

/// Network and attachment of a call.
pub(crate) fn of(
    base: &BaseConf,
    attachment: &cni_spec::Attachment,
) -> Result<(NetworkName, Attachment), CniError> {
    let network = NetworkName::new(base.name.as_str())
        .map_err(|error| CniError::new(ErrorCode::InvalidNetworkConfig, format!("`name`: {error}")))?;
    Ok((network, attachment_of(attachment)?))
}

/// An attachment as the store names it.
pub(crate) fn attachment_of(attachment: &cni_spec::Attachment) -> Result<Attachment, CniError> {
    Attachment::new(attachment.container_id.as_str(), attachment.ifname.clone())
        .map_err(|error| CniError::new(ErrorCode::InvalidEnvironment, format!("`CNI_CONTAINERID`: {error}")))
}
