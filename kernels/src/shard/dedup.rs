//! The window of batch keys already applied: a retried batch is journaled again and dropped here.
//!
//! Invariant: after the same records in the same order the window is the same, so a replay drops
//! exactly what was dropped before. Age is judged by records' `received_ms`, never by a clock. A
//! full window forgets the oldest key of the tenant that holds the most: who holds less than an
//! equal share loses none to another.

use super::dedup_shares::{NONE, Shares};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

pub const DEDUP_AGE_MS: i64 = 3_600_000;
pub const DEDUP_KEYS_MAX: usize = 1_000_000;
/// `received_ms i64, key u128` in a state file without tenants.
const NAMELESS_BYTES: usize = 24;
/// `received_ms i64, key u128, tenant u64`.
const ENTRY_BYTES: usize = 32;
/// `tenant u64, keys u32`.
const SHARE_BYTES: usize = 12;
/// Whose the keys of a state file without tenants are.
const NOBODY: u64 = 0;

#[derive(Clone, Copy)]
struct Entry {
    received_ms: i64,
    key: [u64; 2],
    share: u32,
    /// The next newer key of the same tenant.
    share_next: u32,
    older: u32,
    newer: u32,
    /// In a state file already. The unsaved are the newest: they are a suffix of the order.
    saved: bool,
}

/// Keys in the order applied, each also in its tenant's list, and a table of where they are: 57 MB
/// at a million keys.
pub struct DedupWindow {
    entries: Vec<Entry>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    positions: HashTable<u32>,
    shares: Shares,
    keys_max: usize,
}

fn hash_of(key: [u64; 2]) -> u64 {
    key[0] ^ key[1]
}

fn halves(key: u128) -> [u64; 2] {
    [key as u64, (key >> 64) as u64]
}

/// Whose share a key is of. Two names of one hash would share a share, and nothing else.
fn share_id(tenant: &str) -> u64 {
    xxh3_64(tenant.as_bytes()).max(1)
}

impl DedupWindow {
    pub fn new(keys_max: usize) -> DedupWindow {
        DedupWindow {
            entries: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            positions: HashTable::new(),
            shares: Shares::default(),
            keys_max: keys_max.clamp(1, 1 << 30),
        }
    }

    pub fn len(&self) -> usize {
        self.positions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Was a batch with this key applied within the window? Key 0 means "no key": never seen. The
    /// key has the tenant in it (owner.rs).
    pub fn seen(&self, key: u128, received_ms: i64) -> bool {
        let key = halves(key);
        let young = |entry: &Entry| received_ms.saturating_sub(entry.received_ms) <= DEDUP_AGE_MS;
        let entry = |at: u32| &self.entries[at as usize];
        self.positions.find(hash_of(key), |&at| entry(at).key == key && young(entry(at))).is_some()
    }

    /// Remember an applied batch, and forget what is too old or too many.
    pub fn remember(&mut self, tenant: &str, key: u128, received_ms: i64) {
        self.remember_as(share_id(tenant), key, received_ms);
    }

    fn remember_as(&mut self, share: u64, key: u128, received_ms: i64) {
        if key == 0 {
            return;
        }
        while let Some(oldest) = self.entries.get(self.oldest as usize)
            && received_ms.saturating_sub(oldest.received_ms) > DEDUP_AGE_MS
        {
            // By age the oldest of all is the oldest of its tenant.
            self.forget_oldest_of(oldest.share);
        }
        while self.len() >= self.keys_max
            && let Some(largest) = self.shares.largest()
        {
            self.forget_oldest_of(largest);
        }
        self.append(share, halves(key), received_ms, false);
    }

    fn append(&mut self, share: u64, key: [u64; 2], received_ms: i64, saved: bool) {
        let at = self.free.pop().unwrap_or(self.entries.len() as u32);
        let share = self.shares.slot(share);
        let (older, newer, share_next) = (self.newest, NONE, NONE);
        let entry = Entry { received_ms, key, share, share_next, older, newer, saved };
        if at as usize == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[at as usize] = entry;
        }
        let before = self.shares.push(share, at);
        if before != NONE {
            self.entries[before as usize].share_next = at;
        }
        self.newest = at;
        match older {
            NONE => self.oldest = at,
            older => self.entries[older as usize].newer = at,
        }
        let entries = &self.entries;
        self.positions.insert_unique(hash_of(key), at, |&p| hash_of(entries[p as usize].key));
    }

