//! Freeze and seal: the buffer becomes a block, what the shard knows becomes a state file.
//!
//! `freeze` swaps pointers on the applier's thread; `write_seal` does the work on another; Python
//! commits the manifest; `publish` shows the block in place of the frozen buffer. Invariant: a
//! frozen buffer and its state stand at one sequence, and stay readable until they are published.

use super::block::{BlockMeta, BlockOptions};
use super::block_writer::BlockWriter;
use super::buffer::{BufferedHistogram, Run};
use super::governor_state::GovernorState;
use super::hour_file;
use super::hour_sketches::{ClosedHour, HourSketches};
use super::hours::ClosedHour as RecordedHour;
use super::hours_file::{self, HoursMeta};
use super::letters::{Letters, LettersMeta};
use super::owner::Shard;
use super::registry_state::Mark;
use super::state_file::{
    self, SECTION_COVERAGE, SECTION_DEDUP, SECTION_DELETED, SECTION_FOLD, SECTION_GOVERNANCE,
    SECTION_LEDGER, SECTION_OPEN_HOUR, SECTION_REGISTRY, SECTION_SEAL, StateHeader,
};
use crate::codec::Codec;
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use crate::model::SeriesKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const DAY_MS: i64 = 86_400_000;
const DAYS_MAX: usize = 128;

/// A buffer that takes no more points, and the shard's state as of its last record.
pub struct Frozen {
    pub runs: Vec<Arc<Run>>,
    pub histograms: Vec<BufferedHistogram>,
    pub points_added: u64,
    pub first_sequence: u64,
    pub next_sequence: u64,
    snapshot: bool,
    /// How far the registry had come: series of later records are not in the state file, so that
    /// their replay judges them as the first time.
    pub registry: Mark,
    dedup: Vec<u8>,
    deleted: Vec<u8>,
    pub ledger: Vec<u8>,
    governor: GovernorState,
    fold: Vec<u8>,
    coverage: Vec<u8>,
    letters: Letters,
    closed_hours: Vec<ClosedHour>,
    hours: Vec<RecordedHour>,
}

impl Frozen {
    /// Rows that stand here: a raw count, duplicates across runs included.
    pub fn row_points(&self) -> u64 {
        let runs: usize = self.runs.iter().map(|run| run.point_count()).sum();
        (runs + self.histograms.len()) as u64
    }
}

/// A file as the manifest names it.
#[derive(Debug, Serialize)]
pub struct FileReport {
    pub path: String,
    pub bytes: u64,
    pub crc32: u32,
}

/// What a seal wrote beside its state file, which repeats it: with the two files alone the change
/// that the manifest made can be made again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seal {
    /// None where no record brought a point.
    pub block: Option<BlockMeta>,
    /// None where nothing was refused.
    #[serde(default)]
    pub letters: Option<LettersMeta>,
    /// None where no hour closed.
    #[serde(default)]
    pub hours: Option<HoursMeta>,
    /// The highest policy version that a record so far has named.
    #[serde(default)]
    pub policy_version: u32,
    /// (UTC day, points), ascending; empty where there were more than 128.
    pub days: Vec<(i64, u64)>,
    /// The state file is whole: those before it are superfluous.
    pub snapshot: bool,
    pub superseded: u64,
    pub first_sequence: u64,
    pub next_sequence: u64,
}

#[derive(Debug, Serialize)]
pub struct SealReport {
    #[serde(flatten)]
    pub seal: Seal,
    pub state: FileReport,
}

/// Where a seal writes; a file that has nothing to say is not made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealPaths {
    pub block: String,
    pub letters: String,
    pub hours: String,
    pub state: String,
}

