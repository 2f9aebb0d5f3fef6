//! Changing nftables: messages that take effect together or not at all.

use super::encode::write_rule;
use super::set::Set;
use super::table::{BaseChain, Chain, Policy, Table, TableName};
use super::{
    Comment, DELCHAIN, DELRULE, DELSET, DELSETELEM, DELTABLE, Element, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM,
    NEWTABLE, Rule, SUBSYSTEM, header, message_type, refusal, userdata,
};
use crate::KernelError;
use crate::netlink::{APPEND, Batch, CREATE, EXCL, Message, REPLACE, Socket};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const BATCH_GENERATION: u16 = 1;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_USERDATA: u16 = 6;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_HANDLE: u16 = 2;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
pub(super) const HOOK_LINK: u16 = 3;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_POSITION: u16 = 6;
pub(super) const RULE_USERDATA: u16 = 7;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
pub(super) const LIST_TABLE: u16 = 1;
pub(super) const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;

/// Elements go into another message beyond this: a nest's length has 16 bits, and one element has far less than the
/// rest (a key and a datum of 64 bytes, a comment of 128, twice for the end of an interval).
const ELEMENTS_MAX: usize = 60_000;

/// What is to be done where the thing that is to be made is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It may be there; one that differs is still refused (`EEXIST`).
    Keep,
    /// The whole transaction is refused with `EEXIST` (`NLM_F_EXCL`).
    Refuse,
}

impl Existing {
    const fn flags(self) -> u16 {
        match self {
            Self::Keep => CREATE,
            Self::Refuse => CREATE | EXCL,
        }
    }
}

/// Where a rule goes in its chain.
#[derive(Clone, Copy, Debug)]
enum Place {
    Top,
    Bottom,
    Before(u64),
    After(u64),
    InsteadOf(u64),
}

/// Changes that take effect together, in order, or not at all.
#[derive(Debug)]
pub struct Transaction {
    pub(super) batch: Batch,
    sets: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    /// One that holds whatever else happened meanwhile.
    #[must_use]
    pub fn new() -> Self {
        Self::begin(None)
    }

    /// One that is refused with `ERESTART` unless the ruleset is still of this [`super::generation`].
    #[must_use]
    pub fn at_generation(generation: u32) -> Self {
        Self::begin(Some(generation))
    }

