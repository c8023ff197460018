//! Objects of days to the objects of a month: metric by metric, series by series, so that memory
//! follows the labels of the parts and a batch of rows, not the month.
//!
//! Each part gives the hours that it owns. Two parts that give one window are refused: the catalog
//! decides who owns what, nothing here does.

use super::index::Placed;
use super::reader::ColdFile;
use super::unit::{ColdUnit, ColdUnitWriter};
use super::verify::verify_cold;
use super::writer::ColdReport;
use crate::disk::Disk;
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::downsample::file::{WindowFile, compare_labels};
use crate::downsample::mark::Mark;
use crate::error::{KernelError, Result};
use crate::labels::LabelTable;
use serde::Deserialize;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Windows gathered before they are written.
const BATCH_ROWS: u64 = 131_072;

/// An object and what it owns: windows that end in (from_ms, until_ms].
#[derive(Clone, Debug, Deserialize)]
pub struct ColdPart {
    /// Below the cold directory.
    pub path: String,
    pub owned_ms: Vec<(i64, i64)>,
}

struct Open {
    file: ColdFile,
    labels: LabelTable,
    placed: Vec<Placed>,
    marks: Vec<Mark>,
    metrics: BTreeMap<String, Range<u32>>,
    owned_ms: Vec<(i64, i64)>,
}

impl Open {
    /// With the labels of all its series.
    fn of(file: ColdFile, part: &ColdPart) -> Result<Open> {
        let numbers: Vec<u32> = (0..file.series_count() as u32).collect();
        let (labels, marks) = (file.labels(&numbers)?, file.marks(&numbers)?);
        let placed = file.index().placed(&numbers)?;
        let metrics = file.index().dictionary.metric_ranges()?.into_iter().collect();
        Ok(Open { file, labels, placed, marks, metrics, owned_ms: part.owned_ms.clone() })
    }
}

/// One series of one part.
#[derive(Clone, Copy)]
struct Entry {
    part: usize,
    series: usize,
}

/// Write the parts' windows as one unit, and read the objects back. Deterministic: the same windows give the same bytes,
/// however they were cut into parts.
pub fn merge_cold(disk: &dyn Disk, unit: &ColdUnit, parts: &[ColdPart]) -> Result<Vec<ColdReport>> {
    let mut open = Vec::with_capacity(parts.len());
    for part in parts {
        let file = ColdFile::open(disk, &unit.whole_path(&part.path))?;
        let facts = file.facts();
        if facts.window_ms != unit.window_ms || facts.tenant != unit.tenant {
            return Err(KernelError::Backend(format!("{} is not a part of {unit:?}", part.path)));
        }
        open.push(Open::of(file, part)?);
    }
    let taken: BTreeSet<&String> = open.iter().flat_map(|part| part.file.taken()).collect();
    let taken: Vec<String> = taken.into_iter().cloned().collect();
    let sketched = open.iter().any(|part| part.file.facts().sketches > 0);
    let mut writer = ColdUnitWriter::new(disk, &ColdUnit { sketched, ..unit.clone() }, &taken);
    let metrics: BTreeSet<&String> = open.iter().flat_map(|part| part.metrics.keys()).collect();
    for metric in metrics {
        merge_metric(&open, metric, &mut writer)?;
    }
    let reports = writer.finish()?;
    for report in &reports {
        verify_cold(&ColdFile::open(disk, &unit.whole_path(&report.path))?)?;
    }
    Ok(reports)
}

fn merge_metric(open: &[Open], metric: &str, writer: &mut ColdUnitWriter<'_>) -> Result<()> {
    let mut entries: Vec<Entry> = Vec::new();
    for (part, file) in open.iter().enumerate() {
        let own = file.metrics.get(metric).cloned().unwrap_or_default();
        entries.extend(own.map(|series| Entry { part, series: series as usize }));
    }
    entries.sort_by(|&a, &b| compare(open, a, b));
    let mut batch: Vec<&[Entry]> = Vec::new();
    let mut rows = 0;
    for same in entries.chunk_by(|&a, &b| compare(open, a, b) == Ordering::Equal) {
        batch.push(same);
        rows += same.iter().map(|entry| row_count(open, *entry)).sum::<u64>();
        if rows >= BATCH_ROWS {
            write_batch(open, &batch, writer)?;
            batch.clear();
            rows = 0;
        }
    }
    write_batch(open, &batch, writer)
}

fn compare(open: &[Open], a: Entry, b: Entry) -> Ordering {
    let (first, second) = (&open[a.part], &open[b.part]);
    compare_labels(&first.labels, a.series, &second.labels, b.series)
        .then_with(|| first.placed[a.series].kind.cmp(&second.placed[b.series].kind))
}

fn row_count(open: &[Open], entry: Entry) -> u64 {
    let rows = &open[entry.part].placed[entry.series].rows;
    rows.end - rows.start
}

/// Read each part once for the whole batch, then put the series together.
fn write_batch(open: &[Open], batch: &[&[Entry]], writer: &mut ColdUnitWriter<'_>) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut pieces: Vec<Vec<WindowColumns>> = Vec::with_capacity(open.len());
    let mut labels: Vec<LabelTable> = Vec::new();
    for (part, file) in open.iter().enumerate() {
        let series: Vec<u32> = batch
            .iter()
            .flat_map(|same| same.iter().filter(|entry| entry.part == part))
            .map(|entry| entry.series as u32)
            .collect();
        let mut ranges = Vec::new();
        for &(from_ms, until_ms) in file.owned_ms.iter().filter(|_| !series.is_empty()) {
            let mut windows = WindowColumns::default();
            file.file.read(&series, from_ms + 1..until_ms + 1, Fields::ALL, &mut windows)?;
            ranges.push(windows);
        }
        pieces.push(ranges);
    }
    let mut taken = vec![0; open.len()];
    let mut windows = WindowColumns::default();
    let mut marks = Vec::with_capacity(batch.len());
    for same in batch {
        let first = same[0];
        let mut places: Vec<(i64, usize, usize, usize)> = Vec::new();
        let mut mark = Mark::NONE;
        for entry in *same {
            mark.merge(open[entry.part].marks[entry.series]);
            for (range, piece) in pieces[entry.part].iter().enumerate() {
                let rows = piece.series(taken[entry.part]);
                places.extend(rows.map(|at| (piece.end_ms[at], entry.part, range, at)));
            }
            taken[entry.part] += 1;
        }
        places.sort_unstable();
        for pair in places.windows(2) {
            if pair[0].0 == pair[1].0 {
                return Err(KernelError::Backend(format!("two parts own window {}", pair[0].0)));
            }
        }
        for (_, part, range, at) in places {
            windows.append(&pieces[part][range], at..at + 1);
        }
        let kind: Kind = open[first.part].placed[first.series].kind;
        windows.end_series(kind);
        marks.push(mark);
        labels.push(open[first.part].labels.take(&[first.series])?);
    }
    writer.push(&LabelTable::concat(&labels.iter().collect::<Vec<_>>()), &windows, &marks)
}
