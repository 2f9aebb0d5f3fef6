//! Reads one Node object, field by field, and notes what is wrong with each.

use std::net::IpAddr;

use ipnet::IpNet;

use super::document::{Lenient, NodeObject, Spec, Status};
use super::{INTERNAL_IP_ANNOTATION, LAN_SLICE_ANNOTATION, graver};
use crate::cluster::{ClusterNode, NodeName, NodeProblem, unix_seconds};
use crate::family::{Family, PerFamily};

/// Problems kept of one object's part, its CIDRs or the rest: the same mistake in a list of thousands is one mistake.
pub(super) const MAX_PROBLEMS_OF_PART: usize = 8;

/// An annotation has one value a family. A list that is longer than a slip explains is one mistake too, and none of its
/// values is used.
const MAX_VALUES_OF_ANNOTATION: usize = 3;

/// A UID is 36 bytes; anything longer is not one.
const MAX_UID: usize = 128;

/// Reads one object, and notes what is wrong with it.
pub(super) struct Reader<'a> {
    node: String,
    problems: &'a mut Vec<NodeProblem>,
    /// How many there were, also those that are not kept.
    noted: usize,
    /// How many more are kept of this part.
    room: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(node: String, problems: &'a mut Vec<NodeProblem>) -> Self {
        Self { node, problems, noted: 0, room: MAX_PROBLEMS_OF_PART }
    }
}

