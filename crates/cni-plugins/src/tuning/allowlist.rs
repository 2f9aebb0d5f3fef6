//! The sysctls that an administrator allows: a file of regular expressions, one a line. Without the file, all of `net`.

use std::io;

use cni_spec::{CniError, ErrorCode};
use regex_lite::Regex;

use crate::failure::io_failed;

const PATH: &str = "/etc/cni/tuning/allowlist.conf";

/// Refuses keys, as they were written, that match no line.
pub(super) fn check<'k>(keys: impl Iterator<Item = &'k String>) -> Result<(), CniError> {
    let text = match std::fs::read_to_string(PATH) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_failed(&format!("read {PATH}"), &error)),
    };
    check_against(&text, keys)
}

fn check_against<'k>(text: &str, keys: impl Iterator<Item = &'k String>) -> Result<(), CniError> {
    let refuse = |reason: String| CniError::new(ErrorCode::InvalidNetworkConfig, reason);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let allowed = lines
        .map(|line| {
            Regex::new(line).map_err(|error| {
                refuse(format!(
                    "{PATH} has the line `{line}`, which is no regular expression: {error}; correct it"
                ))
            })
        })
        .collect::<Result<Vec<Regex>, CniError>>()?;
    for key in keys {
        if !allowed.iter().any(|allowed| allowed.is_match(key)) {
            return Err(refuse(format!(
                "`sysctl` has the key `{}`, which no line of {PATH} allows: remove it, or let the administrator add it",
                key.escape_debug()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &str, key: &str) -> bool {
        check_against(list, std::iter::once(&key.to_owned())).is_ok()
    }

    #[test]
    fn a_key_is_allowed_that_matches_one_line() {
        let list = "^net\\.core\\.somaxconn$\n\n  ^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$  \n";
        assert!(allowed(list, "net.core.somaxconn"));
        assert!(allowed(list, "net.ipv4.conf.IFNAME.arp_filter"));
        assert!(!allowed(list, "net.core.somaxconn.x"));
        assert!(!allowed("", "net.core.somaxconn"));
        assert!(allowed("somax", "net.core.somaxconn"));
    }

    #[test]
    fn a_line_that_is_no_expression_is_named() {
        let error = check_against("net(", std::iter::empty()).unwrap_err();
        assert!(error.msg.contains("`net(`"), "{error}");
    }
}
