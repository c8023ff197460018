//! What decoders share between requests: the seed of label hashes, the label hashes already found
//! valid, and spent buffers.
//!
//! Invariant: nothing here changes what a body decodes to, only how fast; the cache holds a hash
//! only if labels with that very hash passed validation in this process.

use crate::model::Batch;
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Slots, of 8 bytes, of the caches of valid label hashes: each is used until it is too small.
const KNOWN_SLOTS: [usize; 3] = [1 << 16, 1 << 19, 1 << 22];
/// A hash may stand in any slot of its set, half a cache line: scrapes come round in one order, and
/// of two hashes that share one slot neither would ever be found.
const SET_SLOTS: usize = 4;
/// Spent buffers kept for the next requests, and the size past which one is not worth keeping.
const BUFFERS_MAX: usize = 16;
const BUFFER_BYTES_MAX: usize = 4 << 20;

type Secret = [u8; 192];

/// Remote write 1.0 hashes labels as sent, the other doors hash canonical bytes. Two secrets, so
/// that equal bytes with different meanings never share a hash.
pub struct Decoder {
    raw_secret: Secret,
    canonical_secret: Secret,
    known: [Known; KNOWN_SLOTS.len()],
    /// The cache in use.
    known_at: AtomicUsize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Decoder {
    /// `seed` must be unpredictable to clients: it keeps them from constructing collisions.
    pub fn new(seed: u64) -> Decoder {
        Decoder {
            raw_secret: secret(seed ^ 0x7261_7700_0000_0001),
            canonical_secret: secret(seed ^ 0x6361_6e00_0000_0002),
            known: std::array::from_fn(|_| Known::default()),
            known_at: AtomicUsize::new(0),
            buffers: Mutex::new(Vec::new()),
        }
    }

    /// Take a spent batch's buffer back: the next request decodes into warm memory.
    pub fn recycle(&self, batch: Batch) {
        self.give_buffer(batch.label_bytes);
    }

    pub(super) fn give_buffer(&self, mut buffer: Vec<u8>) {
        if (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            let mut buffers = self.buffers.lock();
            if buffers.len() < BUFFERS_MAX {
                buffers.push(buffer);
            }
        }
    }

    pub(super) fn take_buffer(&self) -> Vec<u8> {
        self.buffers.lock().pop().unwrap_or_default()
    }

    #[inline]
    pub(super) fn hash_raw(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, &self.raw_secret)
    }

    #[inline]
    pub(super) fn hash_canonical(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, &self.canonical_secret)
    }

    /// Did labels with this hash pass validation before?
    #[inline]
    pub(super) fn is_known(&self, hash: u128) -> bool {
        let at = self.known_at.load(Ordering::Relaxed);
        let tag = (hash >> 64) as u64;
        self.known[at].set(at, hash).iter().any(|slot| slot.load(Ordering::Relaxed) == tag)
    }

    pub(super) fn remember(&self, hash: u128) {
        let at = self.known_at.load(Ordering::Relaxed);
        if self.known[at].remember(at, hash) && at + 1 < KNOWN_SLOTS.len() {
            self.known_at.fetch_max(at + 1, Ordering::Relaxed);
        }
    }
}

/// A cache of one size. Made when it is first used: most servers stay with the small one.
#[derive(Default)]
struct Known {
    slots: OnceLock<Box<[AtomicU64]>>,
    /// Hashes that made room for others.
    displaced: AtomicUsize,
}

impl Known {
    /// The slots where a hash may stand: they hold the half that did not choose them.
    #[inline]
    fn set(&self, size: usize, hash: u128) -> &[AtomicU64] {
        let count = KNOWN_SLOTS[size];
        let slots = self.slots.get_or_init(|| (0..count).map(|_| AtomicU64::new(0)).collect());
        let first = hash as usize & (count - 1) & !(SET_SLOTS - 1);
        &slots[first..first + SET_SLOTS]
    }

    /// True when so many were displaced that a larger cache is worth its memory.
    fn remember(&self, size: usize, hash: u128) -> bool {
        let set = self.set(size, hash);
        let empty = set.iter().find(|slot| slot.load(Ordering::Relaxed) == 0);
        let displaces = empty.is_none();
        let slot = empty.unwrap_or(&set[hash as usize & (SET_SLOTS - 1)]);
        slot.store((hash >> 64) as u64, Ordering::Relaxed);
        let before = self.displaced.fetch_add(usize::from(displaces), Ordering::Relaxed);
        before > KNOWN_SLOTS[size] / 8
    }
}

/// 192 bytes from a seed by splitmix64.
fn secret(seed: u64) -> Secret {
    let mut state = seed;
    let mut out = [0; 192];
    for chunk in out.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ z >> 31).to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_label_sets_stay_known() {
        let decoder = Decoder::new(7);
        let hash = |i: u64| decoder.hash_raw(&i.to_le_bytes());
        assert!(!decoder.is_known(hash(0)));
        for _ in 0..2 {
            (0..1_000_000)
                .map(hash)
                .filter(|&h| !decoder.is_known(h))
                .for_each(|h| decoder.remember(h));
        }
        let known = (0..1_000_000).filter(|&i| decoder.is_known(hash(i))).count();
        assert!(known > 970_000, "{known}");
        assert!(!(2_000_000..3_000_000).any(|i| decoder.is_known(hash(i))));
    }
}
