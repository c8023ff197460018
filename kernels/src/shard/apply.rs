//! Apply: durable records, strictly in sequence, become series, points and counts.
//!
//! Decide, then apply: judges are pure functions of (policy named by the record, series held) and of
//! the governor's meters (resolve.rs, governor.rs); `apply` registers, buffers and counts what they
//! say. Invariant: the applier is the only writer
//! of registry and buffer; a record is visible as a whole, and `applied` moves after it is.

use super::alive::day_of;
use super::dedup::DedupWindow;
use super::deletion::Followed;
use super::fold::Fold;
use super::governor::Governor;
use super::intake::Decoded;
use super::judged::Judged;
use super::ledger::Ledger;
use super::letters::Letters;
use super::owner::Shard;
use super::refuse::Refusals;
use super::reread::Reread;
use crate::error::Result;
use crate::journal::Gap;
use crate::journal::record::RecordHeader;
use crate::model::{Batch, SeriesRow};
use crate::mutants;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Row of a series that was refused.
pub(super) const REFUSED: SeriesRow = SeriesRow::MAX;
const DAY_MS: i64 = 86_400_000;
/// Never a day number of an i64 of milliseconds.
const NO_DAY: i32 = i32::MIN;
/// Points and records one `advance` applies before it hands back to its driver.
const SLICE_POINTS: usize = 256 * 1024;
const SLICE_RECORDS: usize = 4_096;

/// What the judge goes by; a record names the version it was received under, so that a replay
/// judges as the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub version: u32,
    /// Rows in memory; a new series beyond is refused, a known one always flows.
    pub series_max: u64,
    pub new_series: NewSeries,
    /// The version of the compiled policy (`budget::Table`); 0 is none.
    #[serde(default)]
    pub table: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewSeries {
    Accept,
    RefuseDisk,
    RefuseMemory,
}

/// The writer's own state, standing at `next_sequence`.
pub struct Applier {
    pub next_sequence: u64,
    /// Where the last freeze stood.
    pub frozen_sequence: u64,
    pub dedup: DedupWindow,
    pub ledger: Ledger,
    pub policies: BTreeMap<u32, Policy>,
    /// Bytes of journal payload applied since the last freeze.
    pub payload_bytes: u64,
    /// Day each row was last noted alive on.
    noted_days: Vec<i32>,
    pub(super) followed: Followed,
    /// Damage in the journal that was read past and not come to yet.
    pub(super) gaps: Vec<Gap>,
    pub(super) reread: Reread,
    pub(super) rows: Vec<SeriesRow>,
    pub(super) refusals: Refusals,
    pub(super) judged: Judged,
    pub governor: Governor,
    pub fold: Fold,
    pub letters: Letters,
}

impl Applier {
    pub fn new(dedup_keys_max: usize) -> Applier {
        Applier {
            next_sequence: 0,
            frozen_sequence: 0,
            dedup: DedupWindow::new(dedup_keys_max),
            ledger: Ledger::default(),
            policies: BTreeMap::new(),
            payload_bytes: 0,
            noted_days: Vec::new(),
            followed: Followed::default(),
            gaps: Vec::new(),
            reread: Reread::default(),
            rows: Vec::new(),
            refusals: Refusals::default(),
            judged: Judged::default(),
            governor: Governor::default(),
            fold: Fold::default(),
            letters: Letters::default(),
        }
    }

    /// Records before `next_sequence` that the journal has lost, into the ledger: at the sequence
    /// they stood at, so that a replay counts them neither twice nor not at all. A lost record's
    /// points are known only where its header survives.
    pub(super) fn count_lost(&mut self) {
        let next_sequence = self.next_sequence;
        for gap in self.gaps.extract_if(.., |gap| gap.next <= next_sequence) {
            self.ledger.lost_records += gap.lost_records();
            for header in gap.headers.iter().filter(|h| h.sequence < gap.durable_before) {
                // Its key is not remembered: a sender that retries brings the points back.
                let refused: u64 = header.points_rejected.iter().map(|&n| u64::from(n)).sum();
                let outcomes = self.ledger.tenant(&header.tenant);
                outcomes.records += 1;
                outcomes.received += u64::from(header.points_received);
                outcomes.reject_at_gateway(&header.points_rejected);
                let lost = u64::from(header.points_received).saturating_sub(refused);
                outcomes.reject("journal_damage", lost);
            }
        }
    }
}

