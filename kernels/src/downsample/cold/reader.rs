//! Answers from one cold object: the footer and the series index say which pages to read, a page's
//! checksum is verified as it is read. Footer and the index's root stay in memory, nothing else.

use super::bounds::{self, guarded};
use super::index::{Placed, SeriesIndex};
use super::schema::{
    COLUMN_COUNT, ENDS_STALE, FIRST_TIME, Facts, LAST_TIME, POINTS, SKETCH, VALUE_COLUMNS,
    WINDOW_END, schema,
};
use super::unreadable;
use crate::disk::{Disk, DiskFile, read_full};
use crate::downsample::columns::{Fields, WindowColumns};
use crate::downsample::dictionary::LABEL_PAGE_SERIES;
use crate::downsample::file::WindowFile;
use crate::downsample::mark::{Mark, Marked};
use crate::error::{KernelError, Result, room_for};
use crate::labels::LabelTable;
use crate::shard::matcher::Matcher;
use bytes::Bytes;
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Series of a label page, on average, up to which `within` looks at their windows first.
const SPARSE_SERIES_MAX: usize = 32;
/// Series whose windows' ends it holds at once; of a month of hours, 12 MB.
const WITHIN_SERIES: usize = 2_048;

pub struct ColdFile {
    file: Arc<dyn DiskFile>,
    bytes: u64,
    metadata: ParquetMetaData,
    facts: Facts,
    index: SeriesIndex,
}

impl ColdFile {
    /// Reads the footer, the places of the pages and the root of the series index.
    pub fn open(disk: &dyn Disk, path: &str) -> Result<ColdFile> {
        ColdFile::of(disk.open(path, false)?)
    }

