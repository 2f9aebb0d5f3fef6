//! What is written down before the first change, so that whoever comes next can put everything back. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::holdings::Holdings;
use crate::object::LinkRef;
use crate::persist::Files;
use crate::plan::{LinkLocalMode, NewBridge, Place};

/// The journal's form.
pub const SCHEMA_VERSION: u32 = 1;

/// A move that is not settled yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Which move: watchdogs of others leave it alone.
    pub id: String,
    /// Where and when it holds: after a boot, or in another network namespace, it is history.
    pub realm: Realm,
    /// The link.
    pub link: LinkRef,
    /// The bridge that the link joins or leaves.
    pub bridge: NewBridge,
    /// What was there.
    pub before: Before,
    /// What is written for the next boot once the move is settled.
    #[serde(default)]
    pub files: Files,
    /// How far it is.
    pub phase: Phase,
}

/// A boot of a machine, and a network namespace of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Realm {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The namespace's inode.
    pub netns: u64,
}

/// Everything that a move changes, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Before {
    /// Who held the addresses.
    pub place: Place,
    /// The same, as messages name it.
    pub holder: LinkRef,
    /// What it held.
    pub holdings: Holdings,
    /// How the holder's link-local address was made.
    pub holder_link_local: LinkLocalMode,
    /// How the link's link-local address is made while it is no port.
    pub link_local: LinkLocalMode,
    /// The holder's settings: folder and name below `/proc/sys/net`, and the value.
    pub settings: Vec<(String, String)>,
    /// When it was read, in seconds since the boot (`CLOCK_BOOTTIME`).
    pub at: u64,
}

/// How far a move is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "name")]
pub enum Phase {
    /// Changes are being made.
    Moving,
    /// All changes are made and the probes answered; it is put back unless it is confirmed.
    Unconfirmed {
        /// Until when, in milliseconds since the boot (`CLOCK_BOOTTIME`).
        until_ms: u64,
    },
}

/// A settled join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Where and when it holds.
    pub realm: Realm,
    /// The link.
    pub link: LinkRef,
    /// The bridge of which it is a port.
    pub bridge: NewBridge,
    /// How the link's link-local address is made while it is no port.
    pub link_local: LinkLocalMode,
    /// What was written for the next boot, to be put back by a leave.
    #[serde(default)]
    pub files: Files,
}

/// What is to be done about a journal that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Put back what it tells.
    PutBack,
    /// Wait: somebody may still confirm.
    Wait(Duration),
    /// It is history.
    Forget,
}

impl Journal {
    /// What a watchdog is to do `now_ms` milliseconds after the boot, when nobody works on the move any more.
    #[must_use]
    pub fn due(&self, realm: &Realm, now_ms: u64) -> Due {
        match self.phase {
            _ if self.realm != *realm => Due::Forget,
            Phase::Unconfirmed { until_ms } if now_ms < until_ms => {
                Due::Wait(Duration::from_millis(until_ms - now_ms))
            }
            Phase::Moving | Phase::Unconfirmed { .. } => Due::PutBack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(phase: Phase) -> Journal {
        let link = LinkRef { index: 2, name: "eth0".to_owned() };
        Journal {
            schema_version: SCHEMA_VERSION,
            id: "1".to_owned(),
            realm: realm("one"),
            link: link.clone(),
            bridge: NewBridge { name: "br0".to_owned(), mac: [2, 0, 0, 0, 0, 1], mtu: 1500 },
            before: Before {
                place: Place::Link,
                holder: link,
                holdings: Holdings::default(),
                holder_link_local: 0,
                link_local: 0,
                settings: Vec::new(),
                at: 0,
            },
            files: Files::default(),
            phase,
        }
    }

    fn realm(boot: &str) -> Realm {
        Realm { boot_id: boot.to_owned(), netns: 1 }
    }

    #[test]
    fn a_move_that_was_broken_off_is_put_back_at_once_and_an_unconfirmed_one_in_time() {
        assert_eq!(journal(Phase::Moving).due(&realm("one"), 5), Due::PutBack);
        let unconfirmed = journal(Phase::Unconfirmed { until_ms: 1000 });
        assert_eq!(unconfirmed.due(&realm("one"), 400), Due::Wait(Duration::from_millis(600)));
        assert_eq!(unconfirmed.due(&realm("one"), 1000), Due::PutBack);
    }

    #[test]
    fn a_journal_of_before_the_boot_is_history() {
        assert_eq!(journal(Phase::Moving).due(&realm("two"), 5), Due::Forget);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for phase in [Phase::Moving, Phase::Unconfirmed { until_ms: 7 }] {
            let journal = journal(phase);
            let text = serde_json::to_string(&journal).unwrap();
            assert_eq!(serde_json::from_str::<Journal>(&text).unwrap(), journal);
        }
    }
}
