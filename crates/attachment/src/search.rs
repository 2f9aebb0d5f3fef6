//! The search for one address from each range set, over the hints of their ranges.

use std::net::IpAddr;

use crate::allocator::{Standing, next_free, search_order};
use crate::error::{IoError, ReserveError};
use crate::folder::Folder;
use crate::hint::Hint;
use crate::record::Allocation;
use crate::request::{Range, Wish};

/// The hints of all ranges that may serve a request, open. To be used under the store's lock.
pub(crate) struct Search<'r> {
    folder: &'r Folder,
    sets: Vec<SearchedSet<'r>>,
}

struct SearchedSet<'r> {
    wish: Wish<'r>,
    /// The one range that holds the requested address, or all.
    ranges: Vec<SearchedRange<'r>>,
}

struct SearchedRange<'r> {
    range: &'r Range,
    excluded: Vec<u64>,
    hint: Hint,
}

/// An address for one range set, that may yet turn out to be taken.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) allocation: Allocation,
    /// Whether it was asked for by name.
    pub(crate) requested: bool,
    set: usize,
    range: usize,
    /// `None` beyond what is searched.
    index: Option<u64>,
}

impl<'r> Search<'r> {
    pub(crate) fn new(
        folder: &'r Folder,
        range_sets: &'r [Vec<Range>],
        wishes: &[Wish<'r>],
    ) -> Result<Self, IoError> {
        let searched = |range: &'r Range| {
            let hint = Hint::open(folder, range.addresses)?;
            Ok(SearchedRange { range, excluded: range.excluded_indexes(), hint })
        };
        let mut sets = Vec::with_capacity(range_sets.len());
        for (ranges, &wish) in range_sets.iter().zip(wishes) {
            let ranges: Result<Vec<_>, IoError> = match wish {
                Wish::Any => ranges.iter().map(searched).collect(),
                Wish::Exactly(_, range) => searched(range).map(|range| vec![range]),
            };
            sets.push(SearchedSet { wish, ranges: ranges? });
        }
        Ok(Self { folder, sets })
    }

    /// One address for each set, none twice.
    pub(crate) fn propose(&mut self) -> Result<Vec<Proposal>, ReserveError> {
        let mut promised: Vec<IpAddr> = self.sets.iter().filter_map(SearchedSet::requested).collect();
        let mut proposals = Vec::with_capacity(self.sets.len());
        for (number, set) in self.sets.iter_mut().enumerate() {
            let (range, index, address) = match set.wish {
                Wish::Exactly(address, range) => (0, range.addresses.index_of(address), address),
                Wish::Any => {
                    let (range, index, address) = set.any(self.folder, number, &promised)?;
                    promised.push(address);
                    (range, Some(index), address)
                }
            };
            let allocation = set.ranges[range].range.allocation(address);
            let requested = set.requested().is_some();
            proposals.push(Proposal { allocation, requested, set: number, range, index });
        }
        Ok(proposals)
    }

    /// Notes that the proposals became claims, and lets the next search start after those that were found.
    pub(crate) fn note_taken(&mut self, proposals: &[Proposal]) {
        for proposal in proposals {
            let Some(index) = proposal.index else { continue };
            let set = &mut self.sets[proposal.set];
            let last_turn = set.ranges.iter().map(|range| range.hint.standing().turn).max().unwrap_or(0);
            let hint = &mut set.ranges[proposal.range].hint;
            // A hint that stays wrong costs the next search some time; failing would cost this pod.
            let _noted = hint.set(self.folder, index);
            if !proposal.requested {
                let _advanced = hint.advance(self.folder, index, last_turn.saturating_add(1));
            }
        }
    }

    /// Notes that the proposal was somebody's already, in whatever way keeps it from being proposed again; `rebuild`
    /// where this hint is wrong so often that it had better be built anew.
    pub(crate) fn note_stale(&mut self, proposal: &Proposal, rebuild: bool) -> Result<(), IoError> {
        let Some(index) = proposal.index else { return Ok(()) };
        let hint = &mut self.sets[proposal.set].ranges[proposal.range].hint;
        if rebuild { hint.rebuild(self.folder) } else { hint.set(self.folder, index) }
    }
}

impl SearchedSet<'_> {
    fn requested(&self) -> Option<IpAddr> {
        match self.wish {
            Wish::Exactly(address, _) => Some(address),
            Wish::Any => None,
        }
    }

    /// The next address of this set, the `number`-th, that is neither taken nor `promised` to another set.
    fn any(
        &mut self,
        folder: &Folder,
        number: usize,
        promised: &[IpAddr],
    ) -> Result<(usize, u64, IpAddr), ReserveError> {
        if let Some(found) = self.next(folder, promised)? {
            return Ok(found);
        }
        // The hints are full: that is believed only of the claims.
        for range in &mut self.ranges {
            range.hint.rebuild(folder)?;
        }
        if let Some(found) = self.next(folder, promised)? {
            return Ok(found);
        }
        let ranges = self.ranges.iter().map(|range| range.range.addresses).collect();
        let usable = self.ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.range.usable()));
        Err(ReserveError::Exhausted { set: number, ranges, usable })
    }

    fn next(
        &mut self,
        folder: &Folder,
        promised: &[IpAddr],
    ) -> Result<Option<(usize, u64, IpAddr)>, IoError> {
        let standings: Vec<Standing> = self.ranges.iter().map(|range| range.hint.standing()).collect();
        for stretch in search_order(&standings) {
            let SearchedRange { range, excluded, hint } = &mut self.ranges[stretch.range];
            let promised: Vec<u64> =
                promised.iter().filter_map(|address| range.addresses.index_of(*address)).collect();
            let unwanted = |index: u64| excluded.binary_search(&index).is_ok() || promised.contains(&index);
            let found = next_free(stretch.from, stretch.until, |n| hint.window(folder, n), unwanted)?;
            if let Some(index) = found
                && let Some(address) = range.addresses.address_at(index)
            {
                return Ok(Some((stretch.range, index, address)));
            }
        }
        Ok(None)
    }
}