    pub fn of(file: Arc<dyn DiskFile>) -> Result<ColdFile> {
        let bytes = file.byte_size()?;
        let source = Source::new(&file, bytes);
        let metadata = guarded(|| {
            ParquetMetaDataReader::new()
                .with_column_index_policy(PageIndexPolicy::Skip)
                .with_offset_index_policy(PageIndexPolicy::Required)
                .parse_and_finish(&source)
        })?;
        bounds::check(&metadata, bytes)?;
        let facts = Facts::of(metadata.file_metadata())?;
        let columns = metadata.file_metadata().schema_descr().num_columns();
        let sketched = columns > SKETCH;
        if metadata.file_metadata().schema() != &*schema(sketched)
            || facts.sketches > if sketched { facts.windows } else { 0 }
        {
            return Err(KernelError::corruption("cold object: other columns than its format's"));
        }
        let held = Arc::clone(&file);
        let index = SeriesIndex::open(held, &facts.index, facts.series, facts.windows)?;
        Ok(ColdFile { file, bytes, metadata, facts, index })
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn index(&self) -> &SeriesIndex {
        &self.index
    }

    /// The column's values in these rows of a row group, nulls as zeros, appended to `out`.
    fn column<T: DataType>(
        &self,
        source: &Arc<Source>,
        group: usize,
        column: usize,
        runs: &[Range<u64>],
        out: &mut Vec<T::T>,
    ) -> Result<()> {
        let metadata = self.metadata.row_group(group);
        let chunk = metadata.column(column);
        let pages = self.metadata.page_index_for_row_group(group);
        let places = pages.page_locations(column).cloned();
        let rows = metadata.num_rows() as usize;
        let descriptor = chunk.column_descr_ptr();
        let nullable = descriptor.max_def_level() > 0;
        let whole = guarded(|| {
            let pages = SerializedPageReader::new(Arc::clone(source), chunk, rows, places)?;
            let reader = get_column_reader(descriptor, Box::new(pages));
            let mut reader = get_typed_column_reader::<T>(reader);
            read_runs::<T>(&mut reader, nullable, runs, out)
        })?;
        whole
            .then_some(())
            .ok_or_else(|| KernelError::corruption("cold object: a column ends early"))
    }

    /// Texts of all rows, for those who verify: (group, column) -> values.
    pub(super) fn texts(&self, group: usize, column: usize) -> Result<Vec<String>> {
        let rows = self.metadata.row_group(group).num_rows() as u64;
        let mut out = room_for(rows as usize, "cold texts")?;
        let source = Arc::new(Source::new(&self.file, self.bytes));
        self.column::<ByteArrayType>(
            &source,
            group,
            column,
            std::slice::from_ref(&(0..rows)),
            &mut out,
        )?;
        let text = |value: &ByteArray| value.as_utf8().map(str::to_owned);
        out.iter().map(text).collect::<std::result::Result<_, _>>().map_err(|e| unreadable(&e))
    }

    pub(super) fn group_rows(&self) -> Vec<u64> {
        self.metadata.row_groups().iter().map(|group| group.num_rows() as u64).collect()
    }

    fn is_apart(&self, range_ms: &Range<i64>) -> bool {
        range_ms.start > self.facts.until_ms || range_ms.end <= self.facts.from_ms
    }

    /// Hand each row group's first row and its share of the series (ascending) to `visit`.
    fn by_group(
        &self,
        placed: &[Placed],
        mut visit: impl FnMut(usize, u64, &[Placed]) -> Result<()>,
    ) -> Result<()> {
        let mut rest = placed;
        let mut group_from = 0;
        for (group, rows) in self.group_rows().into_iter().enumerate() {
            let here = rest.partition_point(|series| series.rows.end <= group_from + rows);
            let (here, later) = rest.split_at(here);
            if !here.is_empty() {
                visit(group, group_from, here)?;
            }
            rest = later;
            group_from += rows;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(KernelError::corruption("cold object: rows past its row groups"))
        }
    }

    /// Decode the asked columns of some rows of a group.
    fn decode(
        &self,
        source: &Arc<Source>,
        group: usize,
        runs: &[Range<u64>],
        fields: Fields,
    ) -> Result<Decoded> {
        let mut decoded = Decoded::default();
        self.column::<Int64Type>(source, group, WINDOW_END, runs, &mut decoded.end_ms)?;
        if fields.has(Fields::COUNT) {
            self.column::<Int32Type>(source, group, POINTS, runs, &mut decoded.count)?;
        }
        if fields.has(Fields::STALE) {
            self.column::<BoolType>(source, group, ENDS_STALE, runs, &mut decoded.ends_stale)?;
        }
        if fields.has(Fields::SKETCH) && self.facts.sketches > 0 {
            self.column::<ByteArrayType>(source, group, SKETCH, runs, &mut decoded.sketches)?;
        }
        for (column, field) in VALUE_COLUMNS {
            if !fields.has(field) {
                continue;
            }
            match column {
                FIRST_TIME => {
                    self.column::<Int64Type>(source, group, column, runs, &mut decoded.first_ms)?;
                }
                LAST_TIME => {
                    self.column::<Int64Type>(source, group, column, runs, &mut decoded.last_ms)?;
                }
                _ => {
                    let values = &mut decoded.values[column];
                    self.column::<DoubleType>(source, group, column, runs, values)?;
                }
            }
        }
        Ok(decoded)
    }
}

/// Read runs of rows, ascending. False where the column has fewer rows.
fn read_runs<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    nullable: bool,
    runs: &[Range<u64>],
    out: &mut Vec<T::T>,
) -> std::result::Result<bool, ParquetError> {
    let mut levels: Vec<i16> = Vec::new();
    let mut at = 0;
    for run in runs {
        let gap = (run.start - at) as usize;
        if reader.skip_records(gap)? != gap {
            return Ok(false);
        }
        let mut left = (run.end - run.start) as usize;
        while left > 0 {
            levels.clear();
            let start = out.len();
            let given = nullable.then_some(&mut levels);
            let (rows, values, _) = reader.read_records(left, given, None, out)?;
            if rows == 0 {
                return Ok(false);
            }
            if nullable && values < rows {
                spread::<T>(&levels, start, values, out);
            }
            left -= rows;
        }
        at = run.end;
    }
    Ok(true)
}

