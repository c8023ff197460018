//! Label bytes as a client sends them -> row: a cache, so that a known series costs one look-up
//! and its labels are parsed once, not with every scrape. Never persisted.

use crate::model::{SeriesRow, TenantNumber};
use hashbrown::HashTable;

#[derive(Clone, Copy)]
struct Alias {
    /// The 128-bit hash in pieces: 20 bytes an entry instead of 32.
    hash: [u32; 4],
    row: SeriesRow,
}

#[derive(Default)]
pub struct Aliases {
    table: HashTable<Alias>,
}

/// At least this many before the cache may start afresh.
const KEPT_MIN: usize = 1 << 16;

/// The hash was keyed per process by the decoder; the tenant is mixed in so that equal bytes of
/// two tenants stay apart.
fn key(tenant: TenantNumber, hash: u128) -> [u32; 4] {
    let mixed = hash ^ u128::from(tenant).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    [mixed as u32, (mixed >> 32) as u32, (mixed >> 64) as u32, (mixed >> 96) as u32]
}

fn bucket(hash: &[u32; 4]) -> u64 {
    u64::from(hash[0]) | u64::from(hash[1]) << 32
}

impl Aliases {
    #[inline]
    pub fn resolve(&self, tenant: TenantNumber, hash: u128) -> Option<SeriesRow> {
        let key = key(tenant, hash);
        self.table.find(bucket(&key), |alias| alias.hash == key).map(|alias| alias.row)
    }

    /// Every sender may order labels its own way, so a row can have several aliases; past four a
    /// row on average the cache starts afresh.
    pub fn remember(&mut self, tenant: TenantNumber, hash: u128, row: SeriesRow, row_count: usize) {
        if self.table.len() >= KEPT_MIN.max(row_count * 4) {
            self.table.clear();
        }
        let key = key(tenant, hash);
        let same = |alias: &Alias| alias.hash == key;
        match self.table.find_mut(bucket(&key), same) {
            Some(alias) => alias.row = row,
            None => {
                let alias = Alias { hash: key, row };
                self.table.insert_unique(bucket(&key), alias, |alias| bucket(&alias.hash));
            }
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.table.allocation_size()
    }
}
