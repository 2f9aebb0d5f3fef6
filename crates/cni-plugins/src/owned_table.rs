//! A table of nftables that a drop-in plugin keeps: a frame of chains, sets and maps that never changes, and elements that
//! say in their comments whose they are. One attachment is a few elements, however many others there are.

use cni_spec::{CniError, ErrorCode};
use kernel::KernelError;
use kernel::netlink::Socket;
use kernel::nftables::{
    Data, Difference, Element, Existing, Family, ObservedTable, Set, Table, TableName, Transaction,
    chain_uses, elements, observe, tables,
};
use rustix::io::Errno;

use crate::netfilter;

/// The names of the tables (family `inet`) of the drop-in plugins: host ports, masquerading, and the firewall's owners.
pub const DROP_IN_TABLES: [&str; 3] = ["hostgw_portmap", "hostgw_masquerade", "hostgw_firewall"];

/// How often a transaction is tried again that met somebody else's.
const ATTEMPTS: usize = 8;

/// An element, and the set that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) set: &'static str,
    pub(crate) element: Element,
}

impl Owned {
    /// Whether its comment begins so.
    pub(crate) fn is_of(&self, tag: &str) -> bool {
        self.comment().starts_with(tag)
    }

    /// Its comment.
    pub(crate) fn comment(&self) -> &str {
        self.element.comment.as_ref().map_or("", |comment| comment.as_str())
    }

    fn is_at(&self, other: &Self) -> bool {
        self.set == other.set && self.element.key == other.element.key
    }
}

/// The frame of such a table.
pub(crate) struct OwnedTable {
    /// The table's name; its family is `inet`.
    pub(crate) name: &'static str,
    /// The names of its sets and maps.
    pub(crate) sets: &'static [&'static str],
    /// How many rules each chain of the frame has, and how many others jump to it, together: by this the kernel tells,
    /// in one question, whether somebody flushed them.
    pub(crate) uses: &'static [(&'static str, u32)],
    /// The frame itself, without elements.
    pub(crate) frame: fn() -> Table,
}

/// Why elements could not be put in.
#[derive(Debug)]
pub(crate) enum PutError {
    /// The place of one is taken by this one, which does not yield.
    Taken(Box<Owned>),
    /// The kernel refused.
    Kernel(KernelError),
}

impl From<KernelError> for PutError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl OwnedTable {
    pub(crate) fn full_name(&self) -> TableName {
        TableName::new(Family::Inet, self.name)
    }

