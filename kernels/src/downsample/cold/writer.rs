//! One cold object, written series by series: row groups as they fill, then the index of series,
//! then Parquet's footer. The same series in the same order give the same bytes.
//!
//! The object stands under another name until it is whole and durable: who lists the directory
//! never sees half of one.

use super::content::Content;
use super::index::IndexWriter;
use super::names::object_path;
use super::rows::Rows;
use super::schema::{CREATED_BY, Facts, IndexPlace, schema, sorting};
use super::unit::ColdUnit;
use super::unwritable;
use crate::disk::{Disk, DiskFile, parent, sync_parent};
use crate::downsample::columns::{Kind, WindowColumns};
use crate::downsample::file::compare_labels;
use crate::downsample::mark::{Mark, Marked};
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, METRIC_NAME};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use serde::Serialize;
use std::cmp::Ordering;
use std::io::{self, Write};
use std::sync::Arc;

/// A row group closes after the series that brings it here: memory while writing, and how much of
/// a large object an engine reads at least.
const GROUP_ROWS: usize = 262_144;
/// Of sketches, likewise.
const GROUP_SKETCH_BYTES: usize = 32 << 20;
const UNFINISHED: &str = ".part";

/// A finished object. Its path is below the cold directory.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct ColdReport {
    pub path: String,
    pub bytes: u64,
    pub crc32: u32,
    /// None: it pools small metrics, from the first to the last of these.
    pub metric: Option<String>,
    pub first_metric: String,
    pub last_metric: String,
    pub tenant: String,
    pub window_ms: i64,
    pub from_ms: i64,
    pub until_ms: i64,
    pub number: u64,
    pub series: usize,
    pub windows: u64,
    pub points: u64,
    pub sketches: u64,
    pub min_end_ms: i64,
    pub max_end_ms: i64,
}

pub struct ColdWriter<'d> {
    disk: &'d dyn Disk,
    unit: ColdUnit,
    metric: Option<String>,
    path: String,
    /// None once it is finished.
    out: Option<SerializedFileWriter<Sink>>,
    taken: Vec<String>,
    rows: Rows,
    index: IndexWriter,
    marked: Marked,
    /// The last series, and the metrics of the first and of the last.
    last: LabelTable,
    metrics: (String, String),
    content: Content,
    windows: u64,
    points: u64,
    sketches: u64,
    ends_ms: (i64, i64),
}

