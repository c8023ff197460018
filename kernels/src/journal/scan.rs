//! Reading a segment's records, over damage (docs/formats/record.md, "Reading after damage").
//!
//! Invariant: a record is given only if both its CRCs hold, sequences rise, and what was passed
//! over is told as a gap. Memory is one window, or one record where that is larger.

use super::damage::Gap;
use super::record::{HEADER_BYTES_MAX, MAGIC, Parsed, RecordHeader, payload_is_sound};
use super::segment::{HEADER_BYTES, SegmentName};
use crate::disk::{DiskFile, read_full};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;

const WINDOW_BYTES: usize = 1 << 20;
/// What is given up where the disk itself reports an error.
const SECTOR_BYTES: usize = 4096;

pub struct Scan {
    pub name: SegmentName,
    file: Arc<dyn DiskFile>,
    /// Records below are passed by unchecked.
    from: u64,
    /// The sequence that comes next if nothing is missing.
    pub expected: u64,
    /// All below were durable before the last group that was written: an unreadable one is lost.
    pub durable_before: u64,
    /// Where the last good record ends.
    pub good_end: u64,
    at: u64,
    window_start: u64,
    window: Vec<u8>,
    passed_headers: Vec<RecordHeader>,
    /// Where the unsound record passed last would have ended.
    passed_end: u64,
    pub gaps: Vec<Gap>,
}

impl Scan {
    /// `durable_before` is what the caller knows; what the records say may be more.
    pub fn new(name: SegmentName, file: Arc<dyn DiskFile>, from: u64, durable_before: u64) -> Scan {
        Scan {
            file,
            from,
            durable_before,
            expected: name.first_sequence,
            name,
            good_end: HEADER_BYTES,
            at: HEADER_BYTES,
            window_start: 0,
            window: Vec::new(),
            passed_headers: Vec::new(),
            passed_end: 0,
            gaps: Vec::new(),
        }
    }

    /// The next sound record from `from` on that ends by `end` and is below `limit`.
    pub fn next(&mut self, end: u64, limit: u64) -> io::Result<Option<(RecordHeader, Vec<u8>)>> {
        loop {
            let salt = self.name.salt;
            let parsed = RecordHeader::parse(salt, self.load(self.at, HEADER_BYTES_MAX, end)?);
            let Some(parsed) = parsed.filter(|parsed| parsed.header.sequence >= self.expected)
            else {
                match self.find_magic(self.at + 1, end)? {
                    Some(at) => self.at = at,
                    None => return Ok(None),
                }
                continue;
            };
            if parsed.header.sequence >= limit {
                return Ok(None);
            }
            let Parsed { header, header_bytes, payload_bytes, payload_crc } = parsed;
            let payload_at = self.at + header_bytes as u64;
            let record_end = payload_at + payload_bytes as u64;
            if record_end > end {
                // Cut short, or the length of a record that was never finished.
                self.passed_headers.push(header);
                self.passed_end = end;
                self.at = payload_at;
                continue;
            }
            if header.sequence < self.from {
                self.pass(&header, record_end);
                continue;
            }
            let payload = &self.load(payload_at, payload_bytes, end)?[..payload_bytes];
            if payload_is_sound(payload, payload_crc) {
                let payload = payload.to_vec();
                self.pass(&header, record_end);
                return Ok(Some((header, payload)));
            }
            self.passed_headers.push(header);
            self.passed_end = record_end;
            self.at = record_end;
        }
    }

    /// No further record: tell what should have been there below `limit`.
    pub fn finish(&mut self, end: u64, limit: u64) {
        self.durable_before = self.durable_before.max(limit);
        self.note_gap(limit, end.saturating_sub(self.good_end));
        self.expected = limit;
    }

    /// How far after the last good record bytes were written. Where those of an earlier use lie
    /// behind, only a torn record whose header stands is seen.
    pub fn torn_bytes(&mut self, end: u64, used_before: bool) -> io::Result<u64> {
        if used_before {
            return Ok(self.passed_end.saturating_sub(self.good_end));
        }
        let (mut at, mut torn_end) = (self.good_end, self.good_end);
        while at < end {
            let bytes = self.load(at, 1, end)?;
            let length = bytes.len() as u64;
            if length == 0 {
                break;
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                torn_end = at + last as u64 + 1;
            }
            at += length;
        }
        Ok(torn_end - self.good_end)
    }

    /// Step over a good record, noting what is missing before it.
    fn pass(&mut self, header: &RecordHeader, record_end: u64) {
        let group_first = header.sequence.saturating_sub(u64::from(header.place_in_group));
        self.durable_before = self.durable_before.max(group_first);
        self.note_gap(header.sequence, self.at.saturating_sub(self.good_end));
        self.expected = header.sequence + 1;
        self.at = record_end;
        self.good_end = record_end;
    }

    fn note_gap(&mut self, next: u64, bytes: u64) {
        let mut headers = std::mem::take(&mut self.passed_headers);
        let first = self.expected.max(self.from);
        if first < next {
            headers.retain(|header| (first..next).contains(&header.sequence));
            let durable_before = self.durable_before.clamp(first, next);
            self.gaps.push(Gap { first, next, durable_before, bytes, headers });
        }
    }

    fn find_magic(&mut self, from: u64, end: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        loop {
            let bytes = self.load(at, MAGIC.len(), end)?;
            if bytes.len() < MAGIC.len() {
                return Ok(None);
            }
            if let Some(found) = memchr::memmem::find(bytes, &MAGIC) {
                return Ok(Some(at + found as u64));
            }
            at += (bytes.len() - MAGIC.len() + 1) as u64;
        }
    }

    /// At least `length` bytes from `at` on, or those before `end`; more where the window has them.
    fn load(&mut self, at: u64, length: usize, end: u64) -> io::Result<&[u8]> {
        let left = end.saturating_sub(at);
        let wanted = left.min(length as u64);
        let window_end = self.window_start + self.window.len() as u64;
        if at < self.window_start || at + wanted > window_end {
            let bytes = left.min(length.max(WINDOW_BYTES) as u64) as usize;
            let mut window = std::mem::take(&mut self.window);
            window.resize(bytes, 0);
            let got = read_around(&*self.file, at, &mut window)?;
            window.truncate(got);
            (self.window, self.window_start) = (window, at);
        }
        let window_end = self.window_start + self.window.len() as u64;
        let start = at.min(window_end) - self.window_start;
        let stop = end.clamp(self.window_start + start, window_end) - self.window_start;
        Ok(&self.window[start as usize..stop as usize])
    }
}

/// `read_full`, but sectors the disk cannot read twice in a row come back as zeros: their records'
/// CRCs then tell, and the records around them are saved.
fn read_around(file: &dyn DiskFile, at: u64, window: &mut [u8]) -> io::Result<usize> {
    match read_full(file, at, window) {
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {}
        answer => return answer,
    }
    let mut end = 0;
    for (number, sector) in window.chunks_mut(SECTOR_BYTES).enumerate() {
        let start = number * SECTOR_BYTES;
        match read_full(file, at + start as u64, sector) {
            Ok(length) => end = start + length,
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                sector.fill(0);
                end = start + sector.len();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(end)
}