impl Shard {
    /// Freeze the buffer; `snapshot` makes the state file a whole one. False where nothing was
    /// applied since the last freeze, or where one still waits to be published.
    ///
    /// Called between two `advance`s, by their thread.
    pub fn freeze(&self, snapshot: bool) -> bool {
        self.sort_tail();
        let mut applier = self.applier.lock();
        let (registry, governor, deleted) = {
            let registry = self.registry.read();
            let deleted = applier.followed.encode(&registry);
            (registry.mark(), applier.governor.state(&registry), deleted)
        };
        let mut points = self.points.write();
        if !points.frozen.is_empty() || applier.next_sequence == applier.frozen_sequence {
            return false;
        }
        let buffer = std::mem::take(&mut points.buffer);
        let frozen = Frozen {
            runs: buffer.runs,
            histograms: buffer.histograms,
            points_added: buffer.points_added,
            first_sequence: applier.frozen_sequence,
            next_sequence: applier.next_sequence,
            snapshot,
            registry,
            governor,
            deleted,
            fold: applier.fold.encode(),
            coverage: self.coverage.read().encode(),
            letters: std::mem::take(&mut applier.letters),
            closed_hours: std::mem::take(&mut applier.governor.closing.0),
            hours: std::mem::take(&mut applier.governor.history.closed),
            dedup: applier.dedup.encode(snapshot),
            ledger: applier.ledger.to_json(),
        };
        applier.frozen_sequence = applier.next_sequence;
        applier.payload_bytes = 0;
        points.frozen.push(Arc::new(frozen));
        true
    }

    /// Write the frozen buffer's block and state file and make them durable. May be called again
    /// with other paths where it, or the commit after it, failed.
    pub fn write_seal(&self, paths: &SealPaths, fence: u64) -> Result<SealReport> {
        let SealPaths { block: block_path, letters: letters_path, .. } = paths;
        let frozen = self.points.read().frozen.first().cloned();
        let frozen = frozen.ok_or_else(|| KernelError::Backend("nothing is frozen".into()))?;
        self.record_hours(&frozen.closed_hours);
        let mut days = Days::default();
        let block = if frozen.points_added > 0 {
            Some(self.write_block(&frozen, block_path, &mut days)?)
        } else {
            None
        };
        let (first, next) = (frozen.first_sequence, frozen.next_sequence);
        let hours = if frozen.hours.is_empty() {
            None
        } else {
            let meta = hours_file::write(&frozen.hours, &*self.disk, &paths.hours, (first, next))?;
            self.sync_parent(&paths.hours)?;
            Some(meta)
        };
        let letters = if frozen.letters.letters > 0 {
            let meta = frozen.letters.write(&*self.disk, letters_path, first, next)?;
            self.sync_parent(letters_path)?;
            Some(meta)
        } else {
            None
        };
        let kept = block.as_ref().map_or(0, |meta| meta.points + meta.histogram_points);
        let seal = Seal {
            block,
            letters,
            hours,
            policy_version: frozen.governor.named(),
            days: days.counts.into_iter().collect(),
            snapshot: frozen.snapshot,
            superseded: frozen.points_added - kept,
            first_sequence: frozen.first_sequence,
            next_sequence: frozen.next_sequence,
        };
        let state = self.write_state(&frozen, &seal, &paths.state, fence)?;
        Ok(SealReport { seal, state })
    }

