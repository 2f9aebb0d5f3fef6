//! Attachments of which the container runtime knows nothing any more although their links live: it lost its state, and
//! their DEL will never come.

use std::collections::BTreeSet;

use attachment::{Attachment, NetworkName, ReleaseError, Store};
use kernel::KernelError;
use kernel::link;
use kernel::netlink::{Batch, Socket};
use node_network::Condition;

use super::{PodsReport, Records};

/// The pod sandboxes that the runtime said it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// When it was asked, in seconds since 1970.
    pub(crate) asked: u64,
    /// Their ids, which are the container ids of their attachments.
    pub(crate) sandboxes: BTreeSet<String>,
}

/// Two answers, with no error between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TwoLooks {
    pub(crate) earlier: Listing,
    pub(crate) latest: Listing,
}

/// Which attachments of `network` the runtime has forgotten; a condition where its answer is not believed.
///
/// A runtime lists a sandbox only after its ADD, so that an attachment must have been older than `grace_seconds` when the
/// runtime was first asked. One that was made for no Kubernetes pod is another runtime's. And an answer that names the
/// sandbox of no attachment at all, as an empty one does, may be about other pods than these, or come too early.
pub(crate) fn forgotten(
    records: &Records,
    network: &NetworkName,
    looks: &TwoLooks,
    grace_seconds: u64,
) -> Result<BTreeSet<Attachment>, Box<Condition>> {
    let of_network = || {
        let entries = records.entries.iter().filter(|(of, _)| of == network);
        entries.map(|(_, entry)| &entry.record)
    };
    let listed =
        |attachment: &Attachment, listing: &Listing| listing.sandboxes.contains(attachment.container_id());
    let old = |created: u64| created.saturating_add(grace_seconds) < looks.earlier.asked;
    let missing: BTreeSet<Attachment> = of_network()
        .filter(|record| record.wiring.pod.is_some() && old(record.created))
        .map(|record| &record.attachment)
        .filter(|attachment| !listed(attachment, &looks.earlier) && !listed(attachment, &looks.latest))
        .cloned()
        .collect();
    let plausible = of_network().any(|record| listed(&record.attachment, &looks.latest));
    if missing.is_empty() || plausible {
        Ok(missing)
    } else {
        let (attachments, sandboxes) = (missing.len(), looks.latest.sandboxes.len());
        Err(Box::new(Condition::RuntimeImplausible { attachments, sandboxes }))
    }
}

/// Deletes the links of forgotten attachments, and frees what they held.
pub(crate) fn reclaim_forgotten(
    socket: &mut Socket,
    store: &Store,
    forgotten: &BTreeSet<Attachment>,
    report: &mut PodsReport,
) {
    for attachment in forgotten {
        match reclaim(socket, store, attachment) {
            Ok(true) => report.done.push(format!(
                "freed attachment {attachment}, whose sandbox the container runtime does not know any more"
            )),
            Ok(false) => {}
            Err(error) => report.problems.push(error),
        }
    }
}

/// Whether it was freed. The record is held from before the link goes until after the addresses are free.
fn reclaim(socket: &mut Socket, store: &Store, attachment: &Attachment) -> Result<bool, String> {
    let detachment = match store.detach(attachment) {
        Ok(Some(detachment)) => detachment,
        // A DEL came, or is at work, after all.
        Ok(None) | Err(ReleaseError::InProgress { .. }) => return Ok(false),
        Err(error) => return Err(error.to_string()),
    };
    let Some(name) = detachment.entry().map(|entry| entry.record.wiring.host_link.to_string()) else {
        return Ok(false);
    };
    delete_link(socket, &name)
        .map_err(|error| error.attempting(format!("delete link {name}")).to_string())?;
    detachment.release().map_err(|error| error.to_string())?;
    Ok(true)
}