    fn begin(generation: Option<u32>) -> Self {
        let mut batch = Batch::new();
        {
            let mut message =
                batch.message("begin a change of nftables", BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
            if let Some(generation) = generation {
                message.be32(BATCH_GENERATION, generation);
            }
        }
        Self { batch, sets: 0 }
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.len() < 2
    }

    /// Does it. The first refusal is given; then nothing was done.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), KernelError> {
        if self.is_empty() {
            return Ok(());
        }
        drop(self.batch.message("end a change of nftables", BATCH_END, 0, &header(0, SUBSYSTEM)));
        match socket.execute_transaction(&mut self.batch)?.into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(match refusal::describe(self.batch.bytes(), failure.index) {
                Some(names) => {
                    let attempted = format!("{} {names}", failure.error.attempted);
                    failure.error.attempting(attempted)
                }
                None => failure.error,
            }),
        }
    }

    /// Makes a whole table what `table` says, whatever it was before; packets never see it half-made. Counters start
    /// again at zero, and its elements are only those given.
    pub fn declare(&mut self, table: &Table) -> &mut Self {
        self.destroy_table(&table.name);
        self.create(table, Existing::Keep)
    }

    /// Makes a whole table. With [`Existing::Refuse`] one of two that try this at once is refused.
    pub fn create(&mut self, table: &Table, existing: Existing) -> &mut Self {
        self.add_table(&table.name, table.comment.as_ref(), existing);
        for chain in &table.chains {
            self.add_chain(&table.name, chain);
        }
        for set in &table.sets {
            self.add_set(&table.name, set);
        }
        for set in &table.sets {
            self.add_elements(&table.name, set, &set.elements, Existing::Keep);
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                self.append_rule(&table.name, &chain.name, rule);
            }
        }
        self
    }

    /// Gives a table's chains the rules that they are to have, whatever rules they had, and adds what chains and sets it
    /// lacks. The elements of sets stay as they are, and so do other chains.
    pub fn repair(&mut self, table: &Table) -> &mut Self {
        self.add_table(&table.name, table.comment.as_ref(), Existing::Keep);
        for chain in &table.chains {
            self.add_chain(&table.name, chain).flush_chain(&table.name, &chain.name);
        }
        for set in &table.sets {
            self.add_set(&table.name, set);
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                self.append_rule(&table.name, &chain.name, rule);
            }
        }
        self
    }

    /// Makes an empty table.
    pub fn add_table(
        &mut self,
        table: &TableName,
        comment: Option<&Comment>,
        existing: Existing,
    ) -> &mut Self {
        let mut message = self.message("add table", NEWTABLE, existing.flags(), table);
        message.text(TABLE_NAME, &table.name);
        if let Some(comment) = comment {
            comment_attribute(&mut message, TABLE_USERDATA, comment);
        }
        drop(message);
        self
    }

    /// Deletes a table and all in it; refused with `ENOENT` where there is none.
    pub fn delete_table(&mut self, table: &TableName) -> &mut Self {
        self.message("delete table", DELTABLE, 0, table).text(TABLE_NAME, &table.name);
        self
    }

    /// Deletes a table and all in it, if there is one. (Made and deleted, because `NFT_MSG_DESTROYTABLE` came only with
    /// Linux 6.3.)
    pub fn destroy_table(&mut self, table: &TableName) -> &mut Self {
        self.add_table(table, None, Existing::Keep).delete_table(table)
    }

    /// Makes a chain, without its rules.
    pub fn add_chain(&mut self, table: &TableName, chain: &Chain) -> &mut Self {
        let mut message = self.message("add chain", NEWCHAIN, CREATE, table);
        message.text(CHAIN_TABLE, &table.name).text(CHAIN_NAME, &chain.name);
        if let Some(BaseChain { kind, hook, priority, policy }) = &chain.base {
            message
                .nest_unflagged(CHAIN_HOOK, |nest| {
                    nest.be32(HOOK_NUMBER, hook.number()).be32(HOOK_PRIORITY, priority.cast_unsigned());
                    if let Some(link) = &chain.link {
                        nest.text(HOOK_LINK, link.as_str());
                    }
                })
                .be32(CHAIN_POLICY, u32::from(*policy == Policy::Accept))
                .text(CHAIN_TYPE, kind.as_str());
        }
        drop(message);
        self
    }

    /// Deletes a chain that nothing jumps to, and its rules.
    pub fn delete_chain(&mut self, table: &TableName, chain: &str) -> &mut Self {
        self.message("delete chain", DELCHAIN, 0, table)
            .text(CHAIN_TABLE, &table.name)
            .text(CHAIN_NAME, chain);
        self
    }

    /// Deletes a chain's rules.
    pub fn flush_chain(&mut self, table: &TableName, chain: &str) -> &mut Self {
        self.message("flush chain", DELRULE, 0, table).text(RULE_TABLE, &table.name).text(RULE_CHAIN, chain);
        self
    }

    /// Makes a set or map, without its elements.
    pub fn add_set(&mut self, table: &TableName, set: &Set) -> &mut Self {
        self.sets += 1;
        let id = self.sets;
        set.write(&table.name, id, &mut self.message("add set", NEWSET, CREATE, table));
        self
    }

    /// Deletes a set or map that no rule uses.
    pub fn delete_set(&mut self, table: &TableName, set: &str) -> &mut Self {
        self.message("delete set", DELSET, 0, table).text(SET_TABLE, &table.name).text(SET_NAME, set);
        self
    }

    /// Deletes the elements of a set or map.
    pub fn flush_set(&mut self, table: &TableName, set: &str) -> &mut Self {
        self.message("flush set", DELSETELEM, 0, table).text(LIST_TABLE, &table.name).text(LIST_SET, set);
        self
    }

    /// Adds elements to a set or map whose declaration is `set` (its own `elements` do not matter here). An element
    /// whose key maps to other data is refused with `EEXIST`; delete it first, in the same transaction.
    pub fn add_elements(
        &mut self,
        table: &TableName,
        set: &Set,
        elements: &[Element],
        existing: Existing,
    ) -> &mut Self {
        self.elements(("add elements to set", NEWSETELEM, existing.flags()), table, set, elements)
    }

    /// Deletes elements by their keys; refused with `ENOENT` where there is none.
    pub fn delete_elements(&mut self, table: &TableName, set: &Set, elements: &[Element]) -> &mut Self {
        self.elements(("delete elements of set", DELSETELEM, 0), table, set, elements)
    }

    /// Deletes elements as they are given, key and data; those that are not there are well. Where a key maps to other
    /// data, which is somebody else's, the transaction is refused with `EEXIST`.
    pub fn delete_exactly(&mut self, table: &TableName, set: &Set, elements: &[Element]) -> &mut Self {
        // The kernel deletes by key alone, but to add what is there already it compares the data.
        self.add_elements(table, set, elements, Existing::Keep).delete_elements(table, set, elements)
    }

    fn elements(
        &mut self,
        (attempted, kind, flags): (&'static str, u16, u16),
        table: &TableName,
        set: &Set,
        elements: &[Element],
    ) -> &mut Self {
        let mut rest = elements.iter().peekable();
        while rest.peek().is_some() {
            let mut message = self.message(attempted, kind, flags, table);
            message.text(LIST_TABLE, &table.name).text(LIST_SET, &set.name);
            message.nest_unflagged(LIST_ELEMENTS, |list| {
                while list.written() < ELEMENTS_MAX
                    && let Some(element) = rest.next()
                {
                    element.write(set, kind == DELSETELEM, list);
                }
            });
        }
        self
    }

    /// Adds a rule behind all others of a chain.
    pub fn append_rule(&mut self, table: &TableName, chain: &str, rule: &Rule) -> &mut Self {
        self.rule(table, chain, rule, Place::Bottom)
    }

    /// Adds a rule before all others of a chain.
    pub fn insert_rule(&mut self, table: &TableName, chain: &str, rule: &Rule) -> &mut Self {
        self.rule(table, chain, rule, Place::Top)
    }

    /// Adds a rule just before the one with this handle.
    pub fn insert_rule_before(
        &mut self,
        table: &TableName,
        chain: &str,
        handle: u64,
        rule: &Rule,
    ) -> &mut Self {
        self.rule(table, chain, rule, Place::Before(handle))
    }

    /// Adds a rule just behind the one with this handle.
    pub fn append_rule_after(
        &mut self,
        table: &TableName,
        chain: &str,
        handle: u64,
        rule: &Rule,
    ) -> &mut Self {
        self.rule(table, chain, rule, Place::After(handle))
    }

    /// Puts a rule in the place of the one with this handle.
    pub fn replace_rule(&mut self, table: &TableName, chain: &str, handle: u64, rule: &Rule) -> &mut Self {
        self.rule(table, chain, rule, Place::InsteadOf(handle))
    }

    /// Deletes the rule with this handle.
    pub fn delete_rule(&mut self, table: &TableName, chain: &str, handle: u64) -> &mut Self {
        self.message("delete a rule of chain", DELRULE, 0, table)
            .text(RULE_TABLE, &table.name)
            .text(RULE_CHAIN, chain)
            .be64(RULE_HANDLE, handle);
        self
    }

    fn rule(&mut self, table: &TableName, chain: &str, rule: &Rule, place: Place) -> &mut Self {
        let flags = match place {
            Place::Top | Place::Before(_) => CREATE,
            Place::Bottom | Place::After(_) => CREATE | APPEND,
            Place::InsteadOf(_) => REPLACE,
        };
        let mut message = self.message("add a rule to chain", NEWRULE, flags, table);
        message.text(RULE_TABLE, &table.name).text(RULE_CHAIN, chain);
        match place {
            Place::Top | Place::Bottom => {}
            Place::Before(handle) | Place::After(handle) => {
                message.be64(RULE_POSITION, handle);
            }
            Place::InsteadOf(handle) => {
                message.be64(RULE_HANDLE, handle);
            }
        }
        message.nest_unflagged(RULE_EXPRESSIONS, |list| write_rule(rule, table.family, list));
        if let Some(comment) = &rule.comment {
            comment_attribute(&mut message, RULE_USERDATA, comment);
        }
        drop(message);
        self
    }

    fn message(&mut self, attempted: &'static str, kind: u16, flags: u16, table: &TableName) -> Message<'_> {
        self.batch.message(attempted, message_type(kind), flags, &header(table.family.number(), 0))
    }
}

fn comment_attribute(message: &mut Message<'_>, kind: u16, comment: &Comment) {
    let mut data = Vec::with_capacity(comment.as_str().len() + 3);
    userdata::write_comment(&mut data, userdata::COMMENT, comment);
    message.attribute(kind, &data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Attributes;
    use crate::nftables::{DataType, Family, Value};

    #[test]
    fn twenty_thousand_elements_go_into_messages_whose_nests_fit_sixteen_bits() {
        let table = TableName::new(Family::Inet, "t");
        let set = Set::new("s", [DataType::IfIndex]);
        let elements: Vec<Element> = (0..20_000).map(|index| Element::of([Value::IfIndex(index)])).collect();
        let mut transaction = Transaction::new();
        transaction.add_elements(&table, &set, &elements, Existing::Keep);
        let mut rest = transaction.batch.bytes();
        let mut found = 0;
        while let Some(length) = rest.get(..4) {
            let length = u32::from_ne_bytes(length.try_into().unwrap()) as usize;
            assert!(length < 65_536);
            if let Some(list) = Attributes::new(&rest[20..length]).get(LIST_ELEMENTS) {
                found += list.nested().count();
            }
            rest = &rest[length..];
        }
        assert_eq!(found, 20_000);
    }
}
