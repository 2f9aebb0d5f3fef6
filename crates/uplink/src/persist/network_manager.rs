//! NetworkManager (`nm-settings-keyfile(5)`): the link's profile becomes a port's, and a new one has its addresses.

use std::path::Path;

use super::{ConfigFile, FileChange, PersistError, mac_text};
use crate::plan::NewBridge;

const FOLDER: &str = "/etc/NetworkManager/system-connections";
/// What belongs to who holds the addresses.
const OF_ADDRESSES: [&str; 3] = ["ipv4", "ipv6", "proxy"];

/// A section's name, and its lines.
type Section<'a> = (&'a str, Vec<&'a str>);

pub(super) fn change(
    files: &[ConfigFile],
    uuid: &str,
    link: &str,
    bridge: &NewBridge,
) -> Result<Vec<FileChange>, PersistError> {
    let profile = |file: &&ConfigFile| {
        sections(&file.text)
            .iter()
            .any(|(name, lines)| *name == "connection" && value(lines, "uuid") == Some(uuid))
    };
    let file = files.iter().find(profile).ok_or_else(|| {
        PersistError::odd(FOLDER, format!("no profile there has the uuid {uuid}, which {link} uses"))
    })?;
    let sections = sections(&file.text);
    let own_uuid =
        of_bridge(uuid).ok_or_else(|| PersistError::odd(&file.path, format!("`{uuid}` is no uuid")))?;
    let name = &bridge.name;
    let (mut port, mut holder) = (String::new(), String::new());
    for (section, lines) in &sections {
        if *section == "connection" {
            port += "[connection]\n";
            for line in lines.iter().filter(|line| !is_key(line, &["master", "slave-type", "interface-name"]))
            {
                port += line;
                port.push('\n');
            }
            port = port.trim_end().to_owned();
            port += &format!("\ninterface-name={link}\nmaster={name}\nslave-type=bridge\n\n");
            holder += &format!(
                "[connection]\nid=hostgw-{name}\nuuid={own_uuid}\ntype=bridge\ninterface-name={name}\n\n\
                 [bridge]\nmac-address={}\nstp=false\n\n",
                mac_text(bridge)
            );
            continue;
        }
        let to = if OF_ADDRESSES.contains(section) { &mut holder } else { &mut port };
        if !section.is_empty() {
            *to += &format!("[{section}]\n");
        }
        for line in lines {
            *to += line;
            to.push('\n');
        }
    }
    Ok(vec![
        FileChange {
            path: Path::new(FOLDER).join(format!("hostgw-{name}.nmconnection")),
            before: None,
            after: Some(holder),
        },
        FileChange { path: file.path.clone(), before: Some(file.text.clone()), after: Some(port) },
    ])
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = vec![("", Vec::new())];
    for line in text.lines() {
        match line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => sections.push((name, Vec::new())),
            None => {
                if let Some((_, lines)) = sections.last_mut() {
                    lines.push(line);
                }
            }
        }
    }
    sections
}

fn value<'a>(lines: &[&'a str], key: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('=')).map(str::trim)
}

fn is_key(line: &str, keys: &[&str]) -> bool {
    keys.iter().any(|key| value(&[line], key).is_some())
}

/// A uuid that follows from the link's: the same each time, and another.
fn of_bridge(uuid: &str) -> Option<String> {
    let fits = uuid.len() == 36
        && uuid
            .char_indices()
            .all(|(at, c)| if matches!(at, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() });
    let turned = |c: char| c.to_digit(16).and_then(|digit| char::from_digit(15 - digit, 16)).unwrap_or(c);
    fits.then(|| uuid.char_indices().map(|(at, c)| if at < 8 { turned(c) } else { c }).collect())
}
