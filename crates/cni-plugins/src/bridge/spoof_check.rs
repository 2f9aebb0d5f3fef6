//! `macspoofchk`: what a pod sends with another Ethernet address than its own is dropped. Table, chains and comments are
//! those of the reference, so that either removes what the other made.

use attachment::Attachment;
use kernel::KernelError;
use kernel::link::{self, Mac};
use kernel::netlink::{Protocol, Socket};

use crate::netfilter;
use kernel::nftables::{
    BaseChain, Chain, ChainKind, Existing, Family, Hook, ObservedRule, Policy, Rule, Selector, Statement,
    TableName, Transaction, Value, Verdict, chains, rules,
};
use link_name::LinkName;

const BASE_CHAIN: &str = "PREROUTING";
/// Before all else, as the reference has it.
const PRIORITY: i32 = -300;
const CHAIN: &str = "cni-br-iface-";
const COMMENT: &str = "macspoofchk-";

fn table() -> TableName {
    TableName::new(Family::Bridge, "nat")
}

/// The reference's name for an attachment.
fn id(attachment: &Attachment) -> String {
    format!("{}-{}", attachment.container_id(), attachment.ifname())
}

/// Installs the check of one attachment, in place of one that it has.
pub(super) fn install(attachment: &Attachment, link: &LinkName, mac: Mac) -> Result<(), KernelError> {
    remove(attachment)?;
    let (table, id) = (table(), id(attachment));
    let (iface_chain, mac_chain) = (format!("{CHAIN}{id}"), format!("{CHAIN}{id}-mac"));
    let comment = format!("{COMMENT}{id}");
    let base = BaseChain {
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: PRIORITY,
        policy: Policy::Accept,
    };
    let rule = |statements: Vec<Statement>| Rule::new(statements).comment(comment.as_str());
    let mut transaction = Transaction::new();
    transaction.add_table(&table, None, Existing::Keep);
    transaction.add_chain(&table, &Chain::base(BASE_CHAIN, base, Vec::new()));
    for chain in [&iface_chain, &mac_chain] {
        transaction.add_chain(&table, &Chain::regular(chain.as_str(), Vec::new()));
    }
    transaction.append_rule(
        &table,
        BASE_CHAIN,
        &rule(vec![
            Statement::is(Selector::IifName, Value::IfName(link.clone())),
            Statement::jump(iface_chain.as_str()),
        ]),
    );
    transaction.append_rule(&table, &iface_chain, &rule(vec![Statement::jump(mac_chain.as_str())]));
    transaction.append_rule(
        &table,
        &mac_chain,
        &rule(vec![
            Statement::is(Selector::EtherSaddr, Value::Bytes(mac.to_vec())),
            Statement::Verdict(Verdict::Return),
        ]),
    );
    transaction.append_rule(&table, &mac_chain, &rule(vec![Statement::Verdict(Verdict::Drop)]));
    transaction.commit(&mut *netfilter::socket()?)
}

/// Removes the check of one attachment, whoever installed it; one that is gone is well.
pub(crate) fn remove(attachment: &Attachment) -> Result<(), KernelError> {
    remove_id(&mut *netfilter::socket()?, &id(attachment))
}

/// Whether what the pod sends over this link is checked.
pub(super) fn is_installed(attachment: &Attachment, link: &str) -> Result<bool, KernelError> {
    let mut socket = netfilter::socket()?;
    let id = id(attachment);
    let own = chains_of(&mut socket, &id)?;
    let jumps = jumps(&mut socket)?;
    Ok(own.len() == 2 && jumps.iter().any(|jump| is_of(jump, &id) && is_for(jump, link)))
}

/// Removes the checks of attachments that are not valid and whose link is gone: the names in the table do not tell the
/// network, and another's attachments are none of this one's.
pub(crate) fn collect(valid: &[Attachment]) -> Result<(), KernelError> {
    let mut socket = netfilter::socket()?;
    let jumps = jumps(&mut socket)?;
    if jumps.is_empty() {
        return Ok(());
    }
    let links = link::dump_kind(&mut Socket::open(Protocol::Route)?, "veth")?;
    let valid: Vec<String> = valid.iter().map(id).collect();
    for jump in jumps {
        let Some(id) = jump.comment.as_ref().and_then(|comment| comment.as_str().strip_prefix(COMMENT))
        else {
            continue;
        };
        let is_valid = valid.iter().any(|valid| valid == id);
        if !is_valid && !links.iter().any(|link| is_for(&jump, &link.name)) {
            remove_id(&mut socket, id)?;
        }
    }
    Ok(())
}

fn remove_id(socket: &mut Socket, id: &str) -> Result<(), KernelError> {
    let mut transaction = Transaction::new();
    for jump in jumps(socket)?.iter().filter(|jump| is_of(jump, id)) {
        transaction.delete_rule(&table(), BASE_CHAIN, jump.handle);
    }
    // The one that jumps to the other first.
    for chain in chains_of(socket, id)? {
        transaction.flush_chain(&table(), &chain).delete_chain(&table(), &chain);
    }
    if transaction.is_empty() {
        return Ok(());
    }
    match transaction.commit(socket) {
        // Somebody else was removing it, too.
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// The rules that lead to the checks; none where there is no such table.
fn jumps(socket: &mut Socket) -> Result<Vec<ObservedRule>, KernelError> {
    match rules(socket, &table(), Some(BASE_CHAIN)) {
        Err(error) if error.is_absent() => Ok(Vec::new()),
        other => other,
    }
}

/// Those of the attachment's two chains that are there.
fn chains_of(socket: &mut Socket, id: &str) -> Result<Vec<String>, KernelError> {
    let known = chains(socket, Some(Family::Bridge))?;
    let names = [format!("{CHAIN}{id}"), format!("{CHAIN}{id}-mac")];
    let is_there = |name: &String| known.iter().any(|chain| chain.table == table() && chain.name == *name);
    Ok(names.into_iter().filter(is_there).collect())
}

fn is_of(jump: &ObservedRule, id: &str) -> bool {
    jump.comment.as_ref().and_then(|comment| comment.as_str().strip_prefix(COMMENT)) == Some(id)
}

/// Whether the rule is for frames from this link, whose name it compares as the kernel keeps it: 16 bytes.
fn is_for(jump: &ObservedRule, link: &str) -> bool {
    let mut name = [0; 16];
    let Some(place) = name.get_mut(..link.len()) else { return false };
    place.copy_from_slice(link.as_bytes());
    jump.expressions.windows(name.len()).any(|bytes| bytes == name)
}
