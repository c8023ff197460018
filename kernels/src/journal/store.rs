//! The segments of a journal: which there are, reading over them, making and removing them.
//!
//! Invariant: readers see only what is durable; a segment is removed only when every record in it
//! lies before the sequence its caller has made durable elsewhere.

use super::record::RecordHeader;
use super::scan::{Gap, Scan};
use super::segment::{self, HEADER_BYTES, SegmentName, Spare};
use super::{JournalConfig, OpenReport, Records};
use crate::disk::{Disk, DiskFile};
use crate::error::Result;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Reported damage kept for whoever asks; what is beyond is still counted.
const GAPS_MAX: usize = 1000;
const QUARANTINED_SEGMENTS_MAX: usize = 4;
const QUARANTINE_SUFFIX: &str = ".quarantined";

struct Segment {
    name: SegmentName,
    file: Arc<dyn DiskFile>,
    /// Bytes that hold durable records end here.
    end: u64,
    damaged: bool,
}

#[derive(Default)]
struct Listed {
    segments: Vec<Segment>,
    /// Every sequence below is durable.
    durable_sequence: u64,
}

/// The segment being written; the committer's, so that no lock is held for readers meanwhile.
pub struct Current {
    pub file: Arc<dyn DiskFile>,
    pub salt: u32,
    pub offset: u64,
    pub capacity: u64,
}

pub struct Writer {
    pub current: Option<Current>,
    pub buffer: Vec<u8>,
    next_number: u32,
    spare: Option<Spare>,
}

impl Writer {
    /// Go on in a new segment, giving back what was reserved, or what a failed group wrote. Only
    /// tidiness: what is right does not hang on it. Such a segment is never used again.
    pub fn leave_segment(&mut self) {
        if let Some(current) = self.current.take() {
            let _ = current.file.set_byte_size(current.offset);
        }
    }
}

#[derive(Default)]
struct Damage {
    seen: BTreeSet<(u64, u64)>,
    fresh: Vec<Gap>,
    records: u64,
    bytes: u64,
    torn_bytes: u64,
}

pub struct Store {
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    fence: u64,
    listed: RwLock<Listed>,
    cursor: Mutex<Option<Scan>>,
    damage: Mutex<Damage>,
}

impl Store {
    pub fn open(
        disk: Arc<dyn Disk>,
        config: JournalConfig,
        next_sequence_at_least: u64,
        fence: u64,
    ) -> Result<(Store, Writer, OpenReport)> {
        disk.create_directory(&config.directory)?;
        let files = disk.list(&config.directory)?;
        let mut names: Vec<_> = files.iter().filter_map(|name| SegmentName::parse(name)).collect();
        names.sort_unstable();
        let mut segments = Vec::with_capacity(names.len());
        let mut used_before = false;
        for name in names {
            let file = disk.open(&name.path(&config.directory), true)?;
            used_before = segment::check(&*file, &name, fence)?;
            let end = file.byte_size()?;
            segments.push(Segment { name, file, end, damaged: false });
        }
        let (mut durable_sequence, mut gaps) = (next_sequence_at_least, Vec::new());
        let mut damage = Damage::default();
        if let Some(last) = segments.last_mut() {
            let mut scan = Scan::new(last.name, last.file.clone(), next_sequence_at_least);
            while scan.next(last.end, u64::MAX)?.is_some() {}
            damage.torn_bytes = scan.torn_bytes(last.end, used_before)?;
            durable_sequence = durable_sequence.max(scan.expected);
            gaps = std::mem::take(&mut scan.gaps);
            last.end = scan.good_end;
            // What was written and never synced counts from now on, so it must be durable; what
            // lies behind it is cut.
            last.file.set_byte_size(last.end)?;
            last.file.sync_data()?;
        }
        disk.sync_directory(&config.directory)?;
        let next_number = segments.last().map_or(0, |last| last.name.number + 1);
        let store = Store {
            disk,
            config,
            fence,
            listed: RwLock::new(Listed { segments, durable_sequence }),
            cursor: Mutex::new(None),
            damage: Mutex::new(damage),
        };
        store.note_gaps(gaps);
        let damage = store.damage.lock();
        let report = OpenReport {
            next_sequence: durable_sequence,
            quarantined_records: damage.records,
            quarantined_bytes: damage.bytes,
            torn_bytes: damage.torn_bytes,
        };
        drop(damage);
        Ok((store, Writer { current: None, buffer: Vec::new(), next_number, spare: None }, report))
    }

