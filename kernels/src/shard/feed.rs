//! Records that somebody else's log keeps: fed in by offset, applied like the journal's own
//! (docs/formats/kafka.md).
//!
//! Invariant: offsets are taken in order, each once; what is missing between two of them is counted
//! as lost at its place. A record that breaks a rule is taken by nobody: whoever feeds parks it.

use super::intake::Decoded;
use super::owner::Shard;
use crate::error::{KernelError, Result};
use crate::journal::Gap;
use crate::journal::record::{RecordHeader, payload_is_sound};
use crate::model::{Batch, PayloadEncoding, PayloadFormat, Signal};
use crate::wire::{self, Decoder};
use std::time::Duration;

/// What became of a feed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Records from the first on that need not come again.
    pub taken: usize,
    /// Why the next one is poison.
    pub poison: Option<String>,
}

impl Shard {
    /// Instead of `open_journal`: records come by `feed`, from `next_sequence` on.
    pub fn open_feed(&self, next_sequence: u64) {
        let mut applier = self.applier.lock();
        (applier.next_sequence, applier.frozen_sequence) = (next_sequence, next_sequence);
        drop(applier);
        self.inbox.open_feed(next_sequence);
    }

    /// Take records (offset, value) of `partition`, ascending, to be judged by `policy_version`, or
    /// by the one that each names where it is None. Waits at most `wait` for room; comes back early
    /// before a record that is poison.
    pub fn feed(
        &self,
        partition: u16,
        records: &[(u64, &[u8])],
        wait: Duration,
        policy_version: Option<u32>,
    ) -> Fed {
        for (taken, &(offset, value)) in records.iter().enumerate() {
            if offset < self.inbox.fed_next() {
                continue;
            }
            if !self.inbox.wait_for_room(wait) {
                return Fed { taken, poison: None };
            }
            match read_slice(&self.decoder, partition, value) {
                Err(error) => return Fed { taken, poison: Some(error.to_string()) },
                Ok((mut header, decoded)) => {
                    self.skip(offset);
                    header.sequence = offset;
                    header.policy_version = policy_version.unwrap_or(header.policy_version);
                    self.inbox.push_fed(header, decoded);
                }
            }
        }
        Fed { taken: records.len(), poison: None }
    }

    /// Records before `next` that were not fed never will be.
    pub fn skip(&self, next: u64) {
        let first = self.inbox.fed_next();
        if first < next {
            let gap = Gap { first, next, durable_before: next, bytes: 0, headers: Vec::new() };
            self.applier.lock().gaps.push(gap);
            self.inbox.skip_fed(next);
        }
    }

    /// Somebody was told that records before `next` are durable: queries wait for them.
    pub fn note_durable(&self, next: u64) {
        self.inbox.note_durable(next);
    }
}

/// A record's header and batch. Errors: `Corruption`, where it breaks a rule of the format.
pub fn read_slice(
    decoder: &Decoder,
    partition: u16,
    value: &[u8],
) -> Result<(RecordHeader, Decoded)> {
    let poison = |what: &str| KernelError::corruption(format!("record: {what}"));
    let parsed = RecordHeader::parse(0, value).ok_or_else(|| poison("no sound header"))?;
    let header = parsed.header;
    let payload = &value[parsed.header_bytes..];
    if payload.len() != parsed.payload_bytes || !payload_is_sound(payload, parsed.payload_crc) {
        return Err(poison("the payload is not what was written"));
    }
    if header.partition != partition {
        return Err(poison("made for another partition"));
    }
    let columns = header.format == PayloadFormat::Columns as u8
        && header.encoding == PayloadEncoding::Identity as u8
        && header.signal == Signal::Metrics as u8;
    if !columns || header.dedup_key == 0 {
        return Err(poison("not a slice of metrics"));
    }
    let mut batch = match payload {
        [] => Batch::default(),
        payload => wire::columns::decode(payload, decoder)?,
    };
    let rejected: u64 = header.points_rejected.iter().map(|&count| u64::from(count)).sum();
    if batch.points_good() as u64 + rejected != u64::from(header.points_received) {
        return Err(poison("its counts do not add up"));
    }
    batch.points_received = header.points_received;
    batch.points_rejected = header.points_rejected;
    Ok((header, Decoded { batch, payload_bytes: payload.len(), undecodable: false }))
}
