//! What decoders share between requests: the seed of label hashes, the label hashes already found
//! valid, and spent buffers.
//!
//! Invariant: nothing here changes what a body decodes to, only how fast; the cache holds a hash
//! only if labels with that very hash passed validation in this process.

use crate::model::Batch;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Slots of the cache of valid label hashes: 8 bytes each, direct-mapped.
const KNOWN_SLOTS: usize = 1 << 20;
/// Spent buffers kept for the next requests, and the size past which one is not worth keeping.
const BUFFERS_MAX: usize = 8;
const BUFFER_BYTES_MAX: usize = 4 << 20;

type Secret = [u8; 192];

/// Remote write 1.0 hashes labels as sent, the other doors hash canonical bytes. Two secrets, so
/// that equal bytes with different meanings never share a hash.
pub struct Decoder {
    raw_secret: Secret,
    canonical_secret: Secret,
    known: Box<[AtomicU64]>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Decoder {
    /// `seed` must be unpredictable to clients: it keeps them from constructing collisions.
    pub fn new(seed: u64) -> Decoder {
        Decoder {
            raw_secret: secret(seed ^ 0x7261_7700_0000_0001),
            canonical_secret: secret(seed ^ 0x6361_6e00_0000_0002),
            known: (0..KNOWN_SLOTS).map(|_| AtomicU64::new(0)).collect(),
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

    /// Did labels with this hash pass validation before? A slot holds the half of the hash that
    /// did not choose the slot.
    #[inline]
    pub(super) fn is_known(&self, hash: u128) -> bool {
        self.slot(hash).load(Ordering::Relaxed) == (hash >> 64) as u64
    }

    pub(super) fn remember(&self, hash: u128) {
        self.slot(hash).store((hash >> 64) as u64, Ordering::Relaxed);
    }

    #[inline]
    fn slot(&self, hash: u128) -> &AtomicU64 {
        &self.known[hash as usize & (KNOWN_SLOTS - 1)]
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
