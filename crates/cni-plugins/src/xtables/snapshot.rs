//! What is in some chains, and their removal.

use std::process::{Command, Stdio};

use kernel::nftables::xtables::{Words, comment_of, quoted, table};
use kernel::nftables::{
    BaseChain, Chain, ChainKind, Existing, Hook, ObservedRule, Policy, TableName, Transaction, chain_uses,
    generation, priority, rules,
};

use super::{Flavour, Script, Xtables, XtablesError, restore};
use crate::netfilter;

/// Some chains of one table at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The ruleset's number before it was read, where nftables holds it.
    generation: Option<u32>,
    chains: Vec<String>,
    rules: Vec<FoundRule>,
}

/// A rule in one of the chains.
#[derive(Clone, Debug)]
pub(crate) struct FoundRule {
    pub(crate) chain: String,
    /// `-j` to another chain.
    pub(crate) jumps_to: Option<String>,
    /// `--comment`.
    pub(crate) comment: Option<String>,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Nft(Box<ObservedRule>),
    /// In the words of `iptables-save`, without `-A` and the chain.
    Legacy(String),
}

impl Snapshot {
    /// Reads these chains of a table; those that are not there are left out.
    pub(crate) fn take(xtables: &Xtables, name: &'static str, chains: &[&str]) -> Result<Self, XtablesError> {
        match xtables.flavour {
            Flavour::Nft => Self::of_nft(&table(xtables.version, name), chains),
            Flavour::Legacy => Ok(Self::of_save(&save(xtables, name)?, chains)),
        }
    }

    fn of_nft(table: &TableName, chains: &[&str]) -> Result<Self, XtablesError> {
        let mut socket = netfilter::socket()?;
        let mut snapshot = Self { generation: Some(generation(&mut socket)?), ..Self::default() };
        let uses = chain_uses(&mut socket, table, chains)?;
        for (chain, uses) in chains.iter().zip(uses) {
            let Some(uses) = uses else { continue };
            snapshot.chains.push((*chain).to_owned());
            if uses == 0 {
                continue;
            }
            let rules = match rules(&mut socket, table, Some(chain)) {
                Err(error) if error.is_absent() => continue,
                other => other?,
            };
            snapshot.rules.extend(rules.into_iter().map(FoundRule::of_nft));
        }
        Ok(snapshot)
    }

    fn of_save(saved: &str, chains: &[&str]) -> Self {
        let mut snapshot = Self::default();
        for line in saved.lines() {
            if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split(' ').next().unwrap_or_default();
                if chains.contains(&name) {
                    snapshot.chains.push(name.to_owned());
                }
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' '))
                && chains.contains(&chain)
            {
                snapshot.rules.push(FoundRule::of_save(chain, rule));
            }
        }
        snapshot
    }

    /// Whether the chain is there.
    pub(crate) fn has(&self, chain: &str) -> bool {
        self.chains.iter().any(|held| held == chain)
    }

    /// The rules of one of the chains, in order.
    pub(crate) fn rules_of<'s>(&'s self, chain: &'s str) -> impl Iterator<Item = &'s FoundRule> {
        self.rules.iter().filter(move |rule| rule.chain == chain)
    }

    /// The rules of one chain that jump to another.
    pub(crate) fn jumps<'s>(&'s self, chain: &'s str, to: &'s str) -> impl Iterator<Item = &'s FoundRule> {
        self.rules_of(chain).filter(move |rule| rule.jumps_to.as_deref() == Some(to))
    }
}

impl FoundRule {
    fn of_nft(rule: ObservedRule) -> Self {
        Self {
            chain: rule.chain.clone(),
            jumps_to: rule.jumps_to(),
            comment: comment_of(&rule),
            form: Form::Nft(Box::new(rule)),
        }
    }

