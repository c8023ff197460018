//! Merges blocks: oldest first in, one output for each time range between the cuts.
//!
//! Invariant: of points with the same series, kind and time the newest input's survives, the others
//! are counted as superseded. What is merged, and where it is cut, is Python's choice.

use super::block::{BlockMeta, BlockOptions};
use super::block_reader::{BlockReader, Kind};
use super::block_writer::BlockWriter;
use super::deletion::{Tombstone, kept_from};
use crate::codec::page::Page;
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use crate::model::SeriesKey;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, serde::Serialize)]
pub struct MergeReport {
    /// The blocks written, by time; ranges without a point have none.
    pub outputs: Vec<BlockMeta>,
    pub superseded: u64,
    /// Points left out, by the order that took them.
    pub deleted: BTreeMap<u64, u64>,
}

/// Merge `inputs`, oldest first, into at most `cuts_ms.len() + 1` blocks: output `i` takes times in
/// [cuts[i - 1], cuts[i]) and is written to `paths[i]`. Files are synced, their directory is not.
/// Stops with `Cancelled` soon after `cancel` is set. On any error no file of ours stays behind.
pub fn merge(
    disk: &dyn Disk,
    inputs: &[Arc<BlockReader>],
    (cuts_ms, paths): (&[i64], &[String]),
    options: BlockOptions,
    tombstones: &[Arc<Tombstone>],
    cancel: &AtomicBool,
) -> Result<MergeReport> {
    if paths.len() != cuts_ms.len() + 1 || cuts_ms.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(KernelError::Backend("merge: a path for each range, cuts ascending".into()));
    }
    let writers = paths.iter().map(|_| None).collect();
    let mut outputs = Outputs { disk, cuts_ms, paths, options, writers };
    let merged =
        merge_into(&mut outputs, inputs, tombstones, cancel).and_then(|(superseded, deleted)| {
            let writers = outputs.writers.iter_mut().filter_map(Option::take);
            let metas = writers.map(BlockWriter::finish).collect::<Result<Vec<_>>>()?;
            Ok(MergeReport { outputs: metas, superseded, deleted })
        });
    if merged.is_err() {
        for path in paths {
            // Best effort: what cannot be removed is an orphan that no manifest names.
            let _ = disk.remove(path);
        }
    }
    merged
}

struct Outputs<'a> {
    disk: &'a dyn Disk,
    cuts_ms: &'a [i64],
    paths: &'a [String],
    options: BlockOptions,
    writers: Vec<Option<BlockWriter>>,
}

impl Outputs<'_> {
    fn writer(&mut self, output: usize) -> Result<&mut BlockWriter> {
        let slot = &mut self.writers[output];
        match slot {
            Some(writer) => Ok(writer),
            None => {
                let writer = BlockWriter::create(self.disk, &self.paths[output], self.options)?;
                Ok(slot.insert(writer))
            }
        }
    }

    fn push<V: Value>(&mut self, key: SeriesKey, points: &Points<V>) -> Result<()> {
        let mut start = 0;
        for output in 0..=self.cuts_ms.len() {
            let rest = &points.times[start..];
            let length = self
                .cuts_ms
                .get(output)
                .map_or(rest.len(), |cut| rest.partition_point(|time| time < cut));
            if length > 0 {
                let part = start..start + length;
                let values = &points.values[part.clone()];
                V::push(self.writer(output)?, key, &points.times[part], values)?;
            }
            start += length;
            if start == points.times.len() {
                break;
            }
        }
        Ok(())
    }
}

/// What differs between floats and histograms.
trait Value: Clone {
    const KIND: Kind;
    fn take(page: &Page, series: usize, into: &mut Vec<Self>);
    fn push(w: &mut BlockWriter, key: SeriesKey, times: &[i64], values: &[Self]) -> Result<()>;
}

impl Value for f64 {
    const KIND: Kind = Kind::Floats;
    fn take(page: &Page, series: usize, into: &mut Vec<f64>) {
        into.extend_from_slice(page.values(series));
    }
    fn push(w: &mut BlockWriter, key: SeriesKey, times: &[i64], values: &[f64]) -> Result<()> {
        w.push_series(key, times, values)
    }
}

impl Value for Box<[u8]> {
    const KIND: Kind = Kind::Histograms;
    fn take(page: &Page, series: usize, into: &mut Vec<Box<[u8]>>) {
        into.extend(page.range(series).map(|point| page.histogram(point).into()));
    }
    fn push(w: &mut BlockWriter, key: SeriesKey, t: &[i64], values: &[Box<[u8]>]) -> Result<()> {
        let values: Vec<&[u8]> = values.iter().map(|value| &**value).collect();
        w.push_histograms(key, t, &values)
    }
}

/// One series' points, ascending.
#[derive(Default)]
struct Points<V> {
    times: Vec<i64>,
    values: Vec<V>,
}

impl<V: Value> Points<V> {
    fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    /// Lay `newer` over these points, by way of `scratch`; returns how many it superseded.
    fn overlay(&mut self, newer: &Points<V>, scratch: &mut Points<V>) -> u64 {
        let (Some(last), Some(first)) = (self.times.last(), newer.times.first()) else {
            self.append(newer, 0, newer.times.len());
            return 0;
        };
        if last < first {
            self.append(newer, 0, newer.times.len());
            return 0;
        }
        scratch.clear();
        let (mut a, mut b, mut superseded) = (0, 0, 0);
        while a < self.times.len() && b < newer.times.len() {
            let (old_time, new_time) = (self.times[a], newer.times[b]);
            if old_time < new_time {
                scratch.append(self, a, a + 1);
                a += 1;
            } else {
                scratch.append(newer, b, b + 1);
                b += 1;
                if old_time == new_time {
                    a += 1;
                    superseded += 1;
                }
            }
        }
        scratch.append(self, a, self.times.len());
        scratch.append(newer, b, newer.times.len());
        std::mem::swap(self, scratch);
        superseded
    }