/// Move values that stand together from `start` on to the rows that they belong to.
fn spread<T: DataType>(levels: &[i16], start: usize, values: usize, out: &mut Vec<T::T>) {
    out.resize(start + levels.len(), T::T::default());
    let mut from = start + values;
    for row in (0..levels.len()).rev() {
        if levels[row] == 0 {
            out[start + row] = T::T::default();
        } else {
            from -= 1;
            out.swap(start + row, from);
        }
    }
}

/// Columns of some rows; those not asked for are empty.
#[derive(Default)]
struct Decoded {
    end_ms: Vec<i64>,
    count: Vec<i32>,
    ends_stale: Vec<bool>,
    first_ms: Vec<i64>,
    last_ms: Vec<i64>,
    values: [Vec<f64>; COLUMN_COUNT],
    /// Without data where a row has none.
    sketches: Vec<ByteArray>,
}

impl Decoded {
    /// Append these rows to the windows, zeros where a column was not asked for.
    fn append(&self, rows: Range<usize>, out: &mut WindowColumns) {
        let first = out.end_ms.len();
        for (place, sketch) in self.sketches.get(rows.clone()).into_iter().flatten().enumerate() {
            if *sketch != ByteArray::default() {
                out.sketches.push(first + place, sketch.data());
            }
        }
        out.end_ms.extend_from_slice(&self.end_ms[rows.clone()]);
        let count = out.end_ms.len();
        out.count.extend(self.count.get(rows.clone()).into_iter().flatten().map(|&n| n as u32));
        out.count.resize(count, 0);
        out.ends_stale.extend(self.ends_stale.get(rows.clone()).into_iter().flatten());
        out.ends_stale.resize(count, false);
        for (to, from) in [(&mut out.first_ms, &self.first_ms), (&mut out.last_ms, &self.last_ms)] {
            to.extend(from.get(rows.clone()).into_iter().flatten());
            to.resize(count, 0);
        }
        for (column, field) in VALUE_COLUMNS {
            let to = match field {
                Fields::FIRST => &mut out.first,
                Fields::LAST => &mut out.last,
                Fields::DROPPED => &mut out.dropped,
                Fields::SUM => &mut out.sum,
                Fields::MINIMUM => &mut out.minimum,
                Fields::MAXIMUM => &mut out.maximum,
                _ => continue,
            };
            to.extend(self.values[column].get(rows.clone()).into_iter().flatten());
            to.resize(count, 0.0);
        }
    }
}

impl WindowFile for ColdFile {
    fn window_ms(&self) -> i64 {
        self.facts.window_ms
    }

    fn series_count(&self) -> usize {
        self.facts.series
    }

    fn select(&self, matchers: &[Matcher], series_max: usize) -> Result<Vec<u32>> {
        self.index.dictionary.select(matchers, series_max)
    }

    /// Where few series of many pages are meant, as of jobs that lived for minutes, reading when their
    /// windows end is far less than the labels of all that stand beside them.
    fn within(&self, series: Vec<u32>, range_ms: Range<i64>) -> Result<Vec<u32>> {
        if self.is_apart(&range_ms) {
            return Ok(Vec::new());
        }
        let page_of = |number: &u32| *number as usize / LABEL_PAGE_SERIES;
        let pages = series.chunk_by(|a, b| page_of(a) == page_of(b)).count();
        if series.len() > pages * SPARSE_SERIES_MAX {
            return Ok(series);
        }
        let source = Arc::new(Source::new(&self.file, self.bytes));
        let mut kept = Vec::new();
        for some in series.chunks(WITHIN_SERIES) {
            self.by_group(&self.index.placed(some)?, |group, group_from, here| {
                let runs = runs_of(here, group_from)?;
                let mut end_ms = Vec::new();
                self.column::<Int64Type>(&source, group, WINDOW_END, &runs, &mut end_ms)?;
                let found = here.iter().zip(rows_of(here));
                let found = found
                    .filter(|(_, rows)| !in_range(&end_ms, rows.clone(), &range_ms).is_empty());
                kept.extend(found.map(|(series, _)| series.number));
                Ok(())
            })?;
        }
        Ok(kept)
    }

