//! Whether a call is a usual one, by its arguments and environment (pure).

use crate::bytes::{behind, is_identifier, position, same};

/// A path up to this length, with its NUL, has room in the answer; runtimes' are shorter.
pub(crate) const LONGEST_PATH: usize = 256;

/// What `loopback` is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Set `lo` up, and tell its addresses.
    Add,
    /// Set it down.
    Del,
}

/// A usual call of `loopback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The verb.
    pub verb: Verb,
    /// `CNI_NETNS`: an absolute path of characters that JSON quotes as they are, and a NUL.
    pub netns: &'a [u8],
}

impl<'a> Call<'a> {
    /// Reads a call from the program's name and its environment (`NAME=value`), each with its NUL; none where anything is
    /// missing, wrong or only unusual.
    pub fn read(program: &[u8], environment: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        if !same(file_name(program), b"loopback\0") {
            return None;
        }
        let (mut command, mut container_id, mut ifname, mut args, mut netns) = (None, None, None, None, None);
        for variable in environment {
            // The first of a name counts, as for `getenv`.
            if let Some(value) = behind(variable, b"CNI_COMMAND=") {
                command = command.or(Some(value));
            } else if let Some(value) = behind(variable, b"CNI_CONTAINERID=") {
                container_id = container_id.or(Some(value));
            } else if let Some(value) = behind(variable, b"CNI_IFNAME=") {
                ifname = ifname.or(Some(value));
            } else if let Some(value) = behind(variable, b"CNI_ARGS=") {
                args = args.or(Some(value));
            } else if let Some(value) = behind(variable, b"CNI_NETNS=") {
                netns = netns.or(Some(value));
            }
        }
        let command = command?;
        let verb = if same(command, b"ADD\0") {
            Verb::Add
        } else if same(command, b"DEL\0") {
            Verb::Del
        } else {
            return None;
        };
        let netns = netns.filter(|path| is_usual_path(path))?;
        // Nothing that a runtime adds to the arguments keeps DEL from its work.
        let is_usual = is_identifier(without_nul(container_id?))
            && same(ifname?, b"lo\0")
            && (verb == Verb::Del || are_usual(without_nul(args.unwrap_or(b"\0"))));
        is_usual.then_some(Self { verb, netns })
    }
}

fn without_nul(text: &[u8]) -> &[u8] {
    text.split_last().map_or(text, |(_, text)| text)
}

fn file_name(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    slash.and_then(|slash| path.get(slash + 1..)).unwrap_or(path)
}

fn is_usual_path(path: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || position(b"/-_.:", *byte).is_some();
    path.len() <= LONGEST_PATH && path.first() == Some(&b'/') && without_nul(path).iter().all(is_plain)
}

/// `IgnoreUnknown=1`, and what says whose pod it is.
fn are_usual(args: &[u8]) -> bool {
    if args.is_empty() {
        return true;
    }
    let Some(mut rest) = behind(args, b"IgnoreUnknown=1") else { return false };
    while let Some((separator, pairs)) = rest.split_first() {
        let end = position(pairs, b';').unwrap_or(pairs.len());
        let Some((pair, others)) = pairs.split_at_checked(end) else { return false };
        let Some((key, value)) = position(pair, b'=').and_then(|equals| pair.split_at_checked(equals)) else {
            return false;
        };
        let value = value.get(1..).unwrap_or_default();
        let says_whose = behind(key, b"K8S_POD_").is_some() && is_identifier(key) && is_identifier(value);
        if *separator != b';' || !says_whose {
            return false;
        }
        rest = others;
    }
    true
}
