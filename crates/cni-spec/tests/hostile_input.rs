//! Whatever bytes arrive, every parser answers with a value or a short error, and never panics.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test's helper fails by panicking, as the test does")]

use cni_spec::{
    AttachResult, BaseConf, CniArgs, CniError, GcRequest, MAX_INPUT_LEN, NetConf, SpecVersion, StatusConf,
    StoreConf, version_report,
};
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Hands `bytes` to every parser. Returns how many accepted them.
fn feed(bytes: &[u8]) -> usize {
    let mut errors: Vec<Option<CniError>> = vec![
        BaseConf::parse(bytes).and_then(|conf| conf.prev_result()).err(),
        StoreConf::parse(bytes).err(),
        StatusConf::parse(bytes).err(),
        NetConf::parse(bytes).and_then(|conf| conf.base.prev_result()).err(),
        GcRequest::parse(bytes).err(),
    ];
    errors.extend(SpecVersion::ALL.map(|version| AttachResult::from_json(bytes, version).err()));
    errors.push(std::str::from_utf8(bytes).ok().and_then(|text| CniArgs::parse(text).err()));
    for error in errors.iter().flatten() {
        assert!(error.msg.len() < 2_000, "{}", error.msg);
        serde_json::from_str::<Value>(&error.to_json(SpecVersion::NEWEST)).unwrap();
    }
    serde_json::from_str::<Value>(&version_report(bytes)).unwrap();
    errors.iter().filter(|error| error.is_none()).count()
}

/// JSON out of the words of the specification, so that parsers get past their first check.
fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "cniVersion",
        "name",
        "type",
        "ipam",
        "ranges",
        "subnet",
        "rangeStart",
        "rangeEnd",
        "gateway",
        "routes",
        "dst",
        "gw",
        "mtu",
        "runtimeConfig",
        "portMappings",
        "hostPort",
        "containerPort",
        "protocol",
        "bandwidth",
        "ingressRate",
        "ips",
        "mac",
        "prevResult",
        "interfaces",
        "interface",
        "address",
        "ip4",
        "ip",
        "dns",
        "mode",
        "cni.dev/valid-attachments",
        "containerID",
        "ifname",
        "nodeAddresses",
        "args",
        "cni",
        "bridge",
        "dataDir",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u32..70_000).prop_map(Value::from),
        prop::sample::select(vec![
            "1.1.0",
            "0.2.0",
            "pods",
            "hostgw",
            "10.1.0.0/24",
            "10.1.0.9",
            "fd00::/64",
            "fd00::9",
            "tcp",
            "ptp",
            "bridge",
            "eth0",
            "/x",
            "02:00:00:00:00:01",
            "255.255.255.255",
            "::/0",
            "",
        ])
        .prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..7).prop_map(|fields| {
                Value::Object(
                    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

const VALID: &str = r#"{"cniVersion":"1.1.0","name":"pods","type":"hostgw","mode":"bridge","mtu":1400,
"ipam":{"ranges":[[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9"}],[{"subnet":"fd00::/64"}]],"dataDir":"/d"},
"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"}],"nodeAddresses":["192.0.2.1"],"cni.dev/valid-attachments":[],
"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80}],"bandwidth":{"ingressRate":9,"ingressBurst":9}},
"prevResult":{"interfaces":[{"name":"eth0"}],"ips":[{"address":"10.1.0.9/24","interface":0}],"dns":{}}}"#;

#[test]
fn the_configuration_that_is_broken_below_is_whole() {
    assert!(feed(VALID.as_bytes()) >= 4);
}

#[test]
fn input_beyond_the_bound_is_refused() {
    let mut large = VALID.as_bytes().to_vec();
    large.resize(MAX_INPUT_LEN + 1, b' ');
    assert_eq!(feed(&large), 0);
    large.truncate(MAX_INPUT_LEN);
    assert!(feed(&large) >= 4);
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), (r#"{"ipam":"#, "}")] {
        let json = format!("{}7{}", open.repeat(10_000), close.repeat(10_000));
        feed(json.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        feed(&bytes);
    }

    #[test]
    fn any_json_of_our_words(json in any_json()) {
        feed(json.to_string().as_bytes());
    }

    #[test]
    fn any_value_under_any_key(path in 0..16usize, json in any_json()) {
        let mut conf: Value = serde_json::from_str(VALID).unwrap();
        let pointer = [
            "/ipam", "/ipam/ranges", "/ipam/ranges/0", "/ipam/ranges/0/0", "/ipam/ranges/0/0/subnet", "/routes",
            "/routes/0", "/routes/0/dst", "/runtimeConfig", "/runtimeConfig/portMappings/0",
            "/runtimeConfig/bandwidth", "/prevResult", "/prevResult/ips/0", "/prevResult/interfaces",
            "/cni.dev~1valid-attachments", "/mtu",
        ][path];
        *conf.pointer_mut(pointer).unwrap() = json;
        feed(conf.to_string().as_bytes());
    }

    #[test]
    fn a_valid_configuration_with_a_byte_changed(position in 0..VALID.len(), byte: u8) {
        let mut bytes = VALID.as_bytes().to_vec();
        bytes[position] = byte;
        feed(&bytes);
    }

    #[test]
    fn a_valid_configuration_cut_short(length in 0..VALID.len()) {
        prop_assert_eq!(NetConf::parse(&VALID.as_bytes()[..length]).unwrap_err().code.number(), 6);
    }
}