    /// A new segment at the first sequence that is not durable; `writer` goes on in it.
    pub fn begin_segment(&self, writer: &mut Writer, group_bytes: u64) -> io::Result<()> {
        // Full: it is left as it is, to be used again.
        writer.current = None;
        let first_sequence = self.durable_sequence();
        let number = writer.next_number;
        writer.next_number += 1;
        let mut unguessable = self.config.salt.to_le_bytes().to_vec();
        unguessable.extend(number.to_le_bytes());
        unguessable.extend(first_sequence.to_le_bytes());
        let salt = xxhash_rust::xxh3::xxh3_64(&unguessable) as u32;
        let name = SegmentName { number, first_sequence, salt };
        let capacity = self.config.segment_bytes.max(HEADER_BYTES + group_bytes);
        let path = name.path(&self.config.directory);
        let spare = writer.spare.take();
        let file = segment::create(&*self.disk, &path, name, self.fence, capacity, spare)?;
        let segment = Segment { name, file: file.clone(), end: HEADER_BYTES, damaged: false };
        self.listed.write().segments.push(segment);
        writer.current = Some(Current { file, salt, offset: HEADER_BYTES, capacity });
        Ok(())
    }

    /// The group that ends at `end` of the current segment is durable.
    pub fn publish(&self, end: u64, durable_sequence: u64) {
        let mut listed = self.listed.write();
        if let Some(last) = listed.segments.last_mut() {
            last.end = end;
        }
        listed.durable_sequence = durable_sequence;
    }

    pub fn durable_sequence(&self) -> u64 {
        self.listed.read().durable_sequence
    }

    /// (bytes of durable records, segments)
    pub fn size(&self) -> (u64, u64) {
        let listed = self.listed.read();
        let bytes = listed.segments.iter().map(|segment| segment.end).sum();
        (bytes, listed.segments.len() as u64)
    }

    /// (records lost, bytes of them, torn bytes)
    pub fn damage_counts(&self) -> (u64, u64, u64) {
        let damage = self.damage.lock();
        (damage.records, damage.bytes, damage.torn_bytes)
    }

    pub fn take_gaps(&self) -> Vec<Gap> {
        std::mem::take(&mut self.damage.lock().fresh)
    }

