//! Any sequence of reservations, releases and reclaims agrees with a model that is obviously right, and threads do not
//! disturb each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;

use attachment::ReserveError;
use proptest::prelude::*;

use crate::fixture::{Ask, NOW, Node, addresses, attachment, host_port, large_sets, port_8080, small_sets};

#[derive(Clone, Debug)]
enum Step {
    Attach {
        pod: u8,
        port: Option<u8>,
        requested: Option<u8>,
    },
    /// Reserve and die.
    Abandon {
        pod: u8,
    },
    Release {
        pod: u8,
    },
    /// All pods from this one on are gone.
    Reclaim {
        from: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let pod = 0..8u8;
    prop_oneof![
        4 => (pod.clone(), prop::option::of(0..3u8), prop::option::weighted(0.2, 0..7u8))
            .prop_map(|(pod, port, requested)| Step::Attach { pod, port, requested }),
        1 => pod.clone().prop_map(|pod| Step::Abandon { pod }),
        3 => pod.clone().prop_map(|pod| Step::Release { pod }),
        1 => pod.prop_map(|from| Step::Reclaim { from }),
    ]
}

#[derive(Default)]
struct Model {
    /// Addresses and port of each pod.
    pods: BTreeMap<u8, (Vec<IpAddr>, Option<u8>)>,
}

impl Model {
    fn taken(&self) -> BTreeSet<IpAddr> {
        self.pods.values().flat_map(|(addresses, _)| addresses.iter().copied()).collect()
    }

    /// Why an ADD must fail, if it must.
    fn refuses(&self, pod: u8, port: Option<u8>, requested: Option<IpAddr>) -> bool {
        let taken = self.taken();
        let unusable = |address: IpAddr| {
            let IpAddr::V4(v4) = address else { return true };
            !(2..=5).contains(&v4.octets()[3]) || taken.contains(&address)
        };
        self.pods.contains_key(&pod)
            || self.pods.len() == 4
            || requested.is_some_and(unusable)
            || port.is_some_and(|port| self.pods.values().any(|(_, held)| *held == Some(port)))
    }
}

fn follow(steps: Vec<Step>) {
    let node = Node::new();
    let store = node.store();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Attach { pod, port, requested } => {
                let requested = requested.map(|n| IpAddr::from([10, 0, 0, n]));
                let ports =
                    port.map(|n| format!(r#"{{"protocol":"udp","hostPort":5{n},"containerPort":53}}"#));
                let ask = Ask {
                    requested: requested.into_iter().collect(),
                    host_ports: ports.iter().map(|text| host_port(text)).collect(),
                    ..Ask::of(small_sets())
                };
                let got = ask.attach(&store, &pod.to_string());
                assert_eq!(got.is_err(), model.refuses(pod, port, requested), "{got:?}");
                if let Ok(got) = got {
                    assert!(got.iter().all(|address| !model.taken().contains(address)), "{got:?} again");
                    assert!(requested.is_none_or(|address| got.contains(&address)));
                    model.pods.insert(pod, (got, port));
                }
            }
            Step::Abandon { pod } => {
                if let Ok(reservation) = Ask::of(small_sets()).reserve(&store, &pod.to_string()) {
                    model.pods.insert(pod, (addresses(reservation.record()), None));
                }
            }
            Step::Release { pod } => {
                store.release(&attachment(&pod.to_string())).unwrap();
                model.pods.remove(&pod);
            }
            Step::Reclaim { from } => {
                let gone = |pod: u8| pod >= from;
                store.reclaim(NOW + 1, 0, |a, _| gone(a.container_id().parse().unwrap())).unwrap();
                model.pods.retain(|pod, _| !gone(*pod));
            }
        }
        node.assert_consistent();
        let on_disk: BTreeSet<IpAddr> =
            node.names("claims").iter().filter_map(|name| name.parse::<IpAddr>().ok()).collect();
        assert_eq!(on_disk, model.taken());
    }
    let audit = store.reclaim(NOW, 0, |_, _| false).unwrap();
    assert_eq!(audit.done, []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn every_sequence_of_calls_agrees_with_the_model(steps in prop::collection::vec(step(), 1..40)) {
        follow(steps);
    }
}

#[test]
fn two_hundred_threads_at_once_get_two_hundred_addresses() {
    let node = Node::new();
    let got = Mutex::new(BTreeSet::new());
    std::thread::scope(|threads| {
        for pod in 0..200 {
            let (node, got) = (&node, &got);
            threads.spawn(move || {
                let addresses = Ask::of(large_sets()).attach(&node.store(), &format!("p{pod}")).unwrap();
                got.lock().unwrap().extend(addresses);
            });
        }
    });
    assert_eq!(got.into_inner().unwrap().len(), 200);
    node.assert_consistent();
}

#[test]
fn of_many_threads_that_want_one_host_port_one_gets_it() {
    let node = Node::new();
    let store = node.store();
    let wins = Mutex::new(0);
    std::thread::scope(|threads| {
        for pod in 0..20 {
            let (store, wins) = (&store, &wins);
            threads.spawn(move || {
                let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(large_sets()) };
                match ask.attach(store, &format!("p{pod}")) {
                    Ok(_) => *wins.lock().unwrap() += 1,
                    Err(ReserveError::HostPortTaken { owner: Some(_), .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    assert_eq!(wins.into_inner().unwrap(), 1);
    node.assert_consistent();
}
