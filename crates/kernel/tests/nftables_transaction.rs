//! nftables: transactions that race, are refused, or move single rules and elements.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use kernel::nftables::{self, Element, Existing, Family, Rule, Statement, TableName, Transaction};
use support::ruleset::{commit, declare, host_port, observe, small};
use support::{enter_fresh_netns, netfilter_socket};

#[test]
fn of_two_that_create_a_table_at_once_one_is_refused_and_nothing_is_there_twice() {
    enter_fresh_netns();
    let table = small();
    for _ in 0..20 {
        let here = kernel::netns::NetNs::current().unwrap();
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        here.enter().unwrap();
                        match commit(|transaction| {
                            transaction.create(&table, Existing::Refuse);
                        }) {
                            Ok(()) => true,
                            Err(error) if error.is_present() => {
                                assert!(error.to_string().contains("inet small"), "{error}");
                                false
                            }
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            creators.into_iter().map(|creator| creator.join().unwrap()).collect()
        });
        assert_eq!(outcomes.into_iter().filter(|won| *won).count(), 1);
        assert_eq!(observe(&table).differences(&table), []);
        commit(|transaction| {
            transaction.delete_table(&table.name);
        })
        .unwrap();
    }
}

#[test]
fn an_element_is_added_once_replaced_in_one_transaction_and_deleted_once() {
    enter_fresh_netns();
    let table = small();
    declare(&table);
    let (name, set) = (&table.name, &table.sets[0]);
    let web = host_port(6, 8080, "10.244.0.5", 80);
    let moved = host_port(6, 8080, "10.244.0.6", 80);
    let add = |element: &Element, existing| {
        let element = std::slice::from_ref(element).to_vec();
        commit(move |transaction| {
            transaction.add_elements(name, set, &element, existing);
        })
    };
    let held = || nftables::elements(&mut netfilter_socket(), name, set).unwrap();

    add(&web, Existing::Refuse).unwrap();
    add(&web, Existing::Keep).unwrap();
    let error = add(&web, Existing::Refuse).unwrap_err();
    assert!(error.is_present(), "{error}");
    assert_eq!(error.to_string(), "failed to add elements to set inet small hostports: file exists");
    assert!(add(&moved, Existing::Keep).unwrap_err().is_present(), "another answer for the same key");
    assert_eq!(held(), std::slice::from_ref(&web));

    commit(|transaction| {
        transaction.delete_elements(name, set, std::slice::from_ref(&web)).add_elements(
            name,
            set,
            std::slice::from_ref(&moved),
            Existing::Refuse,
        );
    })
    .unwrap();
    assert_eq!(held(), [moved]);

    // Deleted by key, whatever it maps to.
    let delete = || {
        commit(|transaction| {
            transaction.delete_elements(name, set, std::slice::from_ref(&web));
        })
    };
    delete().unwrap();
    let error = delete().unwrap_err();
    assert!(error.is_absent(), "{error}");
    assert_eq!(held(), []);
}

