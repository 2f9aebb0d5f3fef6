//! systemd-networkd (`systemd.network(5)`, `systemd.netdev(5)`): three files of ours that sort before others; what is there
//! stays.

use std::path::{Path, PathBuf};

use super::{ConfigFile, FileChange, PersistError, mac_text};
use crate::plan::NewBridge;

const FOLDER: &str = "/etc/systemd/network";

pub(super) fn change(
    file: &ConfigFile,
    link: &str,
    bridge: &NewBridge,
) -> Result<Vec<FileChange>, PersistError> {
    let name = &bridge.name;
    let new = |file: String, text: String| FileChange {
        path: Path::new(FOLDER).join(file),
        before: None,
        after: Some(text),
    };
    let own = PathBuf::from(FOLDER).join(format!("05-hostgw-{link}.network"));
    if file.path == own {
        return Err(PersistError::odd(&file.path, "it puts the link into a bridge already"));
    }
    let (moved, stays) =
        for_bridge(&file.text, name).ok_or_else(|| PersistError::odd(&file.path, "it has no [Match]"))?;
    let netdev = format!(
        "[NetDev]\nName={name}\nKind=bridge\nMACAddress={}\nMTUBytes={}\n\n[Bridge]\nSTP=no\n",
        mac_text(bridge),
        bridge.mtu
    );
    let port = format!("[Match]\nName={link}\n\n[Network]\nBridge={name}\nLinkLocalAddressing=no\n{stays}");
    Ok(vec![
        new(format!("05-hostgw-{name}.netdev"), netdev),
        new(format!("05-hostgw-{link}.network"), port),
        new(format!("05-hostgw-{name}.network"), moved),
    ])
}

/// The link's file with the bridge as what it matches, and the lines that stay with the link: VLAN links are on it still.
/// `[Link]` is the port's own affair: its MTU is the bridge's already.
fn for_bridge(text: &str, bridge: &str) -> Option<(String, String)> {
    let (mut moved, mut stays) = (String::new(), String::new());
    let mut section = "";
    let mut matched = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            section = trimmed;
            if section == "[Match]" && !matched {
                moved += &format!("[Match]\nName={bridge}\n\n");
                matched = true;
            }
        }
        if matches!(section, "[Match]" | "[Link]") {
            continue;
        }
        let is_of_link = section == "[Network]" && trimmed.starts_with("VLAN=");
        let to = if is_of_link { &mut stays } else { &mut moved };
        *to += line;
        to.push('\n');
    }
    matched.then_some((moved, stays))
}
