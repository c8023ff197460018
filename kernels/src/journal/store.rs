//! The segments of a journal: which there are, reading over them, making and removing them.
//!
//! Invariant: readers see only what is durable; a segment is removed only when every record in it
//! lies before the sequence its caller has made durable elsewhere.

use super::damage::{Damage, DamageCounts, Gap};
use super::listed::{Listed, Place, Segment};
use super::record::RecordHeader;
use super::scan::Scan;
use super::segment::{self, HEADER_BYTES, SegmentHeader, SegmentName, Spare};
use super::{JournalConfig, OpenReport, Records};
use crate::disk::{Disk, DiskFile};
use crate::error::Result;
use parking_lot::{Mutex, RwLock};
use std::io;
use std::sync::Arc;

const QUARANTINED_SEGMENTS_MAX: usize = 4;
const QUARANTINE_SUFFIX: &str = ".quarantined";

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
            let checked = segment::check(&*file, &name, fence)?;
            used_before = checked.used_before;
            let (end, durable_before) = (file.byte_size()?, checked.durable_before);
            segments.push(Segment { name, file, durable_before, end, damaged: false });
        }
        let mut durable_sequence = next_sequence_at_least;
        let mut undecided = durable_sequence..durable_sequence;
        let mut damage = Damage::default();
        if let Some(last) = segments.last_mut() {
            let mut scan = Scan::new(last.name, last.file.clone(), next_sequence_at_least, 0);
            while scan.next(last.end, u64::MAX)?.is_some() {}
            damage.counts.torn_bytes = scan.torn_bytes(last.end, used_before)?;
            durable_sequence = durable_sequence.max(scan.expected);
            undecided = durable_sequence..durable_sequence;
            for mut gap in std::mem::take(&mut scan.gaps) {
                // What stands behind its group may say more than its group does.
                gap.durable_before = scan.durable_before.clamp(gap.first, gap.next);
                if gap.undecided_records() > 0 {
                    undecided.start = scan.durable_before;
                }
                damage.note(gap);
            }
            last.end = scan.good_end;
            // What was written and never synced counts from now on, so it must be durable; what
            // lies behind it is cut.
            last.file.set_byte_size(last.end)?;
            last.file.sync_data()?;
        }
        disk.sync_directory(&config.directory)?;
        let next_number = segments.last().map_or(0, |last| last.name.number + 1);
        let report = OpenReport { next_sequence: durable_sequence, damage: damage.counts };
        let store = Store {
            disk,
            config,
            fence,
            listed: RwLock::new(Listed { segments, durable_sequence, undecided }),
            cursor: Mutex::new(None),
            damage: Mutex::new(damage),
        };
        Ok((store, Writer { current: None, buffer: Vec::new(), next_number, spare: None }, report))
    }

    /// A new segment at the first sequence that is not durable; `writer` goes on in it.
    pub fn begin_segment(&self, writer: &mut Writer, group_bytes: u64) -> io::Result<()> {
        // Full: it is left as it is, to be used again.
        writer.current = None;
        let first_sequence = self.durable_sequence();
        let durable_before = self.listed.read().durable_before(first_sequence);
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
        let said = SegmentHeader { fence: self.fence, durable_before };
        let file = segment::create(&*self.disk, &path, name, &said, capacity, spare)?;
        let segment = Segment {
            name,
            file: file.clone(),
            durable_before: Some(durable_before),
            end: HEADER_BYTES,
            damaged: false,
        };
        self.listed.write().segments.push(segment);
        writer.current = Some(Current { file, salt, offset: HEADER_BYTES, capacity });
        Ok(())
    }

    /// The group that ends at `end` of the current segment is durable.
    pub fn publish(&self, end: u64, durable_sequence: u64) {
        self.listed.write().publish(end, durable_sequence);
    }

    pub fn durable_sequence(&self) -> u64 {
        self.listed.read().durable_sequence
    }

    /// (bytes of durable records, segments)
    pub fn size(&self) -> (u64, u64) {
        self.listed.read().size()
    }

    pub fn damage_counts(&self) -> DamageCounts {
        self.damage.lock().counts
    }

    pub fn take_gaps(&self) -> Vec<Gap> {
        self.damage.lock().take_fresh()
    }

    pub fn read(&self, from: u64, bytes_max: usize) -> Result<Records> {
        let mut cursor = self.cursor.lock();
        let mut out = Records { records: Vec::new(), next_sequence: from };
        let mut bytes = 0;
        while bytes < bytes_max {
            let place = self.listed.read().place_of(out.next_sequence);
            let Some(place) = place.filter(|p| p.name.first_sequence <= out.next_sequence) else {
                let next = self.pass_missing_segments(out.next_sequence);
                if next == out.next_sequence {
                    break;
                }
                out.next_sequence = next;
                continue;
            };
            let (name, end, limit) = (place.name, place.end, place.limit);
            let durable_before = place.durable_before.unwrap_or(0);
            let going_on = |scan: &Scan| scan.name == name && scan.expected == out.next_sequence;
            let mut scan = match cursor.take().filter(going_on) {
                Some(scan) => scan,
                None => self.scan_from(out.next_sequence, place)?,
            };
            // It may have become more since the scan began.
            scan.durable_before = scan.durable_before.max(durable_before);
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
                self.listed.write().note_damaged(name);
                let mut damage = self.damage.lock();
                scan.gaps.drain(..).for_each(|gap| damage.note(gap));
            }
            *cursor = Some(scan);
        }
        Ok(out)
    }

    /// A scan of the place's segment. Where nobody said what of it was durable (the next header is
    /// rotten, or of an older build), its own records are asked first, once.
    fn scan_from(&self, sequence: u64, place: Place) -> Result<Scan> {
        let Place { name, file, end, limit, durable_before } = place;
        let durable_before = match durable_before {
            Some(durable_before) => durable_before,
            None => {
                let mut scan = Scan::new(name, file.clone(), 0, 0);
                while scan.next(end, limit)?.is_some() {}
                self.listed.write().note_durable_before(limit, scan.durable_before);
                scan.durable_before
            }
        };
        Ok(Scan::new(name, file, sequence, durable_before))
    }

    /// Where to go on when the segment that held `sequence` is gone, which is damage.
    fn pass_missing_segments(&self, sequence: u64) -> u64 {
        let listed = self.listed.read();
        let next =
            listed.segments.first().map_or(listed.durable_sequence, |s| s.name.first_sequence);
        drop(listed);
        if next > sequence {
            let (first, durable_before, headers) = (sequence, next, Vec::new());
            self.damage.lock().note(Gap { first, next, durable_before, bytes: 0, headers });
        }
        next.max(sequence)
    }

    /// Remove what only holds records before `sequence`; one segment may stay for its blocks. When
    /// that is everything, the current segment and the spare go too: an idle journal ends as an
    /// empty directory.
    pub fn truncate_before(&self, writer: &mut Writer, sequence: u64) -> Result<()> {
        let mut listed = self.listed.write();
        if listed.durable_sequence <= sequence {
            writer.leave_segment();
        }
        let (removed, empty) = listed.unlist_before(sequence, writer.current.is_some());
        drop(listed);
        if removed.is_empty() && !(empty && writer.spare.is_some()) {
            return Ok(());
        }
        self.damage.lock().forget_before(sequence);
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