impl Applier {
    /// The next points of these rows are noted again.
    pub(super) fn forget_days(&mut self, rows: &RoaringBitmap) {
        for row in rows {
            if let Some(day) = self.noted_days.get_mut(row as usize) {
                *day = NO_DAY;
            }
        }
    }
}

/// Why `advance` came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing to apply within the wait.
    Idle,
    /// A slice was applied; there may be more.
    Applied,
    /// The buffer is full: nothing is applied until a seal was published.
    Full,
}

impl Shard {
    /// Apply durable records as they come for `wait`, or until a slice of work is done. Small
    /// records are applied one by one without waking the driver for each.
    pub fn advance(&self, wait: Duration) -> Result<Event> {
        let deadline = Instant::now() + wait;
        let (mut points, mut records) = (0, 0);
        while points < SLICE_POINTS && records < SLICE_RECORDS {
            if self.points_waiting() >= self.options.buffer_points_max {
                return Ok(Event::Full);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Some((header, decoded)) = self.next_record(left)? else {
                return Ok(if records == 0 { Event::Idle } else { Event::Applied });
            };
            points += decoded.batch.points_good();
            records += 1;
            self.apply(&header, decoded);
        }
        Ok(Event::Applied)
    }

    /// Points that the next seal takes along, dead letters among them.
    pub(super) fn points_waiting(&self) -> u64 {
        let lettered = self.applier.lock().letters.points;
        self.points.read().buffer.points_added + lettered
    }

    /// Apply one record: register, index, buffer, count, remember.
    fn apply(&self, header: &RecordHeader, decoded: Decoded) {
        let batch = decoded.batch;
        let mut guard = self.applier.lock();
        let applier = &mut *guard;
        applier.next_sequence = header.sequence;
        applier.count_lost();
        let received = u64::from(header.points_received);
        let duplicate =
            applier.dedup.seen(header.dedup_key, header.received_ms) && !mutants::on("no_dedup");
        let outcomes = applier.ledger.tenant(&header.tenant);
        outcomes.records += 1;
        outcomes.received += received;
        if duplicate {
            outcomes.duplicate += received;
        } else {
            outcomes.reject_at_gateway(&header.points_rejected);
            if decoded.undecodable {
                let rejected: u64 = header.points_rejected.iter().map(|&n| u64::from(n)).sum();
                outcomes.reject("undecodable", received.saturating_sub(rejected));
            }
            applier.dedup.remember(&header.tenant, header.dedup_key, header.received_ms);
            let emitted = applier.fold.advance(header.received_ms);
            self.resolve(header, &batch, applier);
            self.emit(&emitted, applier);
            self.note_alive(&batch, applier);
            self.mark_dirty(&header.tenant, &batch, &applier.rows, header.sequence);
            self.push(header, &batch, applier);
        }
        applier.payload_bytes += decoded.payload_bytes as u64;
        applier.next_sequence = header.sequence + 1;
        parking_lot::MutexGuard::unlock_fair(guard);
        self.decoder.recycle(batch);
        self.compact_tail();
        self.applied.set(header.sequence + 1);
    }

    /// Tell the registry on which days rows hold points, before the points can be seen; count those
    /// of the hour.
    fn note_alive(&self, batch: &Batch, applier: &mut Applier) {
        let rows = &applier.rows;
        let (noted, in_hour) = (&mut applier.noted_days, &mut applier.governor.history.points);
        let mut fresh: BTreeMap<i32, Vec<SeriesRow>> = BTreeMap::new();
        let (mut day, mut day_start_ms) = (NO_DAY, 0);
        let floats = batch.point_series_index.iter().zip(&batch.point_time_ms);
        let histograms = batch.histograms.iter().map(|h| (&h.series_index, &h.time_ms));
        for (&index, &time_ms) in floats.chain(histograms) {
            let row = rows[index as usize];
            if row == REFUSED {
                continue;
            }
            if day == NO_DAY || !(0..DAY_MS).contains(&time_ms.wrapping_sub(day_start_ms)) {
                day = day_of(time_ms);
                day_start_ms = i64::from(day).wrapping_mul(DAY_MS);
            }
            let row = row as usize;
            if noted.len() <= row {
                noted.resize((row + 1).next_power_of_two(), NO_DAY);
            }
            if in_hour.len() <= row {
                in_hour.resize((row + 1).next_power_of_two(), 0);
            }
            in_hour[row] = in_hour[row].saturating_add(1);
            if noted[row] != day {
                noted[row] = day;
                fresh.entry(day).or_default().push(row as SeriesRow);
            }
        }
        if fresh.is_empty() {
            return;
        }
        let mut registry = self.registry.write();
        for (day, mut rows) in fresh {
            rows.sort_unstable();
            rows.dedup();
            registry.note_alive(day, &rows);
        }
    }

    /// Points of accepted series into the buffer, and their outcomes into the ledger.
    fn push(&self, header: &RecordHeader, batch: &Batch, applier: &mut Applier) {
        let rows = &applier.rows;
        let mut stored = 0;
        {
            let mut points = self.points.write();
            let buffer = &mut points.buffer;
            if applier.refusals.is_empty() {
                let all = batch.point_series_index.iter().map(|&index| rows[index as usize]);
                buffer.tail_rows.extend(all);
                buffer.tail_times_ms.extend_from_slice(&batch.point_time_ms);
                buffer.tail_values.extend_from_slice(&batch.point_value);
                stored += batch.point_value.len() as u64;
            } else {
                for (at, &index) in batch.point_series_index.iter().enumerate() {
                    let row = rows[index as usize];
                    if row != REFUSED {
                        buffer.tail_rows.push(row);
                        buffer.tail_times_ms.push(batch.point_time_ms[at]);
                        buffer.tail_values.push(batch.point_value[at]);
                        stored += 1;
                    }
                }
            }
            for histogram in &batch.histograms {
                let row = rows[histogram.series_index as usize];
                if row != REFUSED {
                    let range = histogram.start as usize..histogram.end as usize;
                    let bytes = &batch.histogram_bytes[range];
                    buffer.push_histogram(row, histogram.time_ms, bytes);
                    stored += 1;
                }
            }
            buffer.points_added += stored;
        }
        applier.ledger.tenant(&header.tenant).stored += stored;
        if !applier.refusals.is_empty() {
            self.refuse(header, batch, applier);
        }
        let outcomes = applier.ledger.tenant(&header.tenant);
        debug_assert!(outcomes.balanced(), "{outcomes:?}");
    }

    /// Sort the tail into a run when it is long enough. Only the applier calls this, so what is
    /// read here stands until it is replaced; queries go on meanwhile.
    fn compact_tail(&self) {
        if self.points.read().buffer.tail_rows.len() < super::buffer::RUN_POINTS {
            return;
        }
        self.sort_tail();
        loop {
            let due = self.points.read().buffer.merge_due();
            let Some(runs) = due else { return };
            let merged = super::buffer::Buffer::merge_up(&runs);
            self.points.write().buffer.replace_newest(merged);
        }
    }

    pub(super) fn sort_tail(&self) {
        let run = {
            let points = self.points.read();
            let buffer = &points.buffer;
            if buffer.tail_rows.is_empty() {
                return;
            }
            super::buffer::Run::build(&buffer.tail_rows, &buffer.tail_times_ms, &buffer.tail_values)
        };
        self.points.write().buffer.replace_tail(run);
    }
}