    fn labels(&self, series: &[u32]) -> Result<LabelTable> {
        self.index.dictionary.labels(series)
    }

    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>> {
        self.index.dictionary.label_names(matchers)
    }

    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>> {
        self.index.dictionary.label_values(name, matchers)
    }

    fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.metadata.memory_size()
    }

    fn marked(&self) -> Marked {
        Marked { folded_series: self.facts.folded, digits: self.facts.digits }
    }

    fn marks(&self, series: &[u32]) -> Result<Vec<Mark>> {
        if !self.marked().is_any() {
            return Ok(vec![Mark::NONE; series.len()]);
        }
        self.index.dictionary.marks(series)
    }

    fn taken(&self) -> &[String] {
        &self.facts.taken
    }

    fn read(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        fields: Fields,
        out: &mut WindowColumns,
    ) -> Result<u64> {
        let placed = self.index.placed(series)?;
        let source = Arc::new(Source::new(&self.file, self.bytes));
        let apart = self.is_apart(&range_ms);
        self.by_group(&placed, |group, group_from, here| {
            if apart {
                here.iter().for_each(|series| out.end_series(series.kind));
                return Ok(());
            }
            let decoded = self.decode(&source, group, &runs_of(here, group_from)?, fields)?;
            for (series, rows) in here.iter().zip(rows_of(here)) {
                decoded.append(in_range(&decoded.end_ms, rows, &range_ms), out);
                out.end_series(series.kind);
            }
            Ok(())
        })?;
        Ok(source.read.load(Ordering::Relaxed))
    }
}

/// Where each of these series' rows stand, once they are read one behind the other.
fn rows_of(series: &[Placed]) -> impl Iterator<Item = Range<usize>> {
    series.iter().scan(0, |at, series| {
        let from = *at;
        *at += (series.rows.end - series.rows.start) as usize;
        Some(from..*at)
    })
}

/// Those of a series' rows whose windows end in the range.
fn in_range(end_ms: &[i64], rows: Range<usize>, range_ms: &Range<i64>) -> Range<usize> {
    let ends = &end_ms[rows.clone()];
    let from = rows.start + ends.partition_point(|&end| end < range_ms.start);
    let to = rows.start + ends.partition_point(|&end| end < range_ms.end);
    from..to.max(from)
}

/// Rows of these series within their group, neighbours joined.
fn runs_of(series: &[Placed], group_from: u64) -> Result<Vec<Range<u64>>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for Placed { rows, .. } in series {
        let start = rows.start.checked_sub(group_from);
        let start = start.ok_or_else(|| KernelError::corruption("cold object: a series is cut"))?;
        let end = rows.end - group_from;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            Some(last) if last.end > start => {
                return Err(KernelError::Backend(
                    "cold object: a series asked for twice".to_owned(),
                ));
            }
            _ => runs.push(start..end),
        }
    }
    Ok(runs)
}

/// The object's bytes for the library, counted.
struct Source {
    file: Arc<dyn DiskFile>,
    bytes: u64,
    read: Arc<AtomicU64>,
}

impl Source {
    fn new(file: &Arc<dyn DiskFile>, bytes: u64) -> Source {
        Source { file: Arc::clone(file), bytes, read: Arc::default() }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Source {
    type T = SourceRead;

    fn get_read(&self, start: u64) -> std::result::Result<SourceRead, ParquetError> {
        let source = Source { read: Arc::clone(&self.read), ..Source::new(&self.file, self.bytes) };
        Ok(SourceRead { source, at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of {}", self.bytes)));
        }
        let mut buffer = vec![0; length];
        if read_full(&*self.file, start, &mut buffer)? < length {
            return Err(ParquetError::EOF(format!("{length} bytes at {start}: cut off")));
        }
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(Bytes::from(buffer))
    }
}

struct SourceRead {
    source: Source,
    at: u64,
}

impl Read for SourceRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.file.read_at(self.at, buffer)?;
        self.source.read.fetch_add(count as u64, Ordering::Relaxed);
        self.at += count as u64;
        Ok(count)
    }
}