    fn of_save(chain: &str, rule: &str) -> Self {
        let target = rule.rsplit_once(" -j ").or_else(|| rule.strip_prefix("-j ").map(|to| ("", to)));
        let jumps_to = target.and_then(|(_, to)| to.split(' ').next()).map(str::to_owned);
        let comment = rule.split_once("--comment ").map(|(_, rest)| unquoted(rest));
        Self { chain: chain.to_owned(), jumps_to, comment, form: Form::Legacy(rule.to_owned()) }
    }

    /// Whether the rule sets or looks for this mark, which is its own mask.
    pub(crate) fn names_mark(&self, mark: u32) -> bool {
        match &self.form {
            Form::Nft(rule) => {
                // Twice as mark and mask, or once beside the mask that spares all else: words are aligned there.
                let words = |word: u32| {
                    rule.expressions.chunks_exact(4).filter(|bytes| **bytes == word.to_ne_bytes()).count()
                };
                words(mark) > 1 || words(mark) == 1 && words(!mark) > 0
            }
            Form::Legacy(text) => text.contains(&format!("{mark:#x}/{mark:#x}")),
        }
    }

    /// Whether it is this rule, and nothing more or less.
    pub(crate) fn is(&self, words: &Words) -> bool {
        match &self.form {
            Form::Nft(rule) => rule.is(&words.rule(), rule.table.family),
            Form::Legacy(text) => *text == words.text(),
        }
    }
}

/// The word at the beginning of what iptables-save wrote.
fn unquoted(rest: &str) -> String {
    let Some(inside) = rest.strip_prefix('"') else {
        return rest.split(' ').next().unwrap_or_default().to_owned();
    };
    let mut word = String::new();
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => word.extend(chars.next()),
            other => word.push(other),
        }
    }
    word
}