    pub fn read(&self, from: u64, bytes_max: usize) -> Result<Records> {
        let mut cursor = self.cursor.lock();
        let mut out = Records { records: Vec::new(), next_sequence: from };
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some((name, file, end, limit)) = self.segment_of(out.next_sequence) else {
                out.next_sequence = self.pass_missing_segments(out.next_sequence);
                break;
            };
            if name.first_sequence > out.next_sequence {
                out.next_sequence = self.pass_missing_segments(out.next_sequence);
                continue;
            }
            let going_on = |scan: &Scan| scan.name == name && scan.expected == out.next_sequence;
            let mut scan = cursor
                .take()
                .filter(going_on)
                .unwrap_or_else(|| Scan::new(name, file, out.next_sequence));
            while bytes < bytes_max && scan.expected < limit {
                match scan.next(end, limit)? {
                    Some((header, payload)) => {
                        bytes += header.encoded_bytes() + payload.len();
                        out.next_sequence = header.sequence + 1;
                        out.records.push((header, payload));
                    }
                    None => scan.finish(end, limit),
                }
            }
            out.next_sequence = out.next_sequence.max(scan.expected);
            if !scan.gaps.is_empty() {
                let mut listed = self.listed.write();
                let damaged = listed.segments.iter_mut().filter(|segment| segment.name == name);
                damaged.for_each(|segment| segment.damaged = true);
                drop(listed);
                self.note_gaps(std::mem::take(&mut scan.gaps));
            }
            *cursor = Some(scan);
        }
        Ok(out)
    }

    /// Where `sequence` is: name, file, durable end of the segment, first sequence behind it.
    fn segment_of(&self, sequence: u64) -> Option<(SegmentName, Arc<dyn DiskFile>, u64, u64)> {
        let listed = self.listed.read();
        let after = listed.segments.partition_point(|s| s.name.first_sequence <= sequence);
        if sequence >= listed.durable_sequence {
            return None;
        }
        let segment = listed.segments.get(after.saturating_sub(1))?;
        let next = listed.segments.get(after.max(1));
        let limit = next.map_or(listed.durable_sequence, |next| next.name.first_sequence);
        Some((segment.name, segment.file.clone(), segment.end, limit))
    }

    /// Where to go on when the segment that held `sequence` is gone, which is damage.
    fn pass_missing_segments(&self, sequence: u64) -> u64 {
        let listed = self.listed.read();
        let next =
            listed.segments.first().map_or(listed.durable_sequence, |s| s.name.first_sequence);
        drop(listed);
        if next > sequence {
            let (first, durable_before) = (sequence, next);
            self.note_gaps(vec![Gap {
                first,
                next,
                durable_before,
                bytes: 0,
                headers: Vec::new(),
            }]);
        }
        next.max(sequence)
    }

    fn note_gaps(&self, gaps: Vec<Gap>) {
        let mut damage = self.damage.lock();
        for gap in gaps {
            if !damage.seen.insert((gap.first, gap.next)) {
                continue;
            }
            match gap.lost_records() {
                0 => damage.torn_bytes += gap.bytes,
                records => {
                    damage.records += records;
                    damage.bytes += gap.bytes;
                }
            }
            if damage.fresh.len() < GAPS_MAX && gap.lost_records() > 0 {
                damage.fresh.push(gap);
            }
        }
    }

    /// Remove what only holds records before `sequence`; one segment may stay for its blocks. When
    /// that is everything, the current segment and the spare go too: an idle journal ends as an
    /// empty directory.
    pub fn truncate_before(&self, writer: &mut Writer, sequence: u64) -> Result<()> {
        let (removed, empty) = self.unlist_before(writer, sequence);
        if removed.is_empty() && !(empty && writer.spare.is_some()) {
            return Ok(());
        }
        self.damage.lock().seen.retain(|(_, next)| *next > sequence);
        for segment in removed {
            let path = segment.name.path(&self.config.directory);
            if segment.damaged {
                self.disk.rename(&path, &format!("{path}{QUARANTINE_SUFFIX}"))?;
            } else if !empty && writer.spare.is_none() && self.can_be_spare(&segment)? {
                writer.spare = Some(Spare { path, file: segment.file });
            } else {
                self.disk.remove(&path)?;
            }
        }
        if let Some(spare) = writer.spare.take_if(|_| empty) {
            self.disk.remove(&spare.path)?;
        }
        let names = self.disk.list(&self.config.directory)?;
        let mut kept: Vec<_> = names.iter().filter(|n| n.ends_with(QUARANTINE_SUFFIX)).collect();
        for name in kept.drain(..kept.len().saturating_sub(QUARANTINED_SEGMENTS_MAX)) {
            self.disk.remove(&format!("{}/{name}", self.config.directory))?;
        }
        Ok(self.disk.sync_directory(&self.config.directory)?)
    }

    /// The segments that end before `sequence`, no longer to be read, and is none left?
    fn unlist_before(&self, writer: &mut Writer, sequence: u64) -> (Vec<Segment>, bool) {
        let mut listed = self.listed.write();
        if listed.durable_sequence <= sequence {
            writer.leave_segment();
        }
        let last_limit = if writer.current.is_none() { listed.durable_sequence } else { u64::MAX };
        let next_firsts = listed.segments.iter().skip(1).map(|next| next.name.first_sequence);
        let limits = next_firsts.chain([last_limit]);
        let count =
            limits.zip(&listed.segments).take_while(|(limit, _)| *limit <= sequence).count();
        let removed: Vec<Segment> = listed.segments.drain(..count).collect();
        (removed, listed.segments.is_empty())
    }

    /// Whole, and read by nobody at this moment.
    fn can_be_spare(&self, segment: &Segment) -> Result<bool> {
        if let Some(mut cursor) = self.cursor.try_lock() {
            cursor.take_if(|scan| scan.name == segment.name);
        }
        let whole = segment.file.byte_size()? >= self.config.segment_bytes;
        Ok(whole && Arc::strong_count(&segment.file) == 1)
    }
}

/// What a record takes of the journal's budget.
pub fn record_cost(header: &RecordHeader, payload: &[u8]) -> u64 {
    (header.encoded_bytes() + payload.len()) as u64
}