impl<'d> ColdWriter<'d> {
    /// `part` counts the objects of a pool; `taken`: labels that series lost on the way here.
    pub fn create(
        disk: &'d dyn Disk,
        unit: &ColdUnit,
        metric: Option<&str>,
        part: usize,
        taken: &[String],
    ) -> Result<ColdWriter<'d>> {
        let range = (unit.from_ms, unit.until_ms);
        let path = unit.edition(&object_path(&unit.tenant, metric, range, unit.number, part));
        let whole = unit.whole_path(&path);
        let unfinished = format!("{whole}{UNFINISHED}");
        disk.create_directory(parent(&whole))?;
        match disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let sink = Sink::new(disk.create(&unfinished)?);
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_sorting_columns(Some(sorting()))
            .build();
        let out = SerializedFileWriter::new(sink, schema(unit.sketched), Arc::new(properties))
            .map_err(|error| unwritable(&error))?;
        Ok(ColdWriter {
            disk,
            unit: unit.clone(),
            metric: metric.map(str::to_owned),
            path,
            out: Some(out),
            taken: taken.to_vec(),
            rows: Rows::default(),
            index: IndexWriter::default(),
            marked: Marked::default(),
            last: LabelTable::default(),
            metrics: (String::new(), String::new()),
            content: Content::default(),
            windows: 0,
            points: 0,
            sketches: 0,
            ends_ms: (i64::MAX, i64::MIN),
        })
    }

    pub fn row_count(&self) -> u64 {
        self.windows
    }

    /// Append series, ascending by `compare_labels` and kind, also over calls. A series without
    /// windows is left out.
    pub fn push(
        &mut self,
        labels: &LabelTable,
        windows: &WindowColumns,
        marks: &[Mark],
    ) -> Result<()> {
        let kept: Vec<usize> =
            (0..labels.len()).filter(|&i| !windows.series(i).is_empty()).collect();
        let labels = labels.take(&kept)?;
        for (at, &i) in kept.iter().enumerate() {
            self.check_order(&labels, at, windows.kinds[i])?;
            self.push_series((&labels, at), marks[i], windows, i)?;
        }
        if let Some(last) = labels.len().checked_sub(1) {
            if self.last.is_empty() {
                labels.value(0, METRIC_NAME).clone_into(&mut self.metrics.0);
            }
            self.last = labels.take(&[last])?;
            labels.value(last, METRIC_NAME).clone_into(&mut self.metrics.1);
        }
        Ok(())
    }

    fn check_order(&self, labels: &LabelTable, at: usize, kind: Kind) -> Result<()> {
        let before = match at {
            0 if self.last.is_empty() => return Ok(()),
            0 => compare_labels(&self.last, 0, labels, at),
            at => compare_labels(labels, at - 1, labels, at),
        };
        let kinds = self.index.last_kind().cmp(&Some(kind));
        if before.then(kinds) == Ordering::Less {
            return Ok(());
        }
        Err(KernelError::Backend("cold object: series out of order".to_owned()))
    }

    fn push_series(
        &mut self,
        (labels, at): (&LabelTable, usize),
        mark: Mark,
        windows: &WindowColumns,
        series: usize,
    ) -> Result<()> {
        let (kind, rows) = (windows.kinds[series], windows.series(series));
        let ends = &windows.end_ms[rows.clone()];
        let (first, last) = (ends[0], ends[ends.len() - 1]);
        let ascending = ends.is_sorted_by(|a, b| a < b);
        if !ascending || first <= self.unit.from_ms || last > self.unit.until_ms {
            let message = format!("cold object: windows {first} to {last} of {:?}", self.unit);
            return Err(KernelError::Backend(message));
        }
        let number = self.index.series_count();
        self.rows.push(&self.unit.tenant, number, (labels, at), kind, windows, rows.clone())?;
        self.content.add((labels, at), kind, windows, rows.clone());
        self.index.push((labels, at), kind, mark, rows.len())?;
        self.marked.add(mark);
        self.windows += rows.len() as u64;
        self.sketches +=
            rows.clone().filter(|&at| windows.sketches.get(at).is_some()).count() as u64;
        self.points += windows.count[rows].iter().map(|&count| u64::from(count)).sum::<u64>();
        self.ends_ms = (self.ends_ms.0.min(first), self.ends_ms.1.max(last));
        if self.rows.len() >= GROUP_ROWS || self.rows.sketch_bytes() >= GROUP_SKETCH_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> Result<()> {
        let out = self.out.as_mut().expect("written to before it is finished");
        let columns = out.schema_descr().clone();
        let chunks = self.rows.encode(&self.unit.tenant, &Arc::new(columns))?;
        let mut group = out.next_row_group().map_err(|error| unwritable(&error))?;
        for chunk in chunks {
            group.append_column(&chunk.bytes, chunk.close).map_err(|error| unwritable(&error))?;
        }
        group.close().map_err(|error| unwritable(&error))?;
        self.rows.clear();
        Ok(())
    }

    /// Make the object durable under its name. None where nothing was pushed.
    pub fn finish(mut self) -> Result<Option<ColdReport>> {
        if self.last.is_empty() {
            return Ok(None);
        }
        if self.rows.len() > 0 {
            self.write_group()?;
        }
        let series = self.index.series_count();
        let place = self.write_index()?;
        let facts = self.facts(series, place);
        let mut out = self.out.take().expect("finished once");
        facts.to_key_values().into_iter().for_each(|pair| out.append_key_value_metadata(pair));
        let sink = out.into_inner().map_err(|error| unwritable(&error))?;
        sink.file.sync_data()?;
        let whole = self.unit.whole_path(&self.path);
        self.disk.rename(&format!("{whole}{UNFINISHED}"), &whole)?;
        sync_parent(self.disk, &whole)?;
        Ok(Some(self.report(series, &sink)))
    }

    fn write_index(&mut self) -> Result<IndexPlace> {
        let out = self.out.as_mut().expect("written to before it is finished");
        let offset = out.bytes_written() as u64;
        let (bytes, place) = std::mem::take(&mut self.index).finish(offset)?;
        out.write_all(&bytes)?;
        Ok(place)
    }

    fn facts(&self, series: usize, index: IndexPlace) -> Facts {
        Facts {
            folded: self.marked.folded_series,
            digits: self.marked.digits,
            taken: self.taken.clone(),
            sketches: self.sketches,
            tenant: self.unit.tenant.clone(),
            window_ms: self.unit.window_ms,
            from_ms: self.unit.from_ms,
            until_ms: self.unit.until_ms,
            number: self.unit.number,
            series,
            windows: self.windows,
            points: self.points,
            content: self.content.sum(),
            index,
        }
    }

    fn report(&self, series: usize, sink: &Sink) -> ColdReport {
        ColdReport {
            path: self.path.clone(),
            bytes: sink.offset,
            crc32: sink.checksum.clone().finalize(),
            metric: self.metric.clone(),
            first_metric: self.metrics.0.clone(),
            last_metric: self.metrics.1.clone(),
            tenant: self.unit.tenant.clone(),
            window_ms: self.unit.window_ms,
            from_ms: self.unit.from_ms,
            until_ms: self.unit.until_ms,
            number: self.unit.number,
            series,
            windows: self.windows,
            points: self.points,
            sketches: self.sketches,
            min_end_ms: self.ends_ms.0,
            max_end_ms: self.ends_ms.1,
        }
    }
}

impl Drop for ColdWriter<'_> {
    /// What was not finished goes; best effort, the next try of this name removes it as well.
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let whole = self.unit.whole_path(&self.path);
            let _ = self.disk.remove(&format!("{whole}{UNFINISHED}"));
        }
    }
}

/// The object's bytes on their way to the disk, counted and summed up.
struct Sink {
    file: Arc<dyn DiskFile>,
    offset: u64,
    checksum: crc32fast::Hasher,
}

impl Sink {
    fn new(file: Arc<dyn DiskFile>) -> Sink {
        Sink { file, offset: 0, checksum: crc32fast::Hasher::new() }
    }
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.offset, data)?;
        self.checksum.update(data);
        self.offset += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