fn delete_link(socket: &mut Socket, name: &str) -> Result<(), KernelError> {
    let Some(found) = link::by_name(socket, name)? else { return Ok(()) };
    let mut batch = Batch::new();
    link::delete(&mut batch, found.index);
    match socket.execute_all(&mut batch) {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use attachment::{Entry, Record, State};
    use proptest::prelude::*;

    use super::*;

    const GRACE: u64 = 120;
    const ASKED: u64 = 10_000;

    fn record(id: &str, created: u64, of_kubernetes: bool) -> (NetworkName, Entry) {
        let pod = serde_json::json!({"namespace": "default", "name": id});
        let mut record = serde_json::json!({
            "network": "hostgw",
            "attachment": {"containerID": id, "ifname": "eth0"},
            "created": created,
            "addresses": [],
            "wiring": {
                "netns": {"path": "/run/netns/x", "dev": 4, "inode": 7}, "bootId": "boot", "hostLink": "hgw00112233445",
                "mode": "ptp", "mtu": 1500,
            },
        });
        if of_kubernetes {
            record["wiring"]["pod"] = pod;
        }
        let record: Record = serde_json::from_value(record).unwrap();
        (network(), Entry { state: State::Attached, record })
    }

    fn network() -> NetworkName {
        NetworkName::new("hostgw").unwrap()
    }

    fn records(ids: &[&str]) -> Records {
        let entries = ids.iter().map(|id| record(id, ASKED - GRACE - 1, true)).collect();
        Records { entries, problems: Vec::new() }
    }

    fn looks(earlier: &[&str], latest: &[&str]) -> TwoLooks {
        let listing =
            |asked, ids: &[&str]| Listing { asked, sandboxes: ids.iter().map(|&id| id.to_owned()).collect() };
        TwoLooks { earlier: listing(ASKED, earlier), latest: listing(ASKED + 30, latest) }
    }

    fn freed(records: &Records, looks: &TwoLooks) -> Result<Vec<String>, &'static str> {
        let freed = forgotten(records, &network(), looks, GRACE).map_err(|doubt| doubt.code())?;
        Ok(freed.iter().map(|attachment| attachment.container_id().to_string()).collect())
    }

    #[test]
    fn what_two_answers_do_not_have_is_forgotten() {
        let records = records(&["a", "b"]);
        assert_eq!(freed(&records, &looks(&["a"], &["a"])).unwrap(), ["b"]);
        for (earlier, latest) in
            [(&["a", "b"][..], &["a"][..]), (&["a"], &["a", "b"]), (&["a", "b"], &["a", "b"])]
        {
            assert!(freed(&records, &looks(earlier, latest)).unwrap().is_empty(), "{earlier:?} {latest:?}");
        }
    }

    #[test]
    fn an_answer_about_none_of_our_pods_is_doubted_and_only_where_it_matters() {
        let records = records(&["a", "b"]);
        for other in [&[][..], &["x"]] {
            assert_eq!(freed(&records, &looks(other, other)), Err("runtime-implausible"));
        }
        assert!(freed(&Records::default(), &looks(&[], &[])).unwrap().is_empty());
    }

    #[test]
    fn young_attachments_others_networks_and_other_runtimes_pods_are_left() {
        let mut records = records(&["a"]);
        records.entries.push(record("young", ASKED - GRACE, true));
        records.entries.push(record("from-the-future", ASKED + 1_000_000, true));
        records.entries.push(record("podman", 0, false));
        let (_, other) = record("elsewhere", 0, true);
        records.entries.push((NetworkName::new("other").unwrap(), other));
        assert!(freed(&records, &looks(&["a"], &["a"])).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn nobody_is_freed_whom_either_answer_has_and_nobody_without_a_proof_of_sense(
            ids in proptest::collection::btree_set("[a-d]", 0..4),
            earlier in proptest::collection::btree_set("[a-f]", 0..6),
            latest in proptest::collection::btree_set("[a-f]", 0..6),
        ) {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let two = TwoLooks {
                earlier: Listing { asked: ASKED, sandboxes: earlier.clone() },
                latest: Listing { asked: ASKED + 30, sandboxes: latest.clone() },
            };
            if let Ok(freed) = freed(&records(&ids), &two) {
                for id in &freed {
                    prop_assert!(!earlier.contains(id) && !latest.contains(id));
                }
                prop_assert!(freed.is_empty() || ids.iter().any(|id| latest.contains(*id)));
            }
        }
    }
}