    /// Puts elements in, all or none, and the frame around them where it is missing or damaged. Those that are there
    /// already, comment and all, are well. What stands in the place of one goes if it yields. `prepare` writes what else
    /// belongs to the same transaction.
    pub(crate) fn put(
        &self,
        socket: &mut Socket,
        wanted: &[Owned],
        prepare: impl Fn(&mut Transaction),
        yields: impl Fn(&Owned) -> bool,
    ) -> Result<(), PutError> {
        let name = self.full_name();
        let frame = (self.frame)();
        let mut missing = wanted.to_vec();
        let mut stale: Vec<Owned> = Vec::new();
        let mut refused = KernelError::new("agree with other changes of the table", Errno::AGAIN);
        for _ in 0..ATTEMPTS {
            let mut transaction = Transaction::new();
            self.mend(socket, &mut transaction, &frame)?;
            prepare(&mut transaction);
            each_set(&frame, &stale, |set, elements| {
                transaction.delete_exactly(&name, set, elements);
            });
            each_set(&frame, &missing, |set, elements| {
                transaction.add_elements(&name, set, elements, Existing::Refuse);
            });
            match transaction.commit(socket) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_present() || error.errno == Errno::NOENT => refused = error,
                Err(error) => return Err(error.into()),
            }
            let held = self.elements(socket)?;
            missing = wanted.iter().filter(|wanted| !held.contains(wanted)).cloned().collect();
            stale =
                held.into_iter().filter(|held| missing.iter().any(|missing| held.is_at(missing))).collect();
            if let Some(at) = stale.iter().position(|stale| !yields(stale)) {
                return Err(PutError::Taken(Box::new(stale.swap_remove(at))));
            }
        }
        Err(refused.into())
    }

    fn mend(
        &self,
        socket: &mut Socket,
        transaction: &mut Transaction,
        frame: &Table,
    ) -> Result<(), KernelError> {
        if self.uses.is_empty() {
            // Sets alone: to make one that is there already changes nothing.
            transaction.repair(frame);
            return Ok(());
        }
        let names: Vec<&str> = self.uses.iter().map(|(chain, _)| *chain).collect();
        let uses = chain_uses(socket, &self.full_name(), &names)?;
        if uses.iter().all(Option::is_none) {
            // Two first pods at once: one makes table, chains and rules, the other is refused and comes back.
            transaction.create(frame, Existing::Refuse);
        } else if uses.iter().zip(self.uses).any(|(found, (_, wanted))| *found != Some(*wanted)) {
            transaction.repair(frame);
        }
        Ok(())
    }

    /// Every element; none where there is no table.
    pub(crate) fn elements(&self, socket: &mut Socket) -> Result<Vec<Owned>, KernelError> {
        let name = self.full_name();
        let frame = (self.frame)();
        let mut found = Vec::new();
        for set in &frame.sets {
            let Some(set_name) = self.sets.iter().find(|name| **name == set.name) else { continue };
            match elements(socket, &name, set) {
                Ok(elements) => {
                    found.extend(elements.into_iter().map(|element| Owned { set: set_name, element }));
                }
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Removes the elements that are `doomed`, in one transaction, and gives them.
    pub(crate) fn remove(
        &self,
        socket: &mut Socket,
        doomed: impl Fn(&Owned) -> bool,
    ) -> Result<Vec<Owned>, KernelError> {
        let mut refused = KernelError::new("agree with other changes of the table", Errno::AGAIN);
        for _ in 0..ATTEMPTS {
            let mut found = self.elements(socket)?;
            found.retain(&doomed);
            if found.is_empty() {
                return Ok(found);
            }
            let mut transaction = Transaction::new();
            each_set(&(self.frame)(), &found, |set, elements| {
                transaction.delete_exactly(&self.full_name(), set, elements);
            });
            match transaction.commit(socket) {
                Ok(()) => return Ok(found),
                // Somebody else removed them, or the table, or put something in their place.
                Err(error) if error.is_present() || error.errno == Errno::NOENT => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// What is not as ADD left it, for CHECK: elements that are missing, and whatever is amiss with the frame that makes
    /// them work. Gives the table, for what only the caller knows of.
    pub(crate) fn differences(
        &self,
        socket: &mut Socket,
        wanted: &[Owned],
    ) -> Result<(Vec<String>, Option<ObservedTable>), KernelError> {
        let Some(found) = observe(socket, &self.full_name())? else {
            return Ok((vec![format!("table `inet {}` is missing", self.name)], None));
        };
        let is_there = |wanted: &Owned| {
            let mut sets = found.sets.iter().filter(|held| held.set.name == wanted.set);
            sets.any(|held| held.set.elements.contains(&wanted.element))
        };
        let mut differences: Vec<String> = wanted
            .iter()
            .filter(|wanted| !is_there(wanted))
            .map(|wanted| {
                format!("an element of `{}` is missing or changed (table `inet {}`)", wanted.set, self.name)
            })
            .collect();
        differences.dedup();
        differences.extend(found.differences(&(self.frame)()).into_iter().filter_map(|difference| {
            let flaw = match difference {
                Difference::Table => "the table is asleep".to_owned(),
                Difference::Chain(name) => format!("chain `{name}` is missing or changed"),
                Difference::Rules(name) => format!("the rules of chain `{name}` were changed"),
                Difference::Set(name) => format!("set `{name}` is missing or changed"),
                Difference::UnexpectedChain(_)
                | Difference::UnexpectedSet(_)
                | Difference::Elements { .. } => return None,
            };
            Some(format!("{flaw} (table `inet {}`)", self.name))
        }));
        Ok((differences, Some(found)))
    }

    /// Removes the elements whose comments begin with `tag`; whoever closes the socket last does not keep the caller.
    pub(crate) fn remove_tagged(&self, tag: &str) -> Result<Vec<Owned>, KernelError> {
        let mut socket = netfilter::socket()?;
        let removed = self.remove(&mut socket, |element| element.is_of(tag))?;
        if !removed.is_empty() {
            netfilter::removed();
        }
        Ok(removed)
    }

    /// Removes the elements of a network that belong to none of the valid attachments, given by their tags.
    pub(crate) fn remove_invalid(&self, network: &str, valid: &[String]) -> Result<Vec<Owned>, KernelError> {
        let mut socket = netfilter::socket()?;
        let doomed =
            |element: &Owned| element.is_of(network) && !valid.iter().any(|valid| element.is_of(valid));
        let removed = self.remove(&mut socket, doomed)?;
        if !removed.is_empty() {
            netfilter::removed();
        }
        Ok(removed)
    }
}

/// Hands the elements of each set over together with the set's declaration: one message a set, so that however many are
/// refused, the refusals fit the socket's buffer.
fn each_set(frame: &Table, owned: &[Owned], mut hand: impl FnMut(&Set, &[Element])) {
    if owned.is_empty() {
        return;
    }
    for set in &frame.sets {
        let elements: Vec<Element> =
            owned.iter().filter(|owned| owned.set == set.name).map(|owned| owned.element.clone()).collect();
        if !elements.is_empty() {
            hand(set, &elements);
        }
    }
}

/// The values that an element maps to.
pub(crate) fn values_of(element: &Element) -> &[kernel::nftables::Value] {
    match &element.data {
        Some(Data::Values(values)) => values,
        _ => &[],
    }
}

/// Whether this kernel takes our tables: it lists those that there are.
pub(crate) fn status() -> Result<(), CniError> {
    let listed = netfilter::socket().and_then(|mut socket| tables(&mut socket, Some(Family::Inet)));
    listed.map(drop).map_err(|error| {
        CniError::new(ErrorCode::NotAvailable, format!("nftables cannot be used: {error}"))
            .with_details("the kernel needs nf_tables, and the plugin CAP_NET_ADMIN on the node")
    })
}
