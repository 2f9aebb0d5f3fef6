//! How exact a limit is: TCP through a shaped pod, timed where it is received. The one place where a test looks at a clock,
//! because a rate is what is promised; the best of several attempts counts, since a busy machine only makes it slower.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, reason = "the measured rates are worth knowing")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use kernel::netns::NetNs;
use kernel::traffic_control::{TokenBucket, ingress_redirects, set_token_bucket};
use serde_json::json;
use support::node::{Node, Pod, add, addresses_of, change, host_link, index_of, ip};

/// Bits a second, each way another, so that they cannot be mixed up.
const INTO_POD: u64 = 24_000_000;
const OUT_OF_POD: u64 = 40_000_000;
/// Bits at once: sixteen full packets.
const BURST: u64 = 16 * 1518 * 8;
/// For so long the sender has something to send, in milliseconds: many times what the burst takes.
const LASTS: u64 = 500;
const TOLERANCE: f64 = 0.2;
const ATTEMPTS: usize = 6;

/// Bits a second of payload that come through one connection from `from` to `to` at `at`, without those that may come at
/// once.
fn measured((from, at): (&NetNs, &NetNs), to: IpAddr, limit: u64) -> f64 {
    let listener = at.run(|| TcpListener::bind(SocketAddr::new(to, 0))).unwrap().unwrap();
    let mut sender = from.run(|| TcpStream::connect(listener.local_addr().unwrap())).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    let total = usize::try_from(limit * LASTS / 8_000).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = vec![0; 16 * 1024];
            let mut left = total;
            while left > 0 {
                left -= sender.write(&chunk[..left.min(chunk.len())]).unwrap();
            }
        });
        let mut buffer = vec![0; 64 * 1024];
        let burst = usize::try_from(BURST / 8).unwrap();
        let (mut received, mut since) = (0, None);
        loop {
            let length = receiver.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            received += length;
            // The clock starts once the burst is through.
            if since.is_none() && received > burst {
                since = Some((Instant::now(), received));
            }
        }
        assert_eq!(received, total);
        let (since, before) = since.unwrap();
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let bits = (received - before) as f64 * 8.0;
        bits / since.elapsed().as_secs_f64()
    })
}

/// The attempt that comes nearest to the limit, as a part of that.
fn best((from, at): (&NetNs, &NetNs), to: IpAddr, limit: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some megabits")]
    let limit_f64 = limit as f64;
    let mut best = 0.0_f64;
    for _ in 0..ATTEMPTS {
        let ratio = measured((from, at), to, limit) / limit_f64;
        if (ratio - 1.0).abs() < (best - 1.0).abs() {
            best = ratio;
        }
        if within(best) {
            break;
        }
    }
    best
}

fn within(ratio: f64) -> bool {
    (ratio - 1.0).abs() <= TOLERANCE
}

fn limits() -> serde_json::Value {
    json!({
        "ingressRate": INTO_POD, "ingressBurst": BURST, "egressRate": OUT_OF_POD, "egressBurst": BURST,
    })
}

#[test]
fn what_comes_through_each_way_is_within_a_fifth_of_the_limit() {
    for (mode, family) in [("ptp", 0), ("bridge", 1)] {
        let node = Node::enter();
        let pod = Pod::new("first");
        let conf = node.conf_with(json!({"mode": mode, "runtimeConfig": {"bandwidth": limits()}}));
        let result = add(&pod, &conf);
        let gateways = support::node::GATEWAYS.map(ip);
        let into_pod = best((&node.ns, &pod.ns), addresses_of(&result)[family], INTO_POD);
        let out_of_pod = best((&pod.ns, &node.ns), gateways[family], OUT_OF_POD);
        println!("{mode}: {into_pod:.3} of the limit into the pod, {out_of_pod:.3} out of it");
        assert!(within(into_pod), "{mode}: {into_pod:.3} of the limit came into the pod");
        assert!(within(out_of_pod), "{mode}: {out_of_pod:.3} of the limit came out of the pod");
    }
}

#[test]
fn a_wrong_rate_is_noticed_each_way() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let conf = node.conf_with(json!({"mode": "ptp", "runtimeConfig": {"bandwidth": limits()}}));
    let result = add(&pod, &conf);
    let host = index_of(host_link(&result));
    let mut socket = kernel::netlink::Socket::open(kernel::netlink::Protocol::Route).unwrap();
    let shaping = ingress_redirects(&mut socket, host).unwrap()[0];
    // Too slow by a third: a busy machine cannot make up for it.
    for (index, limit) in [(host, INTO_POD), (shaping, OUT_OF_POD)] {
        let burst = u32::try_from(BURST / 8).unwrap();
        let wrong = TokenBucket { rate: limit * 2 / 3 / 8, burst, limit: 4 * burst };
        change(|batch, _| set_token_bucket(batch, index, &wrong));
    }
    let into_pod = best((&node.ns, &pod.ns), addresses_of(&result)[0], INTO_POD);
    let out_of_pod = best((&pod.ns, &node.ns), ip(support::node::GATEWAYS[0]), OUT_OF_POD);
    assert!(
        !within(into_pod) && !within(out_of_pod),
        "{into_pod:.3} into the pod, {out_of_pod:.3} out of it"
    );
}
