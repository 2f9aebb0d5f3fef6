//! The IPAM plugin `static`, executed as other plugins do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::plugin::Call;

fn conf() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge",
        "ipam": {
            "type": "static",
            "addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {"nameservers": ["192.0.2.53"]},
        },
    })
}

fn call(verb: &str, conf: &Value) -> Call {
    Call::new(verb, conf)
        .by_name("static")
        .with("CNI_CONTAINERID", "4f1d")
        .with("CNI_NETNS", "/run/netns/none")
        .with("CNI_IFNAME", "eth0")
}

#[test]
fn the_answer_is_what_the_configuration_says_and_check_agrees() {
    let result = call("ADD", &conf()).run().result();
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.0.0",
            "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {"nameservers": ["192.0.2.53"]},
        })
    );
    let mut checked = conf();
    checked["prevResult"] = result;
    call("CHECK", &checked).run().silent();
    checked["prevResult"]["ips"][0]["gateway"] = json!("10.1.0.9");
    assert_eq!(call("CHECK", &checked).run().error().0, 107);
    checked["prevResult"]["ips"] = json!([]);
    assert_eq!(call("CHECK", &checked).run().error().0, 107);
    for _ in 0..2 {
        call("DEL", &conf()).run().silent();
    }
}

#[test]
fn the_runtime_may_name_other_addresses() {
    let mut conf = conf();
    let with_args =
        call("ADD", &conf).with("CNI_ARGS", "IgnoreUnknown=1;IP=10.1.0.6/24;GATEWAY=10.1.0.2;X=y");
    let ips = with_args.run().result()["ips"].take();
    assert_eq!(ips[0]["gateway"], "10.1.0.2");
    assert_eq!(ips[2], json!({"address": "10.1.0.6/24", "gateway": "10.1.0.2"}));
    conf["runtimeConfig"] = json!({"ips": ["10.1.0.9/24"]});
    assert_eq!(call("ADD", &conf).run().result()["ips"], json!([{"address": "10.1.0.9/24"}]));
    conf["runtimeConfig"] = json!({"ips": ["10.1.0.9"]});
    assert_eq!(call("ADD", &conf).run().error().0, 7);
}
