//! STATUS: whether ADD can be served. Anything but "yes" makes the node NotReady and drives its pods away, so the only
//! "no" is the time before the first data path after a boot.

use cni_spec::{CniError, ErrorCode, StatusConf};

/// Fails with code 50 while the file does not exist that the agent writes once packets flow.
pub(crate) fn status(conf: &StatusConf) -> Result<(), CniError> {
    let Some(ready_file) = &conf.ready_file else { return Ok(()) };
    // A file that cannot be examined is no reason to drive pods away.
    if ready_file.try_exists().unwrap_or(true) {
        return Ok(());
    }
    Err(CniError::new(
        ErrorCode::NotAvailable,
        format!(
            "the routes of this node are not in place yet: `readyFile` {} does not exist; hostgw agent writes it, see \
             its log",
            ready_file.display()
        ),
    ))
}