impl Reader<'_> {
    fn problem(&mut self, field: impl Into<String>, value: &str, reason: impl Into<String>, remedy: &str) {
        self.noted += 1;
        if let Some(room) = self.room.checked_sub(1) {
            self.room = room;
            self.problems.push(NodeProblem::new(&self.node, field, value, reason, remedy));
        }
    }

    fn present<T>(&mut self, field: &str, value: Lenient<T>) -> Option<T> {
        match value {
            Lenient::Present(value) => Some(value),
            Lenient::Absent(()) => None,
            Lenient::WrongType(_) => {
                self.problem(
                    field,
                    "?",
                    "is of the wrong type",
                    "write it as `kubectl get nodes -o yaml` does",
                );
                None
            }
        }
    }

    pub(super) fn node(&mut self, object: NodeObject) -> Option<ClusterNode> {
        let metadata = self.present("metadata", object.metadata).unwrap_or_default();
        let name = self.present("metadata.name", metadata.name).unwrap_or_default();
        let name = match NodeName::new(name.as_str()) {
            Ok(name) => name,
            Err(error) => {
                self.problem(
                    "metadata.name",
                    &name,
                    error.to_string(),
                    "the node is ignored until it is put right",
                );
                return None;
            }
        };
        name.as_str().clone_into(&mut self.node);
        if let Some(kind) = self.present("kind", object.kind)
            && kind != "Node"
        {
            self.problem("kind", &kind, "is not Node", "remove the object from the list");
            return None;
        }
        let uid = self.uid(metadata.uid);
        let created = self.created(metadata.creation_timestamp);
        let terminating = self.present("metadata.deletionTimestamp", metadata.deletion_timestamp).is_some();
        let annotations = self.present("metadata.annotations", metadata.annotations).unwrap_or_default();
        let status = self.present("status", object.status).unwrap_or_default();
        let (lan_slices, unreadable_lan_slice) = self.lan_slices(annotations.lan_slice);
        let (internal_ips, further_internal_ips) = self.internal_ips(annotations.internal_ip, status);
        let before = self.problems.len();
        let (pod_cidrs, unreadable_pod_cidr) = self.pod_cidrs(object.spec);
        graver(self.problems, before);
        Some(ClusterNode {
            name,
            uid,
            created,
            terminating,
            internal_ips,
            further_internal_ips,
            pod_cidrs,
            unreadable_pod_cidr,
            lan_slices,
            unreadable_lan_slice,
        })
    }

    fn uid(&mut self, uid: Lenient<String>) -> String {
        let uid = self.present("metadata.uid", uid).unwrap_or_default();
        if uid.len() > MAX_UID {
            self.problem(
                "metadata.uid",
                &uid,
                format!("is longer than {MAX_UID} bytes"),
                "give the UID as the API does",
            );
            return String::new();
        }
        uid
    }

    fn created(&mut self, created: Lenient<String>) -> Option<i64> {
        let text = self.present("metadata.creationTimestamp", created)?;
        let seconds = unix_seconds(&text);
        if seconds.is_none() {
            let remedy = "write it as 2024-05-01T12:00:00Z";
            self.problem("metadata.creationTimestamp", &text, "is no RFC 3339 timestamp", remedy);
        }
        seconds
    }

    /// The next hops, one a family, and the node's other addresses.
    fn internal_ips(
        &mut self,
        annotation: Lenient<String>,
        status: Status,
    ) -> (PerFamily<IpAddr>, Vec<IpAddr>) {
        let annotation_field = format!("metadata.annotations[{INTERNAL_IP_ANNOTATION}]");
        let annotation = self.present(&annotation_field, annotation);
        let mut chosen = PerFamily::default();
        for text in self.listed(&annotation_field, annotation.as_deref()) {
            let Some(address) = self.address(&annotation_field, text) else { continue };
            if chosen.get(Family::of(address)).is_some() {
                let reason = format!("is a second {} address", Family::of(address));
                self.problem(annotation_field.as_str(), text, reason, "name at most one a family");
                continue;
            }
            chosen.insert(Family::of(address), address);
        }
        let mut further = Vec::new();
        let addresses = self.present("status.addresses", status.addresses).unwrap_or_default();
        for (index, entry) in addresses.into_iter().enumerate() {
            let field = format!("status.addresses[{index}]");
            let Some(entry) = self.present(&field, entry) else { continue };
            if self.present(&field, entry.kind).as_deref() != Some("InternalIP") {
                continue;
            }
            let Some(text) = self.present(&field, entry.address) else { continue };
            let Some(address) = self.address(&field, &text) else { continue };
            match chosen.get(Family::of(address)) {
                None => {
                    chosen.insert(Family::of(address), address);
                }
                Some(taken) if *taken != address => further.push(address),
                Some(_) => {}
            }
        }
        (chosen, further)
    }

    /// The parts of the LAN, and whether there is one that cannot be read.
    fn lan_slices(&mut self, annotation: Lenient<String>) -> (PerFamily<IpNet>, bool) {
        let before = self.noted;
        let field = format!("metadata.annotations[{LAN_SLICE_ANNOTATION}]");
        let annotation = self.present(&field, annotation);
        let mut slices = PerFamily::default();
        for text in self.listed(&field, annotation.as_deref()) {
            let remedy = "give a part of the LAN's subnet";
            let Some(slice) = self.prefix(&field, text, "10.10.1.0/24 or 2001:db8::1:0/112", remedy) else {
                continue;
            };
            let family = Family::of_net(&slice);
            if slices.get(family).is_some() {
                let reason = format!("is a second {family} slice");
                self.problem(field.as_str(), text, reason, "name at most one a family");
                continue;
            }
            slices.insert(family, slice);
        }
        (slices, self.noted > before)
    }

    /// The values of an annotation that has a comma between them; of a list that cannot be meant, none, and one problem.
    fn listed<'t>(&mut self, field: &str, list: Option<&'t str>) -> Vec<&'t str> {
        let Some(list) = list else { return Vec::new() };
        let values = list.split(',').count();
        if values > MAX_VALUES_OF_ANNOTATION {
            self.problem(field, list, format!("has {values} values"), "name at most one a family");
            return Vec::new();
        }
        list.split(',').map(str::trim).collect()
    }

    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let remedy = "give a unicast address that the node holds";
        let Ok(address) = text.parse::<IpAddr>() else {
            self.problem(field, text, "is no IP address", remedy);
            return None;
        };
        if let Some(reason) = unusable(address) {
            self.problem(field, text, reason, remedy);
            return None;
        }
        Some(address)
    }

    /// The pod CIDRs, and whether there is one that cannot be read.
    fn pod_cidrs(&mut self, spec: Lenient<Spec>) -> (PerFamily<IpNet>, bool) {
        // Of its own, because routes depend on what is wrong here.
        self.room = MAX_PROBLEMS_OF_PART;
        let before = self.noted;
        let spec = self.present("spec", spec).unwrap_or_default();
        let list = self.present("spec.podCIDRs", spec.pod_cidrs).unwrap_or_default();
        let single = self.present("spec.podCIDR", spec.pod_cidr);
        let mut texts = Vec::with_capacity(list.len().max(1));
        for (index, text) in list.into_iter().enumerate() {
            let field = format!("spec.podCIDRs[{index}]");
            if let Some(text) = self.present(&field, text) {
                texts.push((field, text));
            }
        }
        // The API server keeps podCIDR equal to podCIDRs[0]; a person's file may hold only the former.
        if texts.is_empty() {
            texts
                .extend(single.filter(|text| !text.is_empty()).map(|text| ("spec.podCIDR".to_owned(), text)));
        }
        let mut cidrs = PerFamily::default();
        let mut unreadable = self.noted > before;
        for (field, text) in texts {
            let remedy = "give the node a pod CIDR of private or global unicast addresses";
            let Some(cidr) = self.prefix(&field, &text, "10.244.1.0/24 or fd00:10:244:1::/64", remedy) else {
                unreadable = true;
                continue;
            };
            let family = Family::of_net(&cidr);
            if cidrs.get(family).is_some() {
                let reason = format!("is a second {family} CIDR");
                self.problem(field, &text, reason, "a node has at most one a family: the first is used");
                continue;
            }
            cidrs.insert(family, cidr);
        }
        (cidrs, unreadable)
    }

    /// A prefix of addresses that pods can have, written as in `example`.
    fn prefix(&mut self, field: &str, text: &str, example: &str, remedy: &str) -> Option<IpNet> {
        let Ok(cidr) = text.parse::<IpNet>() else {
            self.problem(field, text, "is no CIDR", &format!("write it as {example}"));
            return None;
        };
        if cidr != cidr.trunc() {
            self.problem(field, text, "has host bits set", &format!("write {}", cidr.trunc()));
            return None;
        }
        if cidr.prefix_len() == 0 {
            self.problem(field, text, "holds every address there is", remedy);
            return None;
        }
        if let Some(reason) = unusable(cidr.addr()) {
            self.problem(field, text, reason, remedy);
            return None;
        }
        Some(cidr)
    }
}

/// Why neither a node nor a pod can have this address.
fn unusable(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("is unspecified");
    }
    if address.is_loopback() {
        return Some("is a loopback address");
    }
    if address.is_multicast() {
        return Some("is multicast");
    }
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => Some("is link-local"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("is link-local"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("is an IPv4 address mapped into IPv6"),
        _ => None,
    }
}
