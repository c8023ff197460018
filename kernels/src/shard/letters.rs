//! Dead letters: refused points framed in memory, and the file that a seal writes of them.
//!
//! Invariant: what is framed here left the batch in the same `apply`, and reaches the disk with the
//! same seal; the frames are a function of the records alone. docs/formats/deadletters.md has the
//! bytes.

use super::budget::Action;
use super::registry_bytes::Output;
use crate::disk::Disk;
use crate::error::Result;
use crate::model::{Batch, HistogramPoint};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const MAGIC: &[u8; 8] = b"SLWLETTR";
pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = 36;
pub(super) const CHUNK_HEADER_BYTES: usize = 42;
const CHUNK_BYTES: usize = 256 << 10;
/// All chunks that are still open.
const OPEN_BYTES_MAX: usize = 4 << 20;
/// Letters repeat each other: the fastest level takes most of it.
const ZSTD_LEVEL: i32 = 1;

/// Which limit a series was past, or why it could not be folded. Codes are the format's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum LetterReason {
    ActiveSeries = 1,
    NewSeriesPerHour = 2,
    FoldFull = 3,
    FoldLate = 4,
    FoldHistogram = 5,
}

/// Points of one refused series of one record.
pub struct Letter<'a> {
    pub received_ms: i64,
    pub sequence: u64,
    pub policy_version: u32,
    pub reason: LetterReason,
    pub action: Action,
    pub budget: &'a str,
    /// Canonical.
    pub labels: &'a [u8],
    /// (time, value).
    pub floats: &'a [(i64, f64)],
    pub histograms: &'a [&'a HistogramPoint],
}

/// Frame a letter into `out`; `batch` holds the histograms' bytes.
pub fn frame(letter: &Letter, batch: &Batch, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    let mut body = Output(std::mem::take(scratch));
    body.0.clear();
    body.signed(letter.received_ms);
    body.number(letter.sequence);
    body.number(u64::from(letter.policy_version));
    body.0.extend_from_slice(&[letter.reason as u8, letter.action as u8]);
    body.text(letter.budget);
    body.sized(letter.labels);
    body.number(letter.floats.len() as u64);
    let mut before = 0_i64;
    for &(time_ms, value) in letter.floats {
        body.signed(time_ms.wrapping_sub(before));
        body.0.extend_from_slice(&value.to_bits().to_le_bytes());
        before = time_ms;
    }
    body.number(letter.histograms.len() as u64);
    before = 0;
    for histogram in letter.histograms {
        body.signed(histogram.time_ms.wrapping_sub(before));
        let range = histogram.start as usize..histogram.end as usize;
        body.sized(&batch.histogram_bytes[range]);
        before = histogram.time_ms;
    }
    let mut framed = Output(std::mem::take(out));
    framed.0.clear();
    framed.sized(&body.0);
    (*scratch, *out) = (body.0, framed.0);
}

/// Letters of one tenant, in the order applied.
#[derive(Clone, Default)]
struct Chunk {
    bytes: Vec<u8>,
    letters: u32,
    points: u64,
    first_received_ms: i64,
    last_received_ms: i64,
}

/// Letters since the last freeze.
#[derive(Default)]
pub struct Letters {
    open: BTreeMap<String, Chunk>,
    open_bytes: usize,
    /// Chunks as the file has them.
    closed: Vec<u8>,
    chunks: u32,
    pub letters: u64,
    pub points: u64,
    first_received_ms: i64,
    last_received_ms: i64,
}

/// A finished file, as the seal reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersMeta {
    pub path: String,
    pub bytes: u64,
    pub crc32: u32,
    pub letters: u64,
    pub points: u64,
    pub first_received_ms: i64,
    pub last_received_ms: i64,
}

impl Letters {
    /// Take a framed letter.
    pub fn push(&mut self, tenant: &str, framed: &[u8], points: u64, received_ms: i64) {
        if self.letters == 0 {
            (self.first_received_ms, self.last_received_ms) = (received_ms, received_ms);
        }
        self.first_received_ms = self.first_received_ms.min(received_ms);
        self.last_received_ms = self.last_received_ms.max(received_ms);
        self.letters += 1;
        self.points += points;
        self.open_bytes += framed.len();
        if !self.open.contains_key(tenant) {
            let times = Chunk {
                first_received_ms: received_ms,
                last_received_ms: received_ms,
                ..Chunk::default()
            };
            self.open.insert(tenant.to_owned(), times);
        }
        let mut full = false;
        if let Some(chunk) = self.open.get_mut(tenant) {
            chunk.bytes.extend_from_slice(framed);
            chunk.letters += 1;
            chunk.points += points;
            chunk.first_received_ms = chunk.first_received_ms.min(received_ms);
            chunk.last_received_ms = chunk.last_received_ms.max(received_ms);
            full = chunk.bytes.len() >= CHUNK_BYTES;
        }
        if self.open_bytes >= OPEN_BYTES_MAX {
            for (tenant, chunk) in std::mem::take(&mut self.open) {
                self.close(&tenant, &chunk);
            }
        } else if full && let Some(chunk) = self.open.remove(tenant) {
            self.close(tenant, &chunk);
        }
    }

    fn close(&mut self, tenant: &str, chunk: &Chunk) {
        self.open_bytes -= chunk.bytes.len();
        self.chunks += 1;
        encode_chunk(tenant, chunk, &mut self.closed);
    }

    /// Write the file, durable but for its directory entry.
    pub fn write(
        &self,
        disk: &dyn Disk,
        path: &str,
        first_sequence: u64,
        next_sequence: u64,
    ) -> Result<LettersMeta> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.closed.len() + 4096);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&(self.chunks + self.open.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&first_sequence.to_le_bytes());
        bytes.extend_from_slice(&next_sequence.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&self.closed);
        for (tenant, chunk) in &self.open {
            encode_chunk(tenant, chunk, &mut bytes);
        }
        let file = disk.create(path)?;
        file.write_at(0, &bytes)?;
        file.sync_data()?;
        Ok(LettersMeta {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            crc32: crc32fast::hash(&bytes),
            letters: self.letters,
            points: self.points,
            first_received_ms: self.first_received_ms,
            last_received_ms: self.last_received_ms,
        })
    }

    pub fn memory_bytes(&self) -> usize {
        self.closed.capacity() + self.open_bytes
    }
}

fn encode_chunk(tenant: &str, chunk: &Chunk, out: &mut Vec<u8>) {
    let stored = zstd::bulk::compress(&chunk.bytes, ZSTD_LEVEL).expect("zstd takes all bytes");
    let start = out.len();
    out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    out.extend_from_slice(&(chunk.bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&chunk.letters.to_le_bytes());
    out.extend_from_slice(&chunk.points.to_le_bytes());
    out.extend_from_slice(&chunk.first_received_ms.to_le_bytes());
    out.extend_from_slice(&chunk.last_received_ms.to_le_bytes());
    out.extend_from_slice(&(tenant.len() as u16).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&stored).to_le_bytes());
    out.extend_from_slice(tenant.as_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&stored);
}
