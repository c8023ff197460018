//! A partition slice's columns (docs/formats/kafka.md), back into a batch.
//!
//! Invariant: whatever the bytes are, they become a batch that every later stage may rely on, or an
//! error; nothing is taken of a size that was not compared with the bytes that are there.

use super::decoder::Decoder;
use super::labels::{Fault, judge_canonical, judge_raw};
use super::limits::{METADATA_MAX, POINTS_MAX, TIME_MIN_MS};
use super::proto::Cursor;
use crate::error::{KernelError, Result};
use crate::model::{Batch, BatchSeries, FamilyMetadata, HistogramPoint, SeriesType};

pub const VERSION: u32 = 1;
pub const HEAD_BYTES: usize = 32;
/// Of a series' kind: its labels are canonical.
pub const CANONICAL_BIT: u8 = 0x80;
const TYPE_MAX: u8 = SeriesType::StateSet as u8;

#[cold]
fn poison(what: &str) -> KernelError {
    KernelError::corruption(format!("slice: {what}"))
}

/// What is left of the payload.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The next bytes, which `check_sizes` has found to be there.
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let split = self.0.split_at_checked(count).ok_or_else(|| poison("it ends early"))?;
        self.0 = split.1;
        Ok(split.0)
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<u32>> {
        let (chunks, _) = self.bytes(4 * count)?.as_chunks::<4>();
        Ok(chunks.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    fn times_ms(&mut self, count: usize) -> Result<Vec<i64>> {
        let (chunks, _) = self.bytes(8 * count)?.as_chunks::<8>();
        let times: Vec<i64> = chunks.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        if times.iter().any(|&time_ms| time_ms < TIME_MIN_MS) {
            return Err(poison("a time before all times"));
        }
        Ok(times)
    }
}

/// The batch of a payload that is not empty; its counts of points are for the caller to fill in.
/// Errors: `Corruption`.
pub fn decode(payload: &[u8], decoder: &Decoder) -> Result<Batch> {
    let mut rest = Rest(payload);
    let head = rest.numbers(HEAD_BYTES / 4)?;
    if head[0] != VERSION || head[7] != 0 {
        return Err(poison("not version 1"));
    }
    let size = |at: usize| head[at] as usize;
    let (series, points, histograms, families) = (size(1), size(2), size(3), size(4));
    if points + histograms > POINTS_MAX || series > points + histograms || families > METADATA_MAX {
        return Err(poison("more rows than a request may hold"));
    }
    let label_ends = rest.numbers(series)?;
    let kinds = rest.bytes(series)?;
    let mut batch = Batch {
        point_series_index: rest.numbers(points)?,
        point_time_ms: rest.times_ms(points)?,
        ..Batch::default()
    };
    let (values, _) = rest.bytes(8 * points)?.as_chunks::<8>();
    batch.point_value.extend(values.iter().map(|bytes| f64::from_le_bytes(*bytes)));
    let histogram_series = rest.numbers(histograms)?;
    let histogram_times_ms = rest.times_ms(histograms)?;
    let histogram_ends = rest.numbers(histograms)?;
    batch.label_bytes = decoder.take_buffer();
    batch.label_bytes.extend_from_slice(rest.bytes(size(5))?);
    batch.histogram_bytes = rest.bytes(size(6))?.to_vec();
    let numbers = batch.point_series_index.iter().chain(&histogram_series);
    if numbers.copied().any(|number| number as usize >= series) {
        return Err(poison("a row of no series"));
    }
    push_series(&mut batch, &label_ends, kinds, decoder)?;
    let mut start = 0;
    for ((&series_index, &time_ms), &end) in
        histogram_series.iter().zip(&histogram_times_ms).zip(&histogram_ends)
    {
        if end <= start {
            return Err(poison("a histogram without bytes"));
        }
        batch.histograms.push(HistogramPoint { series_index, time_ms, start, end });
        start = end;
    }
    if start as usize != batch.histogram_bytes.len() {
        return Err(poison("histograms that do not fill their bytes"));
    }
    batch.metadata = read_families(rest.0, families)?;
    Ok(batch)
}

fn push_series(batch: &mut Batch, ends: &[u32], kinds: &[u8], decoder: &Decoder) -> Result<()> {
    let mut label_start = 0;
    batch.series.reserve(ends.len());
    for (&label_end, &kind) in ends.iter().zip(kinds) {
        let range = label_start as usize..label_end as usize;
        let labels = batch.label_bytes.get(range).ok_or_else(|| poison("labels out of place"))?;
        let canonical = kind & CANONICAL_BIT != 0;
        if kind & !CANONICAL_BIT > TYPE_MAX {
            return Err(poison("a type of series that nobody knows"));
        }
        let label_hash =
            if canonical { decoder.hash_canonical(labels) } else { decoder.hash_raw(labels) };
        let series_type = SeriesType::from_u8(kind & !CANONICAL_BIT);
        batch.series.push(BatchSeries {
            label_hash,
            label_start,
            label_end,
            canonical,
            series_type,
        });
        label_start = label_end;
    }
    if label_start as usize != batch.label_bytes.len() {
        return Err(poison("labels that do not fill their bytes"));
    }
    // In a loop of their own, where the look-ups' cache misses overlap (see `Rows::finish`).
    let unknown: Vec<&BatchSeries> =
        batch.series.iter().filter(|series| !decoder.is_known(series.label_hash)).collect();
    for series in unknown {
        let labels = &batch.label_bytes[series.label_start as usize..series.label_end as usize];
        match if series.canonical { judge_canonical(labels) } else { judge_raw(labels) } {
            Ok(()) => decoder.remember(series.label_hash),
            Err(Fault::Malformed) => return Err(poison("labels that are none")),
            Err(Fault::Refused(why)) => return Err(poison(&why.message)),
        }
    }
    Ok(())
}

fn read_families(bytes: &[u8], count: usize) -> Result<Vec<FamilyMetadata>> {
    let broken = |_| poison("a family's texts");
    let mut cursor = Cursor::new(bytes);
    let mut families = Vec::with_capacity(count.min(bytes.len() / 4));
    for _ in 0..count {
        let kind = cursor.peek().filter(|&kind| kind <= TYPE_MAX);
        let series_type = kind.map(SeriesType::from_u8).ok_or_else(|| poison("a family's type"))?;
        cursor.at += 1;
        let mut text = || {
            let bytes = cursor.slice().map_err(broken)?;
            let text =
                std::str::from_utf8(bytes).map_err(|_| poison("a text that is not UTF-8"))?;
            Ok::<String, KernelError>(text.to_owned())
        };
        let (name, help, unit) = (text()?, text()?, text()?);
        families.push(FamilyMetadata { name, series_type, help, unit });
    }
    if !cursor.done() {
        return Err(poison("something behind the last family"));
    }
    Ok(families)
}
