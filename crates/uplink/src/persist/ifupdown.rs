//! ifupdown (`interfaces(5)`, `bridge-utils-interfaces(5)`): the link's stanzas become the bridge's.

use super::{ConfigFile, FileChange, PersistError, mac_text};
use crate::plan::NewBridge;

pub(super) fn change(
    files: &[ConfigFile],
    link: &str,
    bridge: &NewBridge,
) -> Result<Vec<FileChange>, PersistError> {
    let stays: Vec<&str> = files.iter().flat_map(|file| of_link(&file.text, link)).collect();
    let mut stanzas = 0;
    let mut changes = Vec::new();
    for file in files {
        let text = for_bridge(&file.text, link, bridge, &stays, &mut stanzas);
        if text != file.text {
            changes.push(FileChange {
                path: file.path.clone(),
                before: Some(file.text.clone()),
                after: Some(text),
            });
        }
    }
    if stanzas == 0 {
        return Err(PersistError::odd("/etc/network/interfaces", format!("no `iface {link}` is in it")));
    }
    Ok(changes)
}

/// Words that begin a stanza, or end one.
const STANZAS: [&str; 9] = [
    "auto",
    "allow-auto",
    "allow-hotplug",
    "iface",
    "mapping",
    "source",
    "source-directory",
    "no-auto-down",
    "no-scripts",
];

/// Whether an option makes the link what it is (a bond, a VLAN link), so that it stays with it.
fn makes_link(option: &str) -> bool {
    option.starts_with("bond-")
        || option.starts_with("bond_")
        || matches!(option, "slaves" | "vlan-raw-device" | "vlan_raw_device")
}

/// The lines of the link's stanzas that stay with it.
fn of_link<'a>(text: &'a str, link: &str) -> Vec<&'a str> {
    let mut within = false;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("iface") => within = words.next() == Some(link),
            Some(word) if STANZAS.contains(&word) => within = false,
            Some(option) if within && makes_link(option) => found.push(line),
            _ => {}
        }
    }
    found
}

fn for_bridge(text: &str, link: &str, bridge: &NewBridge, stays: &[&str], stanzas: &mut usize) -> String {
    let mut changed = String::new();
    // Where it has a stanza still, it is brought up first.
    let both = if stays.is_empty() { bridge.name.clone() } else { format!("{link} {}", bridge.name) };
    let mut within = false;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["auto" | "allow-auto" | "allow-hotplug", ..] => {
                within = false;
                // A bridge is never plugged in: what was brought up by hotplug is brought up at boot.
                if words.contains(&link) && words[0] == "allow-hotplug" {
                    let others: Vec<_> = words[1..].iter().copied().filter(|word| *word != link).collect();
                    if !others.is_empty() {
                        changed += &format!("allow-hotplug {}\n", others.join(" "));
                    }
                    changed += &format!("auto {both}\n");
                } else {
                    changed += &renamed(line, link, &both);
                    changed.push('\n');
                }
            }
            ["iface", name, ..] => {
                within = *name == link;
                if !within {
                    changed += line;
                    changed.push('\n');
                    continue;
                }
                if *stanzas == 0 && !stays.is_empty() {
                    changed += &format!("iface {link} inet manual\n{}\n\n", stays.join("\n"));
                }
                changed += &renamed(line, link, &bridge.name);
                changed.push('\n');
                *stanzas += 1;
                if *stanzas == 1 {
                    let mac = mac_text(bridge);
                    changed += &format!(
                        "    bridge_ports {link}\n    bridge_hw {mac}\n    bridge_stp off\n    bridge_fd 0\n"
                    );
                }
            }
            [word, ..] if STANZAS.contains(word) => {
                within = false;
                changed += line;
                changed.push('\n');
            }
            [option, ..] if within && makes_link(option) => {}
            _ => {
                let line = if within { renamed(line, link, &bridge.name) } else { line.to_owned() };
                changed += &line;
                changed.push('\n');
            }
        }
    }
    changed
}

/// The line with each word that is the link's name exchanged; spaces stay.
fn renamed(line: &str, link: &str, bridge: &str) -> String {
    line.split_inclusive(char::is_whitespace)
        .map(|word| {
            let (bare, space) = word.split_at(word.trim_end().len());
            if bare == link { format!("{bridge}{space}") } else { word.to_owned() }
        })
        .collect()
}
