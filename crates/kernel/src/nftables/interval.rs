//! Intervals: a set of one type keeps where each begins and where the next thing after it begins; reading turns that
//! back into prefixes and ranges.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::value::{DataType, Value};

/// The first key behind `key`, in network order; none behind the last there is.
pub(super) fn after(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(next);
        }
    }
    None
}

/// The last key before `key`.
fn before(key: &[u8]) -> Option<Vec<u8>> {
    let mut previous = key.to_vec();
    for byte in previous.iter_mut().rev() {
        let (difference, borrowed) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrowed {
            return Some(previous);
        }
    }
    None
}

/// One boundary in such a set, with what the element that begins here carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boundary<T> {
    pub(super) key: Vec<u8>,
    /// Whether an interval ends before this key (`NFT_SET_ELEM_INTERVAL_END`).
    pub(super) is_end: bool,
    pub(super) carries: T,
}

/// Pairs boundaries: the first and the last key of each interval, and what it carries. An interval without an end
/// reaches to the last key there is; an end without a begin (nft writes one at zero) is nothing.
pub(super) fn pair<T>(mut boundaries: Vec<Boundary<T>>) -> Vec<(Vec<u8>, Vec<u8>, T)> {
    boundaries.sort_by(|a, b| a.key.cmp(&b.key).then(b.is_end.cmp(&a.is_end)));
    let mut intervals = Vec::new();
    let mut open: Option<(Vec<u8>, T)> = None;
    for boundary in boundaries {
        if let Some((low, carries)) = open.take()
            && let Some(high) = before(&boundary.key)
        {
            intervals.push((low, high, carries));
        }
        if !boundary.is_end {
            open = Some((boundary.key, boundary.carries));
        }
    }
    if let Some((low, carries)) = open {
        let high = vec![u8::MAX; low.len()];
        intervals.push((low, high, carries));
    }
    intervals
}

/// The values from `low` to `high`: one, but for addresses that make no single prefix.
pub(super) fn values(data_type: DataType, low: &[u8], high: &[u8]) -> Vec<Value> {
    match (Value::decode(data_type, low), Value::decode(data_type, high)) {
        (low, high) if low == high => vec![low],
        (Value::Ip(IpAddr::V4(low)), Value::Ip(IpAddr::V4(high))) => {
            Ipv4Subnets::new(low, high, 0).map(|net| Value::Net(IpNet::V4(net)).canonical()).collect()
        }
        (Value::Ip(IpAddr::V6(low)), Value::Ip(IpAddr::V6(high))) => {
            Ipv6Subnets::new(low, high, 0).map(|net| Value::Net(IpNet::V6(net)).canonical()).collect()
        }
        (Value::Port(low), Value::Port(high)) => vec![Value::Ports(low, high)],
        _ => vec![Value::Bytes([low, high].concat())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::value::End;
    use proptest::prelude::*;

    fn any_net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<[u8; 4]>(), 0u8..=32)
                .prop_map(|(ip, length)| IpNet::new(ip.into(), length).unwrap().trunc()),
            (any::<[u8; 16]>(), 0u8..=128)
                .prop_map(|(ip, length)| IpNet::new(ip.into(), length).unwrap().trunc()),
        ]
    }

    fn boundaries(net: IpNet) -> Vec<Boundary<u8>> {
        let value = Value::Net(net);
        let begin = Boundary { key: value.encode(End::Low).as_slice().to_vec(), is_end: false, carries: 1 };
        let end =
            after(value.encode(End::High).as_slice()).map(|key| Boundary { key, is_end: true, carries: 0 });
        std::iter::once(begin).chain(end).collect()
    }

    fn data_type(net: IpNet) -> DataType {
        match net {
            IpNet::V4(_) => DataType::Ipv4Addr,
            IpNet::V6(_) => DataType::Ipv6Addr,
        }
    }

    proptest! {
        #[test]
        fn a_prefix_becomes_boundaries_and_these_that_prefix_again(net in any_net()) {
            let mut boundaries = boundaries(net);
            // The kernel gives the last first, and nft adds an end at zero.
            boundaries.reverse();
            if net.prefix_len() > 0 && !boundaries.iter().any(|boundary| boundary.key.iter().all(|byte| *byte == 0)) {
                let zero = vec![0; boundaries[0].key.len()];
                boundaries.push(Boundary { key: zero, is_end: true, carries: 0 });
            }
            let pairs = pair(boundaries);
            prop_assert_eq!(pairs.len(), 1);
            let (low, high, carries) = &pairs[0];
            prop_assert_eq!(*carries, 1);
            prop_assert_eq!(values(data_type(net), low, high), vec![Value::Net(net).canonical()]);
        }

        #[test]
        fn no_boundaries_make_the_reader_panic(
            boundaries in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..20), any::<bool>()), 0..12),
        ) {
            let boundaries = boundaries.into_iter().map(|(key, is_end)| Boundary { key, is_end, carries: () }).collect();
            for (low, high, ()) in pair(boundaries) {
                let _ = values(DataType::Ipv6Addr, &low, &high);
                let _ = values(DataType::InetService, &low, &high);
            }
        }
    }

    #[test]
    fn neighbours_that_touch_stay_two_intervals() {
        let nets = ["10.0.0.0/24", "10.0.1.0/25"].map(|net| net.parse::<IpNet>().unwrap());
        let pairs = pair(nets.into_iter().flat_map(boundaries).collect());
        let found: Vec<Value> =
            pairs.iter().flat_map(|(low, high, _)| values(DataType::Ipv4Addr, low, high)).collect();
        assert_eq!(found, nets.map(Value::Net));
    }
}