    /// Sketch the hours that closed. They only explain: one that cannot be written is counted.
    fn record_hours(&self, closed: &[ClosedHour]) {
        for hour in closed {
            let sketches = HourSketches::of(hour, &self.registry);
            if hour_file::write(&*self.disk, sketches).is_err() {
                self.hours_not_recorded.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn write_block(&self, frozen: &Frozen, path: &str, days: &mut Days) -> Result<BlockMeta> {
        let run = match frozen.runs.as_slice() {
            [only] => only.clone(),
            runs => Arc::new(Run::merge(runs, 0)),
        };
        let (floats, histograms) = {
            let registry = self.registry.read();
            let rows = run.rows().iter().enumerate();
            let mut floats: Vec<(SeriesKey, usize)> =
                rows.map(|(index, &row)| (registry.key(row), index)).collect();
            floats.sort_unstable();
            let mut histograms: Vec<(SeriesKey, &BufferedHistogram)> =
                frozen.histograms.iter().map(|h| (registry.key(h.row), h)).collect();
            histograms.sort_by_key(|(key, histogram)| (*key, histogram.time_ms));
            (floats, histograms)
        };
        let mut options = BlockOptions::new(Codec::Fast);
        options.page_points_max = self.options.page_points_max;
        let mut writer = BlockWriter::create(&*self.disk, path, options)?;
        let mut histograms = histograms.chunk_by(|a, b| a.0 == b.0).peekable();
        for (key, index) in floats {
            while let Some(group) = histograms.next_if(|group| group[0].0 <= key) {
                push_histograms(&mut writer, group, days)?;
            }
            let (_, times_ms, values) = run.row_at(index);
            days.add(times_ms);
            writer.push_series(key, times_ms, values)?;
        }
        for group in histograms {
            push_histograms(&mut writer, group, days)?;
        }
        let meta = writer.finish()?;
        self.sync_parent(path)?;
        Ok(meta)
    }

    fn write_state(
        &self,
        frozen: &Frozen,
        seal: &Seal,
        path: &str,
        fence: u64,
    ) -> Result<FileReport> {
        let seal = serde_json::to_vec(seal).map_err(|e| KernelError::Backend(e.to_string()))?;
        let from = if frozen.snapshot { Mark::default() } else { *self.registry_mark.lock() };
        let registry = {
            let registry = self.registry.read();
            registry.encode_between(&from, &frozen.registry)
        };
        let governance = frozen.governor.encode();
        let header =
            StateHeader { snapshot: frozen.snapshot, next_sequence: frozen.next_sequence, fence };
        let open_hour = frozen.governor.encode_open_hour();
        let sections: [(u16, &[u8]); 9] = [
            (SECTION_SEAL, &seal),
            (SECTION_DELETED, &frozen.deleted),
            (SECTION_REGISTRY, &registry),
            (SECTION_DEDUP, &frozen.dedup),
            (SECTION_LEDGER, &frozen.ledger),
            (SECTION_GOVERNANCE, &governance),
            (SECTION_FOLD, &frozen.fold),
            (SECTION_OPEN_HOUR, &open_hour),
            (SECTION_COVERAGE, &frozen.coverage),
        ];
        let bytes = state_file::encode(&header, &sections)?;
        let file = self.disk.create(path)?;
        file.write_at(0, &bytes)?;
        file.sync_data()?;
        self.sync_parent(path)?;
        Ok(FileReport {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            crc32: crc32fast::hash(&bytes),
        })
    }

    pub(super) fn sync_parent(&self, path: &str) -> Result<()> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        Ok(self.disk.sync_directory(parent)?)
    }
}

/// A series' histograms, by time; of equal times the last applied stays.
fn push_histograms(
    writer: &mut BlockWriter,
    group: &[(SeriesKey, &BufferedHistogram)],
    days: &mut Days,
) -> Result<()> {
    let (mut times_ms, mut values): (Vec<i64>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    for (_, histogram) in group {
        if times_ms.last() == Some(&histogram.time_ms) {
            times_ms.pop();
            values.pop();
        }
        times_ms.push(histogram.time_ms);
        values.push(&histogram.bytes);
    }
    days.add(&times_ms);
    writer.push_histograms(group[0].0, &times_ms, &values)
}

/// Points by UTC day, given up past 128 days.
#[derive(Default)]
pub struct Days {
    counts: BTreeMap<i64, u64>,
    given_up: bool,
}

impl Days {
    fn add(&mut self, times_ms: &[i64]) {
        let mut rest = times_ms;
        while let (false, Some(&first)) = (self.given_up, rest.first()) {
            let day = first.div_euclid(DAY_MS);
            let count = if rest[rest.len() - 1].div_euclid(DAY_MS) == day {
                rest.len()
            } else {
                rest.partition_point(|time_ms| time_ms.div_euclid(DAY_MS) == day)
            };
            *self.counts.entry(day).or_default() += count as u64;
            rest = &rest[count..];
            if self.counts.len() > DAYS_MAX {
                self.counts.clear();
                self.given_up = true;
            }
        }
    }
}

/// Read a whole file and check it against the manifest's word.
pub fn read_checked(disk: &dyn Disk, path: &str, bytes: u64, crc32: u32) -> Result<Vec<u8>> {
    let found = disk.read_all(path)?;
    if found.len() as u64 != bytes || crc32fast::hash(&found) != crc32 {
        return Err(KernelError::corruption(format!("{path}: size or checksum")));
    }
    Ok(found)
}
