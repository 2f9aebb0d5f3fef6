//! Where those of others' routes lead that do not matter to ours: the addresses alone, so that a new node's pods are known
//! to be none of theirs without listing all routes again. The kernel cannot be asked for the routes within a prefix.

use ipnet::IpNet;

/// So many are told of before they are put in order.
const MOST_TOLD: usize = 1_024;

/// Addresses to which others' routes lead. There may be more of them than routes lead to now, never fewer: what is gone
/// is not told here.
#[derive(Debug, Default)]
pub(super) struct SetAside {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// Since they were last put in order.
    told: Vec<IpNet>,
}

impl SetAside {
    /// The destinations of routes, in any order.
    pub(super) fn of(destinations: Vec<IpNet>) -> Self {
        let mut aside = Self { told: destinations, ..Self::default() };
        aside.put_in_order();
        aside
    }

    /// A further route leads there.
    pub(super) fn add(&mut self, destination: IpNet) {
        self.told.push(destination);
        if self.told.len() >= MOST_TOLD {
            self.put_in_order();
        }
    }

    /// Whether one of the routes may lead to an address of `net`.
    pub(super) fn touches(&self, net: &IpNet) -> bool {
        let in_order = match bounds(net) {
            Bounds::V4(first, last) => self.v4.touch(first, last),
            Bounds::V6(first, last) => self.v6.touch(first, last),
        };
        in_order || self.told.iter().any(|told| node_network::family::overlaps(told, net))
    }

    fn put_in_order(&mut self) {
        let told = std::mem::take(&mut self.told);
        for net in &told {
            match bounds(net) {
                Bounds::V4(first, last) => self.v4.0.push((first, last)),
                Bounds::V6(first, last) => self.v6.0.push((first, last)),
            }
        }
        self.v4.merge();
        self.v6.merge();
    }
}

/// The first and the last address of a prefix.
enum Bounds {
    V4(u32, u32),
    V6(u128, u128),
}

fn bounds(net: &IpNet) -> Bounds {
    match net {
        IpNet::V4(net) => Bounds::V4(net.network().into(), net.broadcast().into()),
        IpNet::V6(net) => Bounds::V6(net.network().into(), net.broadcast().into()),
    }
}

/// First and last addresses; in order and apart from each other once they are merged.
#[derive(Debug, Default)]
struct Ranges<A>(Vec<(A, A)>);

impl<A: Copy + Ord + Into<u128>> Ranges<A> {
    fn touch(&self, first: A, last: A) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < first);
        self.0.get(at).is_some_and(|(start, _)| *start <= last)
    }

    /// Neighbours become one: a hundred thousand routes are few ranges, where they are a provider's.
    fn merge(&mut self) {
        self.0.sort_unstable();
        self.0.dedup_by(|next, kept| {
            let follows = next.0 <= kept.1 || kept.1.into().checked_add(1) == Some(next.0.into());
            if follows {
                kept.1 = kept.1.max(next.1);
            }
            follows
        });
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use node_network::family::overlaps;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn neighbouring_routes_of_a_provider_are_one_range() {
        let all = (0..=255).map(|number| net(&format!("30.0.{number}.0/24"))).collect();
        let aside = SetAside::of(all);
        assert_eq!(aside.v4.0.len(), 1);
        assert!(aside.touches(&net("30.0.7.9/32")) && aside.touches(&net("30.0.0.0/8")));
        assert!(!aside.touches(&net("30.1.0.0/24")) && !aside.touches(&net("::/0")));
    }

    #[test]
    fn the_last_address_of_all_has_none_behind_it() {
        let aside =
            SetAside::of(vec![net("255.255.255.255/32"), net("ffff::/16"), net("255.255.255.254/32")]);
        assert!(aside.touches(&net("255.255.255.255/32")) && aside.touches(&net("ffff:ffff::/32")));
    }

    proptest! {
        #[test]
        fn what_any_of_the_routes_overlaps_is_touched_and_nothing_else(
            nets in proptest::collection::vec((any::<bool>(), 0_u16..256, 0_u8..=16), 0..40),
            listed in 0_usize..40, asked in (any::<bool>(), 0_u16..256, 0_u8..=16),
        ) {
            let made = |(is_v4, place, length): (bool, u16, u8)| {
                let high = u32::from(place) << 24;
                let address = if is_v4 {
                    IpAddr::from(high.to_be_bytes())
                } else {
                    IpAddr::from((u128::from(high) << 96).to_be_bytes())
                };
                IpNet::new(address, length).unwrap().trunc()
            };
            let nets: Vec<IpNet> = nets.into_iter().map(made).collect();
            let listed = listed.min(nets.len());
            let mut aside = SetAside::of(nets[..listed].to_vec());
            nets[listed..].iter().for_each(|net| aside.add(*net));
            let asked = made(asked);
            let expected = nets.iter().any(|net| overlaps(net, &asked));
            prop_assert_eq!(aside.touches(&asked), expected);
            aside.put_in_order();
            prop_assert_eq!(aside.touches(&asked), expected);
        }
    }
}
