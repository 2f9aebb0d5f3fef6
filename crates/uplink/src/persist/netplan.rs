//! netplan (its YAML reference): the link's keys go to a bridge, but for those that say which link it is. Text is moved, not
//! parsed and written anew: comments and order stay.

use super::{ConfigFile, FileChange, PersistError, mac_text};
use crate::plan::NewBridge;

/// Where a link is that can be a bridge's port.
const SECTIONS: [&str; 3] = ["ethernets", "bonds", "vlans"];
/// What stays with the link; the last four are of bonds and VLAN links.
const OF_LINK: [&str; 10] = [
    "match",
    "set-name",
    "optional",
    "wakeonlan",
    "mtu",
    "macaddress",
    "interfaces",
    "parameters",
    "id",
    "link",
];

pub(super) fn change(
    files: &[ConfigFile],
    link: &str,
    bridge: &NewBridge,
) -> Result<Vec<FileChange>, PersistError> {
    let mut changes = Vec::new();
    for file in files {
        if let Some(after) = for_bridge(file, link, bridge)? {
            let before = Some(file.text.clone());
            changes.push(FileChange { path: file.path.clone(), before, after: Some(after) });
        }
    }
    match changes.as_slice() {
        [_] => Ok(changes),
        [] => Err(PersistError::odd(
            "/etc/netplan",
            format!("no file there has {link} below `ethernets:`, `bonds:` or `vlans:`"),
        )),
        _ => Err(PersistError::odd("/etc/netplan", format!("several files there configure {link}"))),
    }
}

fn for_bridge(file: &ConfigFile, link: &str, bridge: &NewBridge) -> Result<Option<String>, PersistError> {
    let lines: Vec<&str> = file.text.lines().collect();
    let place = |section: &str| {
        let section = lines.iter().position(|line| key(line) == Some(section))?;
        let entry = (section + 1..end_of(&lines, section))
            .find(|at| is_content(lines[*at]))
            .map(|at| indent(lines[at]))?;
        let is_own = |at: &usize| key(lines[*at]) == Some(link) && indent(lines[*at]) == entry;
        Some((section, (section + 1..end_of(&lines, section)).find(is_own)?))
    };
    let Some((section, own)) = SECTIONS.into_iter().find_map(place) else { return Ok(None) };
    let end = end_of(&lines, section);
    if [section, own].iter().any(|at| !rest(lines[*at]).is_empty()) {
        return Err(PersistError::odd(&file.path, "it has braces: write one key a line"));
    }
    if lines.iter().any(|line| line.contains('\t')) {
        return Err(PersistError::odd(&file.path, "it has tabs, which YAML does not allow"));
    }
    if lines.iter().any(|line| key(line) == Some("bridges")) {
        return Err(PersistError::odd(&file.path, "it has bridges already"));
    }
    let own_end = end_of(&lines, own);
    let keys: Vec<usize> = (own + 1..own_end).filter(|at| is_content(lines[*at])).collect();
    let inner = keys.first().map_or(indent(lines[own]) + 2, |at| indent(lines[*at]));
    let (mut stays, mut moves) = (Vec::new(), Vec::new());
    let mut with_link = false;
    for line in &lines[own + 1..own_end] {
        if is_content(line) && indent(line) == inner {
            with_link = key(line).is_some_and(|key| OF_LINK.contains(&key));
        }
        if with_link { stays.push(*line) } else { moves.push(*line) }
    }
    let pad = |width: usize| " ".repeat(width);
    let (section, entry) = (indent(lines[section]), indent(lines[own]));
    let mut after: Vec<String> = lines[..=own].iter().map(ToString::to_string).collect();
    after.extend(stays.iter().map(ToString::to_string));
    after.push(format!("{}dhcp4: false", pad(inner)));
    after.push(format!("{}dhcp6: false", pad(inner)));
    after.extend(lines[own_end..end].iter().map(ToString::to_string));
    after.push(format!("{}bridges:", pad(section)));
    after.push(format!("{}{}:", pad(entry), bridge.name));
    after.push(format!("{}interfaces: [{link}]", pad(inner)));
    after.push(format!("{}macaddress: \"{}\"", pad(inner), mac_text(bridge)));
    after.push(format!("{}mtu: {}", pad(inner), bridge.mtu));
    after.push(format!("{}parameters:", pad(inner)));
    after.push(format!("{}stp: false", pad(inner + 2)));
    after.push(format!("{}forward-delay: 0", pad(inner + 2)));
    after.extend(moves.iter().map(ToString::to_string));
    after.extend(lines[end..].iter().map(ToString::to_string));
    Ok(Some(after.join("\n") + "\n"))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_content(line: &str) -> bool {
    let trimmed = line.trim_start();
    !trimmed.is_empty() && !trimmed.starts_with('#')
}

/// The key of a line `key: …`, without quotes.
fn key(line: &str) -> Option<&str> {
    if !is_content(line) {
        return None;
    }
    let (key, _) = line.split_once(':')?;
    Some(key.trim().trim_matches(['"', '\'']))
}

/// What stands behind the key, comments aside.
fn rest(line: &str) -> &str {
    line.split_once(':').map_or("", |(_, rest)| rest.split('#').next().unwrap_or("").trim())
}

/// Where what is below the key of line `at` ends.
fn end_of(lines: &[&str], at: usize) -> usize {
    let outer = indent(lines[at]);
    let mut end = at + 1;
    for (place, line) in lines.iter().enumerate().skip(at + 1).filter(|(_, line)| is_content(line)) {
        if indent(line) <= outer {
            break;
        }
        end = place + 1;
    }
    end
}
