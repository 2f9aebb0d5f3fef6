//! `CNI_ARGS`: `KEY=VALUE` pairs between semicolons, which runtimes use to say whose pod it is.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{parse_ip, parse_ip_maybe_prefixed};
use crate::error::{CniError, ErrorCode};
use crate::excerpt::quoted;
use crate::mac_address::MacAddress;

/// The longest `CNI_ARGS` that is looked at, in bytes.
pub const MAX_ARGS_LEN: usize = 64 << 10;

/// The longest name of a Kubernetes object (RFC 1123 subdomain), in bytes.
const MAX_POD_FIELD_LEN: usize = 253;

/// The pairs that this plugin knows. An empty value is an absent one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub pod_name: Option<String>,
    /// `K8S_POD_UID`.
    pub pod_uid: Option<String>,
    /// `K8S_POD_INFRA_CONTAINER_ID`.
    pub pod_infra_container_id: Option<String>,
    /// `IP`: the addresses that the pod wants, between commas; prefixes behind them are dropped.
    pub ips: Vec<IpAddr>,
    /// Those of `IP` that have a prefix, with it; the `static` plugin wants all of them so.
    pub networks: Vec<IpNet>,
    /// `MAC`: the interface address that the pod wants.
    pub mac: Option<MacAddress>,
    /// `GATEWAY`: the gateways for addresses of `static`, between commas.
    pub gateways: Vec<IpAddr>,
}

