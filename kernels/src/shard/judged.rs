//! Series without a row, by the hash of their label bytes as sent: what their labels were found to
//! mean, so that the next record does not parse them again. Never persisted.
//!
//! Invariant: what stands here follows from the labels, their tenant and the table in force, and is
//! dropped with the table; verdicts do not. A series is judged anew with each record, and what falls
//! out of here is found again: it changes how long a record takes, and nothing else.

use super::aliases;
use crate::model::{SeriesRow, TenantNumber};

/// Entries of 64 bytes: 32 MiB at most.
const ENTRIES_MAX: usize = 1 << 19;
const ENTRIES_MIN: usize = 1 << 10;
/// It grows when this share of its entries were taken from others.
const DISPLACED_SHARE: usize = 8;

/// What the labels of a series come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The series id.
    pub id: u128,
    /// The explosion that it belongs to.
    pub explosion: u64,
    /// The meters that it would count for, and the one that refused it.
    pub set: u32,
    pub meter: u32,
    /// Of its canonical labels.
    pub label_bytes: u32,
    /// What it was folded into; `REFUSED` where it was not.
    pub output: SeriesRow,
}

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Entry {
    hash: [u32; 3],
    taken: bool,
    seen: Seen,
}

#[derive(Default)]
pub(super) struct Judged {
    /// None, or a power of two: each key may stand in two neighbours.
    entries: Vec<Entry>,
    displaced: usize,
    /// Of the meters that sets and meters are numbers of.
    meters: u64,
}

impl Judged {
    /// A record is judged by these meters: what was found by others is dropped.
    pub fn begin(&mut self, meters: u64) {
        if self.meters != meters {
            *self = Judged { meters, ..Judged::default() };
        }
    }

    #[inline]
    pub fn get(&self, tenant: TenantNumber, label_hash: u128) -> Option<Seen> {
        if self.entries.is_empty() {
            return None;
        }
        let hash = aliases::key(tenant, label_hash);
        let place = self.place(hash);
        let mut pair = [place, place ^ 1].into_iter().map(|at| &self.entries[at]);
        pair.find(|entry| entry.taken && entry.hash == hash).map(|entry| entry.seen)
    }

    pub fn remember(&mut self, tenant: TenantNumber, label_hash: u128, seen: Seen) {
        let size = self.entries.len();
        if size == 0 || (self.displaced > size / DISPLACED_SHARE && size < ENTRIES_MAX) {
            let grown = (size * 4).clamp(ENTRIES_MIN, ENTRIES_MAX);
            let before = std::mem::replace(&mut self.entries, vec![Entry::default(); grown]);
            before.into_iter().filter(|entry| entry.taken).for_each(|entry| self.put(entry));
            self.displaced = 0;
        }
        self.put(Entry { hash: aliases::key(tenant, label_hash), taken: true, seen });
    }

    fn put(&mut self, new: Entry) {
        let place = self.place(new.hash);
        let fits = |&at: &usize| {
            let entry = &self.entries[at];
            !entry.taken || entry.hash == new.hash
        };
        let found = [place, place ^ 1].into_iter().find(fits);
        self.displaced += usize::from(found.is_none());
        self.entries[found.unwrap_or(place)] = new;
    }

    fn place(&self, hash: [u32; 3]) -> usize {
        hash[0] as usize & (self.entries.len() - 1)
    }

    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_128;

    fn seen(number: u32) -> Seen {
        Seen { id: u128::from(number), set: number, ..Seen::default() }
    }

    #[test]
    fn what_is_remembered_is_the_last_that_was_said_of_that_series_or_nothing() {
        let mut judged = Judged::default();
        judged.begin(1);
        let hash = |number: u32| xxh3_128(&number.to_le_bytes());
        for number in 0..200_000 {
            judged.remember(3, hash(number), seen(number));
            assert_eq!(judged.get(3, hash(number)), Some(seen(number)));
        }
        let kept = |judged: &Judged| {
            let found =
                (0..200_000).filter_map(|number| Some((number, judged.get(3, hash(number))?)));
            found.inspect(|(number, found)| assert_eq!(*found, seen(*number))).count()
        };
        assert!(kept(&judged) > 50_000, "{}", kept(&judged));
        assert_eq!(judged.get(4, hash(199_999)), None, "another tenant's");
        judged.remember(3, hash(7), seen(8));
        assert_eq!(judged.get(3, hash(7)), Some(seen(8)));
        judged.begin(1);
        assert_eq!(judged.get(3, hash(7)), Some(seen(8)));
        judged.begin(2);
        assert_eq!(kept(&judged), 0, "the meters are others");
    }

    #[test]
    fn memory_has_its_limit() {
        let mut judged = Judged::default();
        for number in 0..2_000_000_u128 {
            judged.remember(0, number << 32 | number << 64, seen(1));
        }
        assert_eq!(size_of::<Entry>(), 64);
        assert_eq!(judged.memory_bytes(), ENTRIES_MAX * 64);
    }
}