fn save(xtables: &Xtables, table: &str) -> Result<String, XtablesError> {
    let restore = xtables.program.as_deref().and_then(|program| program.to_str()).unwrap_or_default();
    let Some(family) = restore.strip_suffix("-restore") else {
        return Err(XtablesError::NoProgram("iptables-save".to_owned()));
    };
    let program = format!("{family}-save");
    let output = Command::new(&program)
        .args(["-t", table])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| XtablesError::NotRun { program: program.clone(), cause })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(XtablesError::Refused { program, said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removal from, and where no program is needed addition to, the chains of one table.
pub(crate) struct Change<'x> {
    xtables: &'x Xtables,
    table: &'static str,
    transaction: Transaction,
    script: Script,
    /// Chains are deleted once nothing jumps to them.
    doomed: Vec<String>,
    removes: bool,
}

impl<'x> Change<'x> {
    pub(crate) fn new(xtables: &'x Xtables, table: &'static str) -> Self {
        Self {
            xtables,
            table,
            transaction: Transaction::new(),
            script: Script::new(table),
            doomed: Vec::new(),
            removes: false,
        }
    }

    /// Refused where anybody changes the ruleset after `seen` was taken: what all share must not be made twice.
    pub(crate) fn only_if_unchanged_since(&mut self, seen: &Snapshot) -> &mut Self {
        if let Some(generation) = seen.generation {
            self.transaction = Transaction::at_generation(generation);
        }
        self
    }

    /// The table `filter` with its chain `FORWARD`, as iptables itself makes them where nobody has used it yet.
    pub(crate) fn filter_forward(&mut self) -> &mut Self {
        let name = self.name();
        // The legacy flavour has them from the beginning.
        if self.xtables.flavour == Flavour::Nft {
            let base = BaseChain {
                kind: ChainKind::Filter,
                hook: Hook::Forward,
                priority: priority::FILTER,
                policy: Policy::Accept,
            };
            self.transaction
                .add_table(&name, None, Existing::Keep)
                .add_chain(&name, &Chain::base("FORWARD", base, Vec::new()));
        }
        self
    }

    fn name(&self) -> TableName {
        table(self.xtables.version, self.table)
    }

    /// Removes a rule.
    pub(crate) fn remove(&mut self, rule: &FoundRule) -> &mut Self {
        self.removes = true;
        match &rule.form {
            Form::Nft(observed) => {
                self.transaction.delete_rule(&observed.table, &observed.chain, observed.handle);
            }
            Form::Legacy(text) => {
                self.script.line(format!("-D {} {text}", rule.chain));
            }
        }
        self
    }

    /// Empties and deletes a chain, after all else.
    pub(crate) fn delete_chain(&mut self, chain: &str) -> &mut Self {
        self.doomed.push(chain.to_owned());
        self
    }

    /// Makes a chain that is not there.
    pub(crate) fn new_chain(&mut self, chain: &str) -> &mut Self {
        let name = self.name();
        match self.xtables.flavour {
            Flavour::Nft => {
                self.transaction.add_chain(&name, &Chain::regular(chain, Vec::new()));
            }
            Flavour::Legacy => {
                self.script.new_chain(chain);
            }
        }
        self
    }

    /// Adds a rule at the end of a chain.
    pub(crate) fn append(&mut self, chain: &str, words: &Words) -> &mut Self {
        let name = self.name();
        match self.xtables.flavour {
            Flavour::Nft => {
                self.transaction.append_rule(&name, chain, &words.rule());
            }
            Flavour::Legacy => {
                self.script.append(chain, &words.text());
            }
        }
        self
    }

    /// Adds a rule in front of a chain.
    pub(crate) fn insert(&mut self, chain: &str, words: &Words) -> &mut Self {
        let name = self.name();
        match self.xtables.flavour {
            Flavour::Nft => {
                self.transaction.insert_rule(&name, chain, &words.rule());
            }
            Flavour::Legacy => {
                self.script.insert(chain, &words.text());
            }
        }
        self
    }

    /// Carries it out, all or nothing.
    pub(crate) fn commit(mut self) -> Result<(), XtablesError> {
        let name = self.name();
        for chain in &self.doomed {
            match self.xtables.flavour {
                Flavour::Nft => {
                    self.transaction.flush_chain(&name, chain).delete_chain(&name, chain);
                }
                Flavour::Legacy => {
                    self.script.line(format!("-F {chain}")).line(format!("-X {chain}"));
                }
            }
        }
        match self.xtables.flavour {
            Flavour::Nft if self.transaction.is_empty() => Ok(()),
            Flavour::Nft => {
                let mut socket = netfilter::socket()?;
                self.transaction.commit(&mut socket)?;
                if self.removes || !self.doomed.is_empty() {
                    netfilter::removed();
                }
                Ok(())
            }
            Flavour::Legacy => restore(&[(self.xtables, self.script)]),
        }
    }
}

/// A comment for `-m comment`, as a word of a script.
pub(crate) fn comment_words(comment: &str) -> String {
    format!("-m comment --comment {}", quoted(comment))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"# Generated by iptables-save
*nat
:POSTROUTING ACCEPT [0:0]
:CNI-abc - [0:0]
:OTHER - [0:0]
-A POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \"n\" id: \"c\"" -j CNI-abc
-A POSTROUTING -j OTHER
-A CNI-abc -d 10.0.0.0/24 -j ACCEPT
COMMIT
"#;

    #[test]
    fn what_iptables_save_writes_is_read() {
        let snapshot = Snapshot::of_save(SAVED, &["POSTROUTING", "CNI-abc", "MISSING"]);
        assert!(snapshot.has("CNI-abc") && !snapshot.has("MISSING") && !snapshot.has("OTHER"));
        let jumps: Vec<&FoundRule> = snapshot.jumps("POSTROUTING", "CNI-abc").collect();
        assert_eq!(jumps.len(), 1);
        assert_eq!(jumps[0].comment.as_deref(), Some(r#"name: "n" id: "c""#));
        assert_eq!(snapshot.rules_of("POSTROUTING").count(), 2);
        let words = Words {
            destination: Some("10.0.0.0/24".parse().unwrap()),
            ..Words::new(kernel::nftables::Verdict::Accept)
        };
        assert!(snapshot.rules_of("CNI-abc").all(|rule| rule.is(&words)));
    }
}