impl CniArgs {
    /// Reads `CNI_ARGS`. As the reference library does, refuses keys it does not know unless `IgnoreUnknown` is `1`
    /// or `true` somewhere in the text, and a pair without exactly one `=`.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        if text.len() > MAX_ARGS_LEN {
            return Err(refuse(&format!("{} bytes are too many; give at most {MAX_ARGS_LEN}", text.len())));
        }
        let mut args = Self::default();
        if text.is_empty() {
            return Ok(args);
        }
        let mut ignore_unknown = false;
        let mut unknown = None;
        for pair in text.split(';') {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| refuse(&format!("{} is not KEY=VALUE", quoted(pair))))?;
            match key {
                "IgnoreUnknown" => ignore_unknown = truth(value)?,
                key => {
                    if !args.set(key, value)? {
                        unknown.get_or_insert(key);
                    }
                }
            }
        }
        match unknown {
            Some(key) if !ignore_unknown => {
                Err(refuse(&format!("key {} is not known; remove it, or add `IgnoreUnknown=1`", quoted(key))))
            }
            _ => Ok(args),
        }
    }

    /// Sets what `key` stands for; false if it stands for nothing.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, CniError> {
        let address = "give an IPv4 or IPv6 address";
        match key {
            "K8S_POD_NAMESPACE" => self.pod_namespace = pod_field(key, value)?,
            "K8S_POD_NAME" => self.pod_name = pod_field(key, value)?,
            "K8S_POD_UID" => self.pod_uid = pod_field(key, value)?,
            "K8S_POD_INFRA_CONTAINER_ID" => self.pod_infra_container_id = pod_field(key, value)?,
            "IP" => {
                self.ips = listed(key, value, |text| parse_ip_maybe_prefixed(text).ok_or(address))?;
                self.networks = items(value).filter_map(|text| text.parse().ok()).collect();
            }
            "GATEWAY" => self.gateways = listed(key, value, |text| parse_ip(text).ok_or(address))?,
            "MAC" => self.mac = given(key, value, str::parse)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn given<T, E: std::fmt::Display>(
    key: &str,
    value: &str,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, CniError> {
    if value.is_empty() {
        return Ok(None);
    }
    read(value).map(Some).map_err(|remedy| refuse(&format!("{key} is {}: {remedy}", quoted(value))))
}

/// Several values between commas, as the reference's `static` plugin takes them.
fn listed<T, E: std::fmt::Display>(
    key: &str,
    value: &str,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, CniError> {
    items(value).filter_map(|item| given(key, item, &read).transpose()).collect()
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// These end up in records and logs, so they are bounded and printable.
fn pod_field(key: &str, value: &str) -> Result<Option<String>, CniError> {
    given(key, value, |text| {
        if text.len() <= MAX_POD_FIELD_LEN && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(text.to_owned())
        } else {
            Err(format!("give at most {MAX_POD_FIELD_LEN} printable ASCII characters"))
        }
    })
}

fn truth(value: &str) -> Result<bool, CniError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(refuse(&format!("IgnoreUnknown is {}: give 1, true, 0 or false", quoted(value)))),
    }
}

fn refuse(reason: &str) -> CniError {
    CniError::new(ErrorCode::InvalidEnvironment, format!("`CNI_ARGS`: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_containerd_passes_is_read() {
        let args = CniArgs::parse(
            "K8S_POD_INFRA_CONTAINER_ID=4f1d;K8S_POD_UID=8e7;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;\
             K8S_POD_NAME=web-0;SOMETHING_NEW=x",
        )
        .unwrap();
        assert_eq!(args.pod_namespace.as_deref(), Some("default"));
        assert_eq!(args.pod_name.as_deref(), Some("web-0"));
        assert_eq!(args.pod_uid.as_deref(), Some("8e7"));
        assert_eq!(args.pod_infra_container_id.as_deref(), Some("4f1d"));
    }

    #[test]
    fn addresses_are_typed() {
        let args = CniArgs::parse("IP=10.1.2.3/24;MAC=02:00:00:00:00:01;GATEWAY=10.1.2.1").unwrap();
        assert_eq!(args.ips, [IpAddr::from([10, 1, 2, 3])]);
        assert_eq!(args.networks, ["10.1.2.3/24".parse().unwrap()]);
        assert_eq!(args.gateways, [IpAddr::from([10, 1, 2, 1])]);
        assert_eq!(args.mac.unwrap().octets(), [2, 0, 0, 0, 0, 1]);
        assert_eq!(CniArgs::parse("IP=;MAC="), Ok(CniArgs::default()));
        let both = CniArgs::parse("IP=10.1.2.3/24, fd00::3/64;GATEWAY=10.1.2.1,fd00::1").unwrap();
        assert_eq!((both.ips.len(), both.networks.len(), both.gateways.len()), (2, 2, 2));
    }

    #[test]
    fn a_refusal_names_pair_and_remedy() {
        let refused = |text: &str| {
            let error = CniArgs::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidEnvironment);
            error.msg
        };
        insta::assert_snapshot!(refused("FOO=1"), @"`CNI_ARGS`: key `FOO` is not known; remove it, or add `IgnoreUnknown=1`");
        insta::assert_snapshot!(refused("IgnoreUnknown=0;FOO=1"), @"`CNI_ARGS`: key `FOO` is not known; remove it, or add `IgnoreUnknown=1`");
        insta::assert_snapshot!(refused("FOO"), @"`CNI_ARGS`: `FOO` is not KEY=VALUE");
        insta::assert_snapshot!(refused("A=B=C"), @"`CNI_ARGS`: `A=B=C` is not KEY=VALUE");
        insta::assert_snapshot!(refused("IgnoreUnknown=maybe"), @"`CNI_ARGS`: IgnoreUnknown is `maybe`: give 1, true, 0 or false");
        insta::assert_snapshot!(refused("IP=10.1.2"), @"`CNI_ARGS`: IP is `10.1.2`: give an IPv4 or IPv6 address");
        insta::assert_snapshot!(refused("MAC=01:00:00:00:00:00"), @"`CNI_ARGS`: MAC is `01:00:00:00:00:00`: `01:00:00:00:00:00` is a multicast address, which no interface can have: make its first byte even");
        assert!(refused(&"x".repeat(MAX_ARGS_LEN + 1)).len() < 200);
        assert!(refused(&format!("K8S_POD_NAME={}", "x".repeat(254))).contains("253"));
        assert!(refused("K8S_POD_NAME=a\nb").contains("printable"));
    }

    #[test]
    fn ignore_unknown_counts_wherever_it_stands() {
        assert!(CniArgs::parse("FOO=1;IgnoreUnknown=TRUE").is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_errors_stay_short(text in "([A-Za-z0-9_]{0,12}=?.{0,8};?){0,6}") {
            if let Err(error) = CniArgs::parse(&text) {
                prop_assert!(error.to_string().len() < 2_000);
            }
        }
    }
}