#[test]
fn one_refusal_undoes_the_whole_transaction() {
    enter_fresh_netns();
    let table = small();
    declare(&table);
    let before = nftables::generation(&mut netfilter_socket()).unwrap();
    let error = commit(|transaction| {
        transaction
            .add_elements(&table.name, &table.sets[0], &[host_port(6, 1, "10.0.0.1", 1)], Existing::Keep)
            .flush_chain(&table.name, "absent");
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "failed to flush chain inet small absent: no such file or directory");
    assert_eq!(observe(&table).differences(&table), []);
    assert_eq!(nftables::generation(&mut netfilter_socket()).unwrap(), before);
}

#[test]
fn a_transaction_for_an_older_generation_is_refused() {
    enter_fresh_netns();
    let table = small();
    let before = nftables::generation(&mut netfilter_socket()).unwrap();
    declare(&table);
    let at = |generation| {
        let mut transaction = Transaction::at_generation(generation);
        transaction.delete_table(&table.name);
        transaction.commit(&mut netfilter_socket())
    };
    assert_eq!(at(before).unwrap_err().errno, rustix::io::Errno::from_raw_os_error(85), "ERESTART");
    at(nftables::generation(&mut netfilter_socket()).unwrap()).unwrap();
    assert_eq!(nftables::observe(&mut netfilter_socket(), &table.name).unwrap(), None);
}

#[test]
fn without_a_table_deleting_is_refused_and_destroying_is_not() {
    enter_fresh_netns();
    let name = TableName::new(Family::Ip6, "absent");
    let error = commit(|transaction| {
        transaction.delete_table(&name);
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "failed to delete table ip6 absent: no such file or directory");
    commit(|transaction| {
        transaction.destroy_table(&name);
    })
    .unwrap();
    commit(|_| {}).unwrap();
    assert_eq!(nftables::tables(&mut netfilter_socket(), None).unwrap(), []);
}

#[test]
fn rules_are_inserted_appended_replaced_and_deleted_by_handle() {
    enter_fresh_netns();
    let table = small();
    declare(&table);
    let named = |name: &str| Rule::new([Statement::Counter]).comment(name);
    let rules = || nftables::rules(&mut netfilter_socket(), &table.name, Some("pre")).unwrap();
    let order = || {
        rules()
            .into_iter()
            .map(|rule| rule.comment.unwrap_or_default().as_str().to_owned())
            .collect::<Vec<_>>()
    };
    let middle = rules()[0].handle;
    commit(|transaction| {
        transaction
            .insert_rule(&table.name, "pre", &named("first"))
            .append_rule(&table.name, "pre", &named("last"))
            .insert_rule_before(&table.name, "pre", middle, &named("before"))
            .append_rule_after(&table.name, "pre", middle, &named("after"));
    })
    .unwrap();
    assert_eq!(order(), ["first", "before", "host ports", "after", "last"]);
    let handle =
        |name: &str| rules().into_iter().find(|rule| rule.comment == Some(name.into())).unwrap().handle;
    let (before, after) = (handle("before"), handle("after"));
    commit(|transaction| {
        transaction.replace_rule(&table.name, "pre", before, &named("instead")).delete_rule(
            &table.name,
            "pre",
            after,
        );
    })
    .unwrap();
    assert_eq!(order(), ["first", "instead", "host ports", "last"]);
    assert_eq!(rules()[0].expression_names(), ["counter"]);
    commit(|transaction| {
        transaction.flush_chain(&table.name, "pre");
    })
    .unwrap();
    assert_eq!(order(), Vec::<String>::new());
}

#[test]
fn an_element_is_deleted_exactly_or_was_gone_or_is_somebody_elses() {
    enter_fresh_netns();
    let table = small();
    declare(&table);
    let (name, set) = (&table.name, &table.sets[0]);
    let web = host_port(6, 8080, "10.244.0.5", 80);
    let others = host_port(6, 8080, "10.244.0.6", 80);
    let delete = |element: &Element| {
        let element = [element.clone()];
        commit(move |transaction| {
            transaction.delete_exactly(name, set, &element);
        })
    };
    let held = || nftables::elements(&mut netfilter_socket(), name, set).unwrap();
    let before = held();
    delete(&web).unwrap();
    assert_eq!(held(), before, "what is not there is well");
    commit(|transaction| {
        transaction.add_elements(name, set, std::slice::from_ref(&others), Existing::Keep);
    })
    .unwrap();
    assert!(delete(&web).unwrap_err().is_present());
    assert!(held().contains(&others));
    delete(&others).unwrap();
    assert_eq!(held(), before);
}

#[test]
fn how_many_rules_and_jumps_a_chain_has_tells_that_it_was_flushed_and_a_repair_puts_it_right() {
    enter_fresh_netns();
    let table = small();
    declare(&table);
    let chains: Vec<&str> = table.chains.iter().map(|chain| chain.name.as_str()).collect();
    let uses = || nftables::chain_uses(&mut netfilter_socket(), &table.name, &chains).unwrap();
    let repair = || {
        commit(|transaction| {
            transaction.repair(&table);
        })
        .unwrap();
    };
    let whole = uses();
    assert!(whole.iter().all(Option::is_some));
    for chain in &table.chains {
        commit(|transaction| {
            transaction.flush_chain(&table.name, &chain.name);
        })
        .unwrap();
        assert_ne!(uses(), whole, "{}", chain.name);
        repair();
        assert_eq!(uses(), whole);
        assert_eq!(observe(&table).differences(&table), []);
    }
    // Two repairs at once do no more than one.
    repair();
    assert_eq!(observe(&table).differences(&table), []);
    commit(|transaction| {
        transaction.delete_table(&table.name);
    })
    .unwrap();
    assert!(uses().iter().all(Option::is_none));
}
