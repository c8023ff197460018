//! A page: consecutive series of one tenant, their times and their values or histograms.
//! The layout is docs/formats/block.md, section Page; the page's checksum is the directory's.

use super::Codec;
use super::bytes::{Cursor, put_varint};
use super::column::{put_column, read_column};
use super::times::{TimeVectors, TimesBuilder, read_lengths, read_times};
use super::values::{ValuesEncoder, read_values};
use crate::error::{KernelError, Result};
use crate::model::{SeriesKey, SeriesRow, Symbol, TenantNumber};

/// No page holds more points; a reader allocates no more whatever a page says.
pub const PAGE_POINTS_MAX: usize = 1 << 18;
/// Bytes of one page's histograms, before compression.
pub const PAGE_HISTOGRAM_BYTES_MAX: usize = 64 << 20;
const ZSTD_LEVEL_FAST: i32 = 1;
const ZSTD_LEVEL_DENSE: i32 = 9;

/// What the points of a page are.
#[derive(Debug, Clone, PartialEq)]
pub enum PagePoints {
    Floats(Vec<f64>),
    /// Point `i` is `bytes[ends[i - 1]..ends[i]]`.
    Histograms {
        ends: Vec<u32>,
        bytes: Vec<u8>,
    },
}

impl Default for PagePoints {
    fn default() -> PagePoints {
        PagePoints::Floats(Vec::new())
    }
}

/// A page in memory: what a writer collects and what a reader decodes.
#[derive(Default)]
struct Keys {
    metrics: Vec<i64>,
    rows: Vec<i64>,
}

/// Collects series in key order until the writer closes the page.
#[derive(Default)]
pub struct PageBuilder {
    keys: Keys,
    times: TimesBuilder,
    pub points: PagePoints,
    pub point_count: usize,
    encoder: ValuesEncoder,
}

impl PageBuilder {
    pub fn floats() -> PageBuilder {
        PageBuilder::default()
    }
    pub fn histograms() -> PageBuilder {
        let points = PagePoints::Histograms { ends: Vec::new(), bytes: Vec::new() };
        PageBuilder { points, ..PageBuilder::default() }
    }

    /// Add a series and its times; the caller adds as many points.
    fn push_times(&mut self, key: SeriesKey, times: &[i64]) {
        self.keys.metrics.push(i64::from(key.metric));
        self.keys.rows.push(i64::from(key.row));
        self.times.push(times);
        self.point_count += times.len();
    }

    pub fn push_floats(&mut self, key: SeriesKey, times: &[i64], values: &[f64]) {
        self.push_times(key, times);
        if let PagePoints::Floats(all) = &mut self.points {
            all.extend_from_slice(values);
        }
    }

    pub fn push_histograms(&mut self, key: SeriesKey, times: &[i64], histograms: &[&[u8]]) {
        self.push_times(key, times);
        if let PagePoints::Histograms { ends, bytes } = &mut self.points {
            for histogram in histograms {
                bytes.extend_from_slice(histogram);
                ends.push(bytes.len() as u32);
            }
        }
    }

    /// Bytes of the histograms collected so far.
    pub fn histogram_bytes(&self) -> usize {
        match &self.points {
            PagePoints::Floats(_) => 0,
            PagePoints::Histograms { bytes, .. } => bytes.len(),
        }
    }

    /// Append the page to `out` and start the next one.
    pub fn encode(&mut self, out: &mut Vec<u8>, codec: Codec) -> Result<()> {
        put_varint(out, self.keys.rows.len() as u64);
        put_varint(out, self.point_count as u64);
        self.times.put_count(out);
        for column in [&mut self.keys.metrics, &mut self.keys.rows] {
            for index in (1..column.len()).rev() {
                column[index] -= column[index - 1];
            }
            put_column(out, column, codec);
            column.clear();
        }
        self.times.encode(out, codec);
        match &mut self.points {
            PagePoints::Floats(values) => {
                let lengths = self.times.series().map(<[i64]>::len);
                self.encoder.encode(out, codec, values, lengths);
                values.clear();
            }
            PagePoints::Histograms { ends, bytes } => {
                put_histograms(out, codec, ends, bytes)?;
                ends.clear();
                bytes.clear();
            }
        }
        self.times.clear();
        self.point_count = 0;
        Ok(())
    }
}

fn put_histograms(out: &mut Vec<u8>, codec: Codec, ends: &[u32], bytes: &[u8]) -> Result<()> {
    let mut start = 0;
    let lengths: Vec<i64> =
        ends.iter().map(|&end| i64::from(end - std::mem::replace(&mut start, end))).collect();
    put_column(out, &lengths, codec);
    let level = if codec == Codec::Fast { ZSTD_LEVEL_FAST } else { ZSTD_LEVEL_DENSE };
    let stored = zstd::bulk::compress(bytes, level)?;
    put_varint(out, bytes.len() as u64);
    put_varint(out, stored.len() as u64);
    out.extend_from_slice(&stored);
    Ok(())
}

/// A decoded page.
pub struct Page {
    pub tenant: TenantNumber,
    metrics: Vec<Symbol>,
    rows: Vec<SeriesRow>,
    times: TimeVectors,
    /// Where each series' points end.
    ends: Vec<u32>,
    pub points: PagePoints,
}

