//! Label bytes as a client sends them -> row: a cache, so that a known series costs one look-up
//! and its labels are parsed once, not with every scrape. Never persisted.
//!
//! Open addressing over 16-byte entries: a look-up touches one cache line and waits for nothing
//! else, so the processor overlaps those of a batch (a million series do not fit its caches).

use crate::model::{SeriesRow, TenantNumber};

/// 96 bits of the hash, which was keyed per process by the decoder, and row + 1; 0 = empty.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(align(16))]
struct Entry {
    hash: [u32; 3],
    row_next: u32,
}

#[derive(Default)]
pub struct Aliases {
    /// A power of two of them, at most two thirds taken.
    entries: Vec<Entry>,
    taken: usize,
}

/// At least this many before the cache may start afresh.
const KEPT_MIN: usize = 1 << 16;

/// The tenant is mixed in so that equal bytes of two tenants stay apart.
#[inline]
pub(super) fn key(tenant: TenantNumber, hash: u128) -> [u32; 3] {
    let mixed = hash ^ u128::from(tenant).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    [(mixed >> 32) as u32, (mixed >> 64) as u32, (mixed >> 96) as u32]
}

impl Aliases {
    /// The entry of a key, or the empty one where it would go. There must be an empty one.
    #[inline]
    fn position(&self, key: [u32; 3]) -> usize {
        let mask = self.entries.len() - 1;
        let mut at = (key[0] as usize | (key[1] as usize) << 32) & mask;
        while self.entries[at].row_next != 0 && self.entries[at].hash != key {
            at = (at + 1) & mask;
        }
        at
    }

    #[inline]
    pub fn resolve(&self, tenant: TenantNumber, hash: u128) -> Option<SeriesRow> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries[self.position(key(tenant, hash))].row_next.checked_sub(1)
    }

    /// Every sender may order labels its own way, so a row can have several aliases; past four a
    /// row on average the cache starts afresh.
    pub fn remember(&mut self, tenant: TenantNumber, hash: u128, row: SeriesRow, row_count: usize) {
        if self.taken >= KEPT_MIN.max(row_count * 4) {
            *self = Aliases::default();
        }
        if (self.taken + 1) * 3 > self.entries.len() * 2 {
            self.grow();
        }
        let hash = key(tenant, hash);
        let at = self.position(hash);
        self.taken += usize::from(self.entries[at].row_next == 0);
        self.entries[at] = Entry { hash, row_next: row + 1 };
    }

    fn grow(&mut self) {
        let size = (self.entries.len() * 2).max(1024);
        let old = std::mem::replace(&mut self.entries, vec![Entry::default(); size]);
        for entry in old.into_iter().filter(|entry| entry.row_next != 0) {
            let at = self.position(entry.hash);
            self.entries[at] = entry;
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}