    fn forget_oldest_of(&mut self, share: u32) {
        let at = self.shares.get(share).oldest;
        let Entry { key, share_next, older, newer, .. } = self.entries[at as usize];
        if let Ok(found) = self.positions.find_entry(hash_of(key), |&p| p == at) {
            found.remove();
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        self.shares.pop(share, share_next);
        self.free.push(at);
    }

    /// The section of a state file: keys since the last one, or the whole window; before them, how
    /// many keys each tenant holds.
    pub fn encode(&mut self, whole: bool) -> Vec<u8> {
        let mut taken = Vec::new();
        let mut at = self.newest;
        while let Some(entry) = self.entries.get_mut(at as usize)
            && (whole || !entry.saved)
        {
            entry.saved = true;
            taken.push(at);
            at = entry.older;
        }
        let shares_bytes = self.shares.len() * SHARE_BYTES;
        let mut bytes = Vec::with_capacity(4 + shares_bytes + taken.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&(self.shares.len() as u32).to_le_bytes());
        let mut held: Vec<(u64, u32)> = self.shares.iter().map(|s| (s.id, s.keys)).collect();
        held.sort_unstable();
        for (id, keys) in held {
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&keys.to_le_bytes());
        }
        for &at in taken.iter().rev() {
            let entry = &self.entries[at as usize];
            bytes.extend_from_slice(&entry.received_ms.to_le_bytes());
            bytes.extend_from_slice(&entry.key[0].to_le_bytes());
            bytes.extend_from_slice(&entry.key[1].to_le_bytes());
            bytes.extend_from_slice(&self.shares.get(entry.share).id.to_le_bytes());
        }
        bytes
    }

    /// Load a section; false where it is not what `encode` writes. Keys that were forgotten since
    /// the file before are the oldest of their tenants: the counts tell how many.
    pub fn apply(&mut self, bytes: &[u8]) -> bool {
        let Some((count, rest)) = bytes.split_first_chunk::<4>() else { return false };
        let shares_bytes = u32::from_le_bytes(*count) as usize * SHARE_BYTES;
        let Some((held, entries)) = rest.split_at_checked(shares_bytes) else { return false };
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        for entry in entries {
            let key = [u64_at(entry, 8), u64_at(entry, 16)];
            self.append(u64_at(entry, 24), key, u64_at(entry, 0) as i64, true);
        }
        let (held, _) = held.as_chunks::<SHARE_BYTES>();
        let mut held: Vec<(u64, u32)> =
            held.iter().map(|share| (u64_at(share, 0), (u64_at(share, 4) >> 32) as u32)).collect();
        held.sort_unstable();
        let shares: Vec<(u64, u32)> = self.shares.iter().map(|s| (s.id, s.keys)).collect();
        let mut whole = rest.is_empty() && shares.len() >= held.len();
        for (id, keys) in shares {
            let at = held.binary_search_by_key(&id, |&(id, _)| id);
            let keep = at.map_or(0, |at| held[at].1);
            whole &= keep <= keys;
            for _ in keep..keys {
                if let Some(share) = self.shares.find(id) {
                    self.forget_oldest_of(share);
                }
            }
        }
        whole
    }

    /// Load a section of a file from before tenants had shares.
    pub fn apply_nameless(&mut self, bytes: &[u8]) -> bool {
        let (entries, rest) = bytes.as_chunks::<NAMELESS_BYTES>();
        for entry in entries {
            let key = u128::from(u64_at(entry, 8)) | u128::from(u64_at(entry, 16)) << 64;
            self.remember_as(NOBODY, key, u64_at(entry, 0) as i64);
        }
        let mut at = self.newest;
        while let Some(entry) = self.entries.get_mut(at as usize) {
            entry.saved = true;
            at = entry.older;
        }
        rest.is_empty()
    }
}

/// Eight bytes at `at`, of which all must be there.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
#[path = "dedup_tests.rs"]
mod tests;