impl Page {
    pub fn series_count(&self) -> usize {
        self.rows.len()
    }
    pub fn key(&self, series: usize) -> SeriesKey {
        SeriesKey { tenant: self.tenant, metric: self.metrics[series], row: self.rows[series] }
    }
    pub fn times(&self, series: usize) -> &[i64] {
        self.times.of_series(series)
    }
    /// Range of a series' points among the page's.
    pub fn range(&self, series: usize) -> std::ops::Range<usize> {
        let start = if series == 0 { 0 } else { self.ends[series - 1] as usize };
        start..self.ends[series] as usize
    }
    /// Empty for a page of histograms.
    pub fn values(&self, series: usize) -> &[f64] {
        match &self.points {
            PagePoints::Floats(values) => &values[self.range(series)],
            PagePoints::Histograms { .. } => &[],
        }
    }
    /// The bytes of the page's point `point`; empty for a page of floats.
    pub fn histogram(&self, point: usize) -> &[u8] {
        match &self.points {
            PagePoints::Floats(_) => &[],
            PagePoints::Histograms { ends, bytes } => {
                let start = if point == 0 { 0 } else { ends[point - 1] as usize };
                &bytes[start..ends[point] as usize]
            }
        }
    }
    /// The first series at or after `from` whose key is not below `key`.
    pub fn seek(&self, from: usize, key: SeriesKey) -> usize {
        if from < self.rows.len() && self.key(from) >= key {
            return from;
        }
        if from + 1 < self.rows.len() && self.key(from + 1) >= key {
            return from + 1;
        }
        let wanted = (key.metric, key.row);
        let (mut low, mut high) = (from, self.rows.len());
        while low < high {
            let middle = (low + high) / 2;
            if (self.metrics[middle], self.rows[middle]) < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
    pub fn memory_bytes(&self) -> usize {
        let points = match &self.points {
            PagePoints::Floats(values) => values.len() * 8,
            PagePoints::Histograms { ends, bytes } => ends.len() * 4 + bytes.len(),
        };
        points + self.rows.len() * 12 + self.times.memory_bytes() + size_of::<Page>()
    }
}

/// Decode a page whose checksum is right. `points` is what the directory says it holds.
pub fn read_page(
    bytes: &[u8],
    tenant: TenantNumber,
    points: usize,
    histograms: bool,
) -> Result<Page> {
    let mut cursor = Cursor::new(bytes);
    let (series, vectors) = read_counts(&mut cursor, points)?;
    let metrics = read_numbers(&mut cursor, series)?;
    let rows = read_numbers(&mut cursor, series)?;
    let times = read_times(&mut cursor, series, vectors, points)?;
    let mut end = 0;
    let mut ends = Vec::with_capacity(series);
    for index in 0..series {
        end += times.of_series(index).len();
        ends.push(end as u32);
    }
    if end != points {
        return Err(wrong("length"));
    }
    let points = if histograms {
        read_histograms(&mut cursor, points)?
    } else {
        let mut values = Vec::with_capacity(points);
        let lengths = (0..series).map(|index| times.of_series(index).len());
        read_values(&mut cursor, lengths, &mut values)?;
        PagePoints::Floats(values)
    };
    if !cursor.is_empty() {
        return Err(wrong("end"));
    }
    Ok(Page { tenant, metrics, rows, times, ends, points })
}

/// What a page holds of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub metric: Symbol,
    pub row: SeriesRow,
    pub points: u32,
}

/// The series of a page and how many points each has, without decoding a point.
pub fn read_extents(bytes: &[u8], points: usize) -> Result<Vec<Extent>> {
    let mut cursor = Cursor::new(bytes);
    let (series, vectors) = read_counts(&mut cursor, points)?;
    let metrics = read_numbers(&mut cursor, series)?;
    let rows = read_numbers(&mut cursor, series)?;
    let lengths = read_lengths(&mut cursor, series, vectors, points)?;
    if lengths.iter().map(|&length| u64::from(length)).sum::<u64>() != points as u64 {
        return Err(wrong("length"));
    }
    let keys = metrics.into_iter().zip(rows).zip(lengths);
    Ok(keys.map(|((metric, row), points)| Extent { metric, row, points }).collect())
}

/// (series, time vectors) of a page of so many points.
fn read_counts(cursor: &mut Cursor, points: usize) -> Result<(usize, usize)> {
    let series = cursor.count(PAGE_POINTS_MAX)?;
    if cursor.count(PAGE_POINTS_MAX)? != points || series > points || series == 0 {
        return Err(wrong("point count"));
    }
    Ok((series, cursor.count(series)?))
}

fn wrong(what: &str) -> KernelError {
    KernelError::corruption(format!("block: page with a wrong {what}"))
}

fn read_numbers(cursor: &mut Cursor, count: usize) -> Result<Vec<u32>> {
    let mut column = Vec::new();
    read_column(cursor, count, &mut column)?;
    let mut number = 0i64;
    column
        .iter()
        .map(|step| {
            number = number.wrapping_add(*step);
            u32::try_from(number).map_err(|_| KernelError::corruption("block: key outside u32"))
        })
        .collect()
}

fn read_histograms(cursor: &mut Cursor, points: usize) -> Result<PagePoints> {
    let mut lengths = Vec::new();
    read_column(cursor, points, &mut lengths)?;
    let raw_length = cursor.count(PAGE_HISTOGRAM_BYTES_MAX)?;
    let stored_length = cursor.count(PAGE_HISTOGRAM_BYTES_MAX)?;
    let broken = || KernelError::corruption("block: histograms do not fit their lengths");
    let bytes =
        zstd::bulk::decompress(cursor.take(stored_length)?, raw_length).map_err(|_| broken())?;
    let mut end = 0usize;
    let ends: Vec<u32> = lengths
        .iter()
        .map(|&length| {
            end = usize::try_from(length).ok().and_then(|length| end.checked_add(length))?;
            (end <= raw_length).then_some(end as u32)
        })
        .collect::<Option<_>>()
        .ok_or_else(broken)?;
    if end != raw_length || bytes.len() != raw_length {
        return Err(broken());
    }
    Ok(PagePoints::Histograms { ends, bytes })
}
