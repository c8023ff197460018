//! The window of batch keys already applied: a retried batch is journaled again and dropped here.
//!
//! Invariant: after the same records in the same order the window is the same, so a replay drops
//! exactly what was dropped before. Age is judged by records' `received_ms`, never by a clock.

use hashbrown::HashTable;
use std::collections::VecDeque;

pub const DEDUP_AGE_MS: i64 = 3_600_000;
pub const DEDUP_KEYS_MAX: usize = 1_000_000;
/// `received_ms i64, key u128` in a state file.
const ENTRY_BYTES: usize = 24;

#[derive(Clone, Copy)]
struct Entry {
    received_ms: i64,
    key: u128,
}

/// Keys in the order applied, and a table of their positions: 34 MB at a million keys.
pub struct DedupWindow {
    entries: VecDeque<Entry>,
    /// Position of `entries[0]` since the beginning of time, modulo 2^32.
    base: u32,
    positions: HashTable<u32>,
    keys_max: usize,
    /// Keys added since the last state file, counted from the back of `entries`.
    unsaved: usize,
}

fn hash_of(key: u128) -> u64 {
    (key as u64) ^ ((key >> 64) as u64)
}

impl DedupWindow {
    pub fn new(keys_max: usize) -> DedupWindow {
        DedupWindow {
            entries: VecDeque::new(),
            base: 0,
            positions: HashTable::new(),
            keys_max: keys_max.clamp(1, 1 << 30),
            unsaved: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Was a batch with this key applied within the window? Key 0 means "no key": never seen.
    pub fn seen(&self, key: u128, received_ms: i64) -> bool {
        if key == 0 {
            return false;
        }
        let (entries, base) = (&self.entries, self.base);
        let at = |position: u32| position.wrapping_sub(base) as usize;
        self.positions.find(hash_of(key), |&position| entries[at(position)].key == key).is_some_and(
            |&p| received_ms.saturating_sub(entries[at(p)].received_ms) <= DEDUP_AGE_MS,
        )
    }

    /// Remember an applied batch, and forget what is too old or too many.
    pub fn remember(&mut self, key: u128, received_ms: i64) {
        if key == 0 {
            return;
        }
        while self.entries.len() >= self.keys_max
            || self
                .entries
                .front()
                .is_some_and(|e| received_ms.saturating_sub(e.received_ms) > DEDUP_AGE_MS)
        {
            self.forget_oldest();
        }
        let position = self.base.wrapping_add(self.entries.len() as u32);
        self.entries.push_back(Entry { received_ms, key });
        let (entries, base) = (&self.entries, self.base);
        self.positions.insert_unique(hash_of(key), position, |&p| {
            hash_of(entries[p.wrapping_sub(base) as usize].key)
        });
        self.unsaved += 1;
    }

    fn forget_oldest(&mut self) {
        let base = self.base;
        if let Some(oldest) = self.entries.front() {
            if let Ok(found) = self.positions.find_entry(hash_of(oldest.key), |&p| p == base) {
                found.remove();
            }
            self.entries.pop_front();
            self.base = base.wrapping_add(1);
            self.unsaved = self.unsaved.min(self.entries.len());
        }
    }

    /// The section of a state file: keys since the last one, or the whole window.
    pub fn encode(&mut self, whole: bool) -> Vec<u8> {
        let count = if whole { self.entries.len() } else { self.unsaved };
        let mut bytes = Vec::with_capacity(count * ENTRY_BYTES);
        for entry in self.entries.range(self.entries.len() - count..) {
            bytes.extend_from_slice(&entry.received_ms.to_le_bytes());
            bytes.extend_from_slice(&entry.key.to_le_bytes());
        }
        self.unsaved = 0;
        bytes
    }

    /// Load a section; false where it is not a whole number of entries.
    pub fn apply(&mut self, bytes: &[u8]) -> bool {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        for entry in entries {
            let (mut received, mut key) = ([0; 8], [0; 16]);
            received.copy_from_slice(&entry[..8]);
            key.copy_from_slice(&entry[8..]);
            self.remember(u128::from_le_bytes(key), i64::from_le_bytes(received));
        }
        self.unsaved = 0;
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_a_retry_within_the_window_only() {
        let mut window = DedupWindow::new(10);
        window.remember(7, 1_000);
        assert!(window.seen(7, 1_000 + DEDUP_AGE_MS));
        assert!(!window.seen(7, 1_001 + DEDUP_AGE_MS));
        assert!(!window.seen(8, 1_000));
        window.remember(0, 1_000);
        assert!(!window.seen(0, 1_000));
    }

    #[test]
    fn keeps_the_newest_keys_and_survives_a_state_file() {
        let mut window = DedupWindow::new(100);
        for key in 1..=250_u128 {
            window.remember(key << 64 | key, 5);
        }
        assert_eq!(window.len(), 100);
        let seen = |w: &DedupWindow| (1..=250_u128).filter(|k| w.seen(k << 64 | k, 5)).count();
        assert_eq!(seen(&window), 100);
        let whole = window.encode(true);
        window.remember(999, 6);
        let delta = window.encode(false);
        assert_eq!(delta.len(), ENTRY_BYTES);
        let mut loaded = DedupWindow::new(100);
        assert!(loaded.apply(&whole) && loaded.apply(&delta) && !loaded.apply(&[1, 2]));
        assert_eq!(seen(&loaded), 99);
        assert!(loaded.seen(999, 6));
    }
}
