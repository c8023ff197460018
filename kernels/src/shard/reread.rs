//! Reading back: durable records that memory does not hold, in a replay or after a burst.
//!
//! They come in chunks, and while one is applied a helper thread reads and decodes the next.
//! Invariant: records are handed out in sequence, each once, whichever thread decoded them; a chunk
//! begins where the one before it ends, so what the helper has read is always wanted.

use super::horizon::refuse_old;
use super::intake::{Decoded, Next};
use super::owner::Shard;
use crate::error::{KernelError, Result};
use crate::journal::record::RecordHeader;
use crate::journal::{Gap, Journal};
use crate::model::{Batch, PayloadEncoding, PayloadFormat};
use crate::wire::{self, Decoder};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Read from the journal at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Decoded ahead of the applier; what is left of the chunk it decodes itself.
const DECODED_BYTES_MAX: usize = 16 << 20;

#[derive(Default)]
pub struct Reread {
    records: VecDeque<(RecordHeader, Body)>,
    ahead: Option<Ahead>,
}

/// A record's payload, or what it holds: nearly always that, so it is not boxed.
#[allow(clippy::large_enum_variant)]
enum Body {
    Encoded(Vec<u8>),
    Decoded(Decoded),
}

/// The chunk that a helper prepares.
struct Ahead {
    from: u64,
    chunk: JoinHandle<Result<Chunk>>,
}

#[derive(Default)]
struct Chunk {
    records: VecDeque<(RecordHeader, Body)>,
    next_sequence: u64,
    gaps: Vec<Gap>,
}

impl Shard {
    /// The record to apply next; waits at most `wait` for one to become durable.
    pub(super) fn next_record(&self, wait: Duration) -> Result<Option<(RecordHeader, Decoded)>> {
        loop {
            let mut applier = self.applier.lock();
            if let Some((header, body)) = applier.reread.records.pop_front() {
                drop(applier);
                let decoded = match body {
                    Body::Decoded(decoded) => decoded,
                    Body::Encoded(payload) => decode_again(&self.decoder, &header, &payload),
                };
                return Ok(Some((header, decoded)));
            }
            let next = applier.next_sequence;
            drop(applier);
            let until = match self.inbox.next(next, wait) {
                Next::Decoded(header, decoded) => return Ok(Some((header, decoded))),
                Next::Nothing => return Ok(None),
                Next::Skipped(until) => {
                    let mut applier = self.applier.lock();
                    applier.next_sequence = until;
                    applier.count_lost();
                    drop(applier);
                    self.applied.set(until);
                    continue;
                }
                Next::Journal(until) => until,
            };
            let Chunk { mut records, next_sequence, gaps } = self.next_chunk(next, until)?;
            records.retain(|(header, _)| (next..until).contains(&header.sequence));
            let mut applier = self.applier.lock();
            // What memory holds from `until` on is applied from there, whatever the disk says.
            applier.gaps.extend(gaps.into_iter().filter_map(|gap| gap.within(next, until)));
            if records.is_empty() {
                applier.next_sequence = next_sequence.clamp(next + 1, until);
                applier.count_lost();
            }
            applier.reread.records = records;
        }
    }

    /// The chunk at `next`: the helper's, or read now; and have the helper begin the one after it.
    fn next_chunk(&self, next: u64, until: u64) -> Result<Chunk> {
        let journal = self.journal()?;
        let ahead = self.applier.lock().reread.ahead.take();
        let chunk = match ahead {
            Some(ahead) => {
                let mut chunk = ahead.chunk.join().unwrap_or_else(|_| {
                    Err(KernelError::Backend("reading ahead panicked".to_owned()))
                })?;
                if ahead.from != next {
                    let gaps = std::mem::take(&mut chunk.gaps);
                    chunk = read_chunk(journal, next)?;
                    chunk.gaps.extend(gaps);
                }
                chunk
            }
            None => read_chunk(journal, next)?,
        };
        let from = chunk.next_sequence;
        if from > next && from < until {
            let (journal, decoder) = (Arc::clone(journal), Arc::clone(&self.decoder));
            let helper = std::thread::Builder::new().name("read-ahead".to_owned());
            // Where no thread is to be had, the next chunk is read when its turn comes.
            let spawned = helper.spawn(move || {
                let mut chunk = read_chunk(&journal, from)?;
                decode_chunk(&mut chunk, &decoder);
                Ok(chunk)
            });
            let ahead = spawned.ok().map(|chunk| Ahead { from, chunk });
            self.applier.lock().reread.ahead = ahead;
        }
        Ok(chunk)
    }
}

fn read_chunk(journal: &Journal<Decoded>, from: u64) -> Result<Chunk> {
    let read = journal.read(from, CHUNK_BYTES)?;
    let encoded = |(header, payload)| (header, Body::Encoded(payload));
    Ok(Chunk {
        records: read.records.into_iter().map(encoded).collect(),
        next_sequence: read.next_sequence,
        gaps: journal.take_gaps(),
    })
}

fn decode_chunk(chunk: &mut Chunk, decoder: &Decoder) {
    let mut bytes = 0;
    for (header, body) in &mut chunk.records {
        if bytes >= DECODED_BYTES_MAX {
            return;
        }
        if let Body::Encoded(payload) = body {
            let decoded = decode_again(decoder, header, payload);
            bytes += decoded.batch.memory_bytes();
            *body = Body::Decoded(decoded);
        }
    }
}

/// A record's batch out of the journal. One that cannot be decoded (it could when it was acked)
/// must not stop the shard: it is applied as rejected, and counted.
pub(super) fn decode_again(decoder: &Decoder, header: &RecordHeader, payload: &[u8]) -> Decoded {
    let payload_bytes = payload.len();
    if payload.is_empty() {
        return Decoded { batch: Batch::default(), payload_bytes, undecodable: false };
    }
    // All of it was good, by today's rules: its labels need not be judged again.
    let judged = header.points_rejected.iter().all(|&rejected| rejected == 0)
        && header.decoder_version == wire::DECODER_VERSION;
    let format = PayloadFormat::from_u8(header.format);
    let batch = format.zip(PayloadEncoding::from_u8(header.encoding)).and_then(|(f, e)| {
        wire::decode_judged(payload, f, e, header.received_ms, decoder, judged).ok()
    });
    let batch = batch.map(|mut batch| {
        refuse_old(&mut batch, header.received_ms, header.age_days);
        batch
    });
    let undecodable = batch.is_none();
    Decoded { batch: batch.unwrap_or_default(), payload_bytes, undecodable }
}
