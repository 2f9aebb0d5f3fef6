//! Rules in chains that iptables owns: iptables itself shows them, saves them and brings them back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use kernel::nftables::xtables::{Accept, comment_of, filter_table};
use kernel::nftables::{self, ObservedRule, TableName, Transaction};
use kernel::route::Family::{self, V4, V6};
use link_name::LinkName;
use support::{enter_fresh_netns, netfilter_socket, run, run_with_input};

fn programs(version: Family) -> (&'static str, &'static str, &'static str) {
    match version {
        V4 => ("iptables-nft", "iptables-nft-save", "iptables-nft-restore"),
        V6 => ("ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore"),
    }
}

fn rules(table: &TableName) -> Vec<ObservedRule> {
    nftables::rules(&mut netfilter_socket(), table, Some("FORWARD")).unwrap()
}

fn expressions(table: &TableName) -> Vec<Vec<u8>> {
    rules(table).into_iter().map(|rule| rule.expressions).collect()
}

/// Each rule, and how iptables spells it.
fn cases(version: Family) -> Vec<(Accept, String)> {
    let (of_text, odd, host) = match version {
        V4 => ("10.244.1.0/24", "10.244.0.0/15", "192.0.2.1/32"),
        V6 => ("fd00:1::/64", "fd00::/61", "fd00::1/128"),
    };
    let link = |name: &str| Some(LinkName::new(name).unwrap());
    let any = Accept {
        from_links: None,
        to_links: None,
        source: None,
        destination: None,
        comment: "hostgw".into(),
    };
    let matched = "-m comment --comment hostgw -j ACCEPT";
    let net = |text: &str| Some(text.parse().unwrap());
    let (of, odd_net, one) = (
        net(match version {
            V4 => "10.244.1.0/24",
            V6 => "fd00:1::/64",
        }),
        net(odd),
        net(host),
    );
    let everything = net(match version {
        V4 => "0.0.0.0/0",
        V6 => "::/0",
    });
    vec![
        (Accept { source: of, ..any.clone() }, format!("-s {of_text} {matched}")),
        (Accept { destination: odd_net, ..any.clone() }, format!("-d {odd} {matched}")),
        (Accept { source: one, destination: of, ..any.clone() }, format!("-s {host} -d {of_text} {matched}")),
        (Accept { from_links: link("hgw"), ..any.clone() }, format!("-i hgw+ {matched}")),
        (
            Accept { from_links: link("hgw"), to_links: link("eth"), source: of, ..any.clone() },
            format!("-s {of_text} -i hgw+ -o eth+ {matched}"),
        ),
        (
            Accept { source: everything, comment: "two words".into(), ..any },
            "-m comment --comment \"two words\" -j ACCEPT".to_owned(),
        ),
    ]
}

fn saved(version: Family) -> Vec<String> {
    let text = run(programs(version).1, &["-t", "filter"]);
    text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
}

fn ours_are_theirs(version: Family) {
    enter_fresh_netns();
    let (iptables, _, restore) = programs(version);
    let table = filter_table(version);
    // What iptables itself writes.
    for (_, spelling) in cases(version) {
        let arguments = spelling.replace("\"two words\"", "two_words");
        let arguments: Vec<String> =
            arguments.split(' ').map(|word| word.replace("two_words", "two words")).collect();
        let mut all = vec!["-A", "FORWARD"];
        all.extend(arguments.iter().map(String::as_str));
        run(iptables, &all);
    }
    let theirs = expressions(&table);
    let their_text = saved(version);
    run(iptables, &["-F", "FORWARD"]);

    // What we write.
    let mut transaction = Transaction::new();
    for (accept, _) in cases(version) {
        transaction.append_rule(&table, "FORWARD", &accept.rule());
    }
    transaction.commit(&mut netfilter_socket()).unwrap();
    assert_eq!(expressions(&table), theirs, "byte for byte");
    assert_eq!(saved(version), their_text);
    let spelt: Vec<String> =
        cases(version).into_iter().map(|(_, spelling)| format!("-A FORWARD {spelling}")).collect();
    assert_eq!(their_text, spelt);
    assert_eq!(comment_of(&rules(&table)[0]).as_deref(), Some("hostgw"));

    // What a save and restore makes of it.
    let dump = run(programs(version).1, &[]);
    run(iptables, &["-F"]);
    run_with_input(restore, &[], &dump);
    assert_eq!(expressions(&table), theirs);
    assert_eq!(saved(version), spelt);
    for (rule, (accept, _)) in rules(&table).iter().zip(cases(version)) {
        assert!(rule.is(&accept.rule(), table.family), "{accept:?}");
    }
}

#[test]
fn our_ipv4_rules_are_byte_for_byte_those_of_iptables_and_survive_save_and_restore() {
    ours_are_theirs(V4);
}

#[test]
fn our_ipv6_rules_are_byte_for_byte_those_of_iptables_and_survive_save_and_restore() {
    ours_are_theirs(V6);
}

#[test]
fn a_rule_at_the_top_of_forward_stands_before_theirs_and_goes_by_its_handle() {
    enter_fresh_netns();
    run("iptables-nft", &["-A", "FORWARD", "-j", "DROP"]);
    let table = filter_table(V4);
    let (accept, spelling) = cases(V4).remove(0);
    let mut transaction = Transaction::new();
    transaction.insert_rule(&table, "FORWARD", &accept.rule());
    transaction.commit(&mut netfilter_socket()).unwrap();
    assert_eq!(saved(V4), [format!("-A FORWARD {spelling}"), "-A FORWARD -j DROP".to_owned()]);
    let ours = rules(&table).into_iter().find(|rule| comment_of(rule).as_deref() == Some("hostgw")).unwrap();
    let mut transaction = Transaction::new();
    transaction.delete_rule(&table, "FORWARD", ours.handle);
    transaction.commit(&mut netfilter_socket()).unwrap();
    assert_eq!(saved(V4), ["-A FORWARD -j DROP"]);
}
