//! Which segments there are, in order, and what of them is durable.
//!
//! Invariant: first sequences never fall from one segment to the next; where one begins, what the
//! one before it still holds ends.

use super::segment::SegmentName;
use crate::disk::DiskFile;
use std::ops::Range;
use std::sync::Arc;

pub struct Segment {
    pub name: SegmentName,
    pub file: Arc<dyn DiskFile>,
    /// Every sequence below was durable when the segment was made. None: nobody said.
    pub durable_before: Option<u64>,
    /// Bytes that hold durable records end here.
    pub end: u64,
    pub damaged: bool,
}

#[derive(Default)]
pub struct Listed {
    pub segments: Vec<Segment>,
    /// Every sequence below is durable.
    pub durable_sequence: u64,
    /// From the group that the open found with holes to where it went on; nearly always empty.
    pub undecided: Range<u64>,
}

/// Where a sequence is: the segment, what of it may be read, the first sequence behind it.
pub struct Place {
    pub name: SegmentName,
    pub file: Arc<dyn DiskFile>,
    pub end: u64,
    pub limit: u64,
    /// What cannot be read below this was durable. None: nobody said.
    pub durable_before: Option<u64>,
}

impl Listed {
    /// What was durable when `sequence` became the next one to write.
    pub fn durable_before(&self, sequence: u64) -> u64 {
        if sequence == self.undecided.end { self.undecided.start } else { sequence }
    }

    /// (bytes of durable records, segments)
    pub fn size(&self) -> (u64, u64) {
        (self.segments.iter().map(|segment| segment.end).sum(), self.segments.len() as u64)
    }

    pub fn publish(&mut self, end: u64, durable_sequence: u64) {
        if let Some(last) = self.segments.last_mut() {
            last.end = end;
        }
        self.durable_sequence = durable_sequence;
    }

    /// The segment of `sequence`, or the first one behind it, if it is durable.
    pub fn place_of(&self, sequence: u64) -> Option<Place> {
        let after = self.segments.partition_point(|s| s.name.first_sequence <= sequence);
        if sequence >= self.durable_sequence {
            return None;
        }
        let segment = self.segments.get(after.saturating_sub(1))?;
        let (limit, durable_before) = match self.segments.get(after.max(1)) {
            Some(next) => (next.name.first_sequence, next.durable_before),
            None => (self.durable_sequence, Some(self.durable_before(self.durable_sequence))),
        };
        let (name, file, end) = (segment.name, segment.file.clone(), segment.end);
        Some(Place { name, file, end, limit, durable_before })
    }

    /// What the records before the segment that begins at `first_sequence` say themselves.
    pub fn note_durable_before(&mut self, first_sequence: u64, durable_before: u64) {
        let mut segments = self.segments.iter_mut();
        if let Some(next) = segments.find(|s| s.name.first_sequence == first_sequence) {
            next.durable_before = Some(durable_before);
        }
    }

    pub fn note_damaged(&mut self, name: SegmentName) {
        let damaged = self.segments.iter_mut().filter(|segment| segment.name == name);
        damaged.for_each(|segment| segment.damaged = true);
    }

    /// The segments that end before `sequence`, no longer to be read, and is none left? The last
    /// one has no end while it is written to.
    pub fn unlist_before(&mut self, sequence: u64, writing: bool) -> (Vec<Segment>, bool) {
        let last_limit = if writing { u64::MAX } else { self.durable_sequence };
        let next_firsts = self.segments.iter().skip(1).map(|next| next.name.first_sequence);
        let limits = next_firsts.chain([last_limit]);
        let count = limits.zip(&self.segments).take_while(|(limit, _)| *limit <= sequence).count();
        let removed: Vec<Segment> = self.segments.drain(..count).collect();
        (removed, self.segments.is_empty())
    }
}