    fn append(&mut self, other: &Points<V>, start: usize, end: usize) {
        self.times.extend_from_slice(&other.times[start..end]);
        self.values.extend_from_slice(&other.values[start..end]);
    }
}

/// A position in an input: the next series of one kind.
struct Input<'a> {
    reader: &'a BlockReader,
    page: Option<Page>,
    page_next: usize,
    series: usize,
    key: Option<SeriesKey>,
    buffer: Vec<u8>,
}

impl<'a> Input<'a> {
    fn open<V: Value>(reader: &'a BlockReader) -> Result<Input<'a>> {
        let mut input =
            Input { reader, page: None, page_next: 0, series: 0, key: None, buffer: Vec::new() };
        input.turn::<V>()?;
        Ok(input)
    }

    /// Go to the first series of the next page.
    fn turn<V: Value>(&mut self) -> Result<()> {
        self.series = 0;
        self.page = None;
        if self.page_next < self.reader.pages(V::KIND).len() {
            self.page = Some(self.reader.fill(V::KIND, self.page_next, &mut self.buffer)?);
            self.page_next += 1;
        }
        self.key = self.page.as_ref().map(|page| page.key(0));
        Ok(())
    }

    /// Append the series that stands here and go to the next key.
    fn take<V: Value>(&mut self, into: &mut Points<V>) -> Result<()> {
        let taken = self.key;
        while self.key == taken
            && let Some(page) = &self.page
        {
            into.times.extend_from_slice(page.times(self.series));
            V::take(page, self.series, &mut into.values);
            self.series += 1;
            if self.series == page.series_count() {
                self.turn::<V>()?;
            } else {
                self.key = Some(page.key(self.series));
            }
        }
        Ok(())
    }
}

fn merge_into(
    outputs: &mut Outputs,
    inputs: &[Arc<BlockReader>],
    tombstones: &[Arc<Tombstone>],
    cancel: &AtomicBool,
) -> Result<(u64, BTreeMap<u64, u64>)> {
    // Both kinds advance together by key, as the writers ask.
    let mut floats = Side::<f64>::open(inputs)?;
    let mut histograms = Side::<Box<[u8]>>::open(inputs)?;
    let mut erased = Erased { tombstones, points: BTreeMap::new() };
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(KernelError::Cancelled("merge".into()));
        }
        match (floats.key(), histograms.key()) {
            (None, None) => {
                return Ok((floats.superseded + histograms.superseded, erased.points));
            }
            (Some(key), other) if other.is_none_or(|other| key <= other) => {
                floats.step(key, outputs, &mut erased)?;
            }
            (_, Some(key)) => histograms.step(key, outputs, &mut erased)?,
            (Some(key), None) => floats.step(key, outputs, &mut erased)?,
        }
    }
}

/// What orders take, as it goes by.
struct Erased<'a> {
    tombstones: &'a [Arc<Tombstone>],
    points: BTreeMap<u64, u64>,
}

impl Erased<'_> {
    fn take<V>(&mut self, key: SeriesKey, points: &mut Points<V>) {
        // They were chosen for these inputs: every sequence in them is before their ends.
        let (kept_ms, Some(order)) = kept_from(self.tombstones, key.row, 0) else { return };
        let count = points.times.partition_point(|&time_ms| time_ms < kept_ms);
        points.times.drain(..count);
        points.values.drain(..count);
        if count > 0 {
            *self.points.entry(order).or_default() += count as u64;
        }
    }
}

/// All inputs' series of one kind.
struct Side<'a, V> {
    inputs: Vec<Input<'a>>,
    points: Points<V>,
    newer: Points<V>,
    scratch: Points<V>,
    superseded: u64,
}

impl<'a, V: Value + Default> Side<'a, V>
where
    Points<V>: Default,
{
    fn open(readers: &'a [Arc<BlockReader>]) -> Result<Side<'a, V>> {
        let inputs =
            readers.iter().map(|reader| Input::open::<V>(reader)).collect::<Result<_>>()?;
        Ok(Side {
            inputs,
            points: Points::default(),
            newer: Points::default(),
            scratch: Points::default(),
            superseded: 0,
        })
    }

    fn key(&self) -> Option<SeriesKey> {
        self.inputs.iter().filter_map(|input| input.key).min()
    }

    /// Merge and write the series `key`, the lowest of all inputs.
    fn step(
        &mut self,
        key: SeriesKey,
        outputs: &mut Outputs,
        erased: &mut Erased<'_>,
    ) -> Result<()> {
        self.points.clear();
        for input in self.inputs.iter_mut().filter(|input| input.key == Some(key)) {
            if self.points.times.is_empty() {
                input.take(&mut self.points)?;
            } else {
                self.newer.clear();
                input.take(&mut self.newer)?;
                self.superseded += self.points.overlay(&self.newer, &mut self.scratch);
            }
        }
        erased.take(key, &mut self.points);
        outputs.push(key, &self.points)
    }
}
