use super::*;
use proptest::prelude::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const PATIENCE: Duration = Duration::from_secs(20);

fn identity() -> Identity {
    Identity {
        mac: [2, 0, 0, 0, 0, 9],
        client_id: b"\0pod".to_vec(),
        provided: vec![(code::HOST_NAME, b"web-0".to_vec())],
        requested: vec![1, 3, 121],
        subnet: Some("192.0.2.0/24".parse().unwrap()),
    }
}

fn begin(goal: Goal) -> Exchange {
    Exchange::new(identity(), goal, Duration::ZERO, PATIENCE, 5)
}

fn sent(next: Next) -> Message {
    match next {
        Next::Send(payload) => Message::decode(&payload).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn reply(to: &Message, kind: Kind, server: Ipv4Addr, address: Ipv4Addr) -> Message {
    let mut options = Options::default();
    options.set(code::SERVER, server.octets());
    options.set(code::SUBNET_MASK, [255, 255, 255, 0]);
    options.set(code::LEASE_TIME, 600_u32.to_be_bytes());
    Message { is_reply: true, kind, your_address: address, options, ..to.clone() }
}

fn take(exchange: &mut Exchange, message: &Message, at: u64) -> Option<Outcome> {
    exchange.receive(&message.encode(), Duration::from_secs(at))
}

fn bound(outcome: Option<Outcome>) -> Terms {
    match outcome {
        Some(Outcome::Bound(terms)) => terms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_is_discovered_offered_requested_and_confirmed() {
    let mut exchange = begin(Goal::Acquire { wished: None });
    let discover = sent(exchange.next(Duration::ZERO));
    assert_eq!((discover.kind, discover.broadcast), (Kind::Discover, true));
    assert_eq!(discover.options.get(code::CLIENT_ID), Some(&b"\0pod"[..]));
    assert_eq!(discover.options.get(code::HOST_NAME), Some(&b"web-0"[..]));
    assert!(exchange.chosen().is_none());
    assert_eq!(take(&mut exchange, &reply(&discover, Kind::Offer, SERVER, ADDRESS), 0), None);
    let request = sent(exchange.next(Duration::ZERO));
    assert_eq!(request.kind, Kind::Request);
    assert_eq!(request.address(code::SERVER), Some(SERVER));
    assert_eq!(request.address(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(exchange.chosen().unwrap().address.addr(), ADDRESS);
    let terms = bound(take(&mut exchange, &reply(&request, Kind::Ack, SERVER, ADDRESS), 0));
    assert_eq!((terms.address.to_string().as_str(), terms.server), ("192.0.2.50/24", SERVER));
}

#[test]
fn of_two_servers_the_first_is_asked_and_the_other_is_not_heard() {
    let mut exchange = begin(Goal::Acquire { wished: None });
    let discover = sent(exchange.next(Duration::ZERO));
    take(&mut exchange, &reply(&discover, Kind::Offer, SERVER, ADDRESS), 0);
    let second = Ipv4Addr::new(192, 0, 2, 99);
    take(&mut exchange, &reply(&discover, Kind::Offer, OTHER, second), 0);
    let request = sent(exchange.next(Duration::ZERO));
    assert_eq!(request.address(code::SERVER), Some(SERVER));
    assert_eq!(take(&mut exchange, &reply(&request, Kind::Nak, OTHER, ADDRESS), 0), None);
    assert_eq!(take(&mut exchange, &reply(&request, Kind::Ack, OTHER, second), 0), None);
    assert!(exchange.chosen().is_some());
    bound(take(&mut exchange, &reply(&request, Kind::Ack, SERVER, ADDRESS), 0));
}

#[test]
fn an_earlier_address_is_asked_for_first_and_another_after_a_refusal() {
    let mut exchange = begin(Goal::Reboot { address: ADDRESS });
    let request = sent(exchange.next(Duration::ZERO));
    assert_eq!(request.kind, Kind::Request);
    assert_eq!(request.address(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.address(code::SERVER), None);
    assert_eq!(request.client_address, Ipv4Addr::UNSPECIFIED);
    let mut confirmed = exchange.clone();
    bound(take(&mut confirmed, &reply(&request, Kind::Ack, SERVER, ADDRESS), 0));
    assert_eq!(take(&mut exchange, &reply(&request, Kind::Nak, SERVER, ADDRESS), 0), None);
    let discover = sent(exchange.next(Duration::ZERO));
    assert_eq!((discover.kind, discover.address(code::REQUESTED_ADDRESS)), (Kind::Discover, None));
}

#[test]
fn renewal_goes_to_the_server_and_rebinding_to_all_and_a_refusal_is_told_in_the_servers_words() {
    let mut renewal = begin(Goal::Renew { address: ADDRESS });
    let request = sent(renewal.next(Duration::ZERO));
    assert!(renewal.is_unicast());
    assert!(!begin(Goal::Rebind { address: ADDRESS }).is_unicast());
    assert_eq!((request.kind, request.client_address), (Kind::Request, ADDRESS));
    assert_eq!((request.address(code::SERVER), request.address(code::REQUESTED_ADDRESS)), (None, None));
    let mut refusal = reply(&request, Kind::Nak, SERVER, Ipv4Addr::UNSPECIFIED);
    refusal.options.set(code::REASON, *b"wrong\nnetwork");
    let words = Outcome::Refused("192.0.2.1 refused: wrongnetwork".to_owned());
    assert_eq!(take(&mut renewal, &refusal, 0), Some(words));
}

/// Runs to the end against servers that answer by `answer`; the messages sent, and how it ended.
fn run(goal: Goal, answer: impl Fn(&Message) -> Option<Message>) -> (Vec<Kind>, ExchangeError) {
    let mut exchange = begin(goal);
    let (mut now, mut kinds) = (Duration::ZERO, Vec::new());
    loop {
        match exchange.next(now) {
            Next::Send(payload) => {
                let message = Message::decode(&payload).unwrap();
                kinds.push(message.kind);
                if let Some(answer) = answer(&message) {
                    assert_eq!(exchange.receive(&answer.encode(), now), None);
                }
            }
            Next::Wait(until) => now = until,
            Next::GiveUp(error) => return (kinds, error),
        }
        assert!(kinds.len() < 100, "{kinds:?}");
    }
}

#[test]
fn silent_servers_are_given_up_in_time_after_a_few_questions() {
    let (kinds, error) = run(Goal::Acquire { wished: None }, |_| None);
    assert!((4..=6).contains(&kinds.len()), "{kinds:?}");
    assert_eq!(error, ExchangeError::Silent { seconds: 20 });
    let (kinds, _) = run(Goal::Reboot { address: ADDRESS }, |_| None);
    assert_eq!(kinds[..3], [Kind::Request, Kind::Request, Kind::Discover]);
}

#[test]
fn answers_that_are_of_no_use_are_named_in_the_error() {
    let shown = |answer: &dyn Fn(&Message) -> Option<Message>| {
        run(Goal::Acquire { wished: None }, answer).1.to_string()
    };
    let outside = shown(&|question| Some(reply(question, Kind::Offer, SERVER, Ipv4Addr::new(10, 0, 0, 5))));
    let mute = shown(&|question| match question.kind {
        Kind::Discover => Some(reply(question, Kind::Offer, SERVER, ADDRESS)),
        _ => None,
    });
    let refusing = shown(&|question| match question.kind {
        Kind::Discover => Some(reply(question, Kind::Offer, SERVER, ADDRESS)),
        _ => Some(reply(question, Kind::Nak, SERVER, ADDRESS)),
    });
    let wavering = shown(&|question| match question.kind {
        Kind::Discover => Some(reply(question, Kind::Offer, SERVER, ADDRESS)),
        _ => Some(reply(question, Kind::Ack, SERVER, Ipv4Addr::new(192, 0, 2, 51))),
    });
    let nameless = shown(&|question| {
        let mut offer = reply(question, Kind::Offer, SERVER, ADDRESS);
        offer.options.set(code::SERVER, []);
        Some(offer)
    });
    insta::assert_snapshot!([outside, mute, refusing, wavering, nameless].join("\n"), @r"
        no usable answer of a DHCP server within 20 s: 192.0.2.1 offered what cannot be used: 10.0.0.5/24 is outside the subnet 192.0.2.0/24 of the configuration
        no usable answer of a DHCP server within 20 s: 192.0.2.1 offered 192.0.2.50 and then fell silent
        no usable answer of a DHCP server within 20 s: 192.0.2.1 refused
        no usable answer of a DHCP server within 20 s: 192.0.2.1 gave 192.0.2.51 where 192.0.2.50 was asked for; 192.0.2.1 offered 192.0.2.50 and then fell silent
        no usable answer of a DHCP server within 20 s: a server offered what cannot be used: it does not name its server (option 54)
        ");
}

#[test]
fn what_is_somebody_elses_is_not_heard() {
    let mut exchange = begin(Goal::Acquire { wished: None });
    let discover = sent(exchange.next(Duration::ZERO));
    let offer = reply(&discover, Kind::Offer, SERVER, ADDRESS);
    let mut named = offer.clone();
    named.options.set(code::CLIENT_ID, *b"\0another");
    let others = [
        Message { xid: offer.xid ^ 1, ..offer.clone() },
        Message { mac: [2; 6], ..offer.clone() },
        Message { is_reply: false, ..offer.clone() },
        named,
    ];
    for other in others {
        assert_eq!(take(&mut exchange, &other, 0), None);
        assert!(exchange.chosen().is_none());
    }
    take(&mut exchange, &offer, 0);
    assert!(exchange.chosen().is_some());
}

#[test]
fn a_farewell_names_address_and_server_where_each_belongs() {
    let terms = Terms::of(
        &reply(&sent(begin(Goal::Acquire { wished: None }).next(Duration::ZERO)), Kind::Ack, SERVER, ADDRESS),
        None,
    )
    .unwrap();
    let release = Message::decode(&Exchange::release(&identity(), &terms, 1)).unwrap();
    assert_eq!((release.kind, release.client_address), (Kind::Release, ADDRESS));
    assert_eq!(release.address(code::REQUESTED_ADDRESS), None);
    let decline = Message::decode(&Exchange::decline(&identity(), &terms, 1)).unwrap();
    assert_eq!((decline.kind, decline.client_address), (Kind::Decline, Ipv4Addr::UNSPECIFIED));
    assert_eq!(decline.address(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(decline.address(code::SERVER), Some(SERVER));
}

proptest! {
    /// Whatever comes in, in whatever order, an exchange ends in time, sends little, and binds only what it asked for.
    #[test]
    fn no_answers_make_an_exchange_panic_linger_or_bind_what_it_did_not_ask_for(
        goal in 0..4_u8,
        answers in proptest::collection::vec((1..=7_u8, 0..3_u8, 48..52_u8, any::<bool>(), 0..400_usize, any::<u8>()), 0..60),
        seed: u64,
    ) {
        let goal = match goal {
            0 => Goal::Acquire { wished: Some(ADDRESS) },
            1 => Goal::Reboot { address: ADDRESS },
            2 => Goal::Renew { address: ADDRESS },
            _ => Goal::Rebind { address: ADDRESS },
        };
        let mut exchange = Exchange::new(identity(), goal, Duration::ZERO, PATIENCE, seed);
        let mut answers = answers.into_iter();
        let (mut now, mut sent, mut question) = (Duration::ZERO, 0, None);
        loop {
            match exchange.next(now) {
                Next::Send(payload) => {
                    sent += 1;
                    question = Some(Message::decode(&payload).unwrap());
                }
                Next::Wait(until) => {
                    prop_assert!(until > now && until <= PATIENCE);
                    now = until;
                }
                Next::GiveUp(_) => {
                    prop_assert!(now >= PATIENCE);
                    break;
                }
            }
            prop_assert!(sent < 200);
            let Some(((kind, server, host, damage, at, byte), question)) = answers.next().zip(question.as_ref()) else { continue };
            let kind = [Kind::Discover, Kind::Offer, Kind::Request, Kind::Decline, Kind::Ack, Kind::Nak, Kind::Release][usize::from(kind) - 1];
            let answer = reply(question, kind, Ipv4Addr::new(192, 0, 2, server), Ipv4Addr::new(192, 0, 2, host));
            let mut bytes = answer.encode();
            if damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let chosen = exchange.chosen().map(|terms| terms.address.addr());
            match exchange.receive(&bytes, now) {
                Some(Outcome::Bound(terms)) => {
                    prop_assert!(chosen == Some(terms.address.addr()) || terms.address.addr() == ADDRESS);
                    break;
                }
                Some(Outcome::Refused(_)) => {
                    let prolonging = matches!(goal, Goal::Renew { .. } | Goal::Rebind { .. });
                    prop_assert!(prolonging);
                    break;
                }
                None => {}
            }
        }
    }
}
