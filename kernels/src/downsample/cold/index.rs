//! Which series an object holds, and in which rows: our own blob between the last row group and
//! Parquet's footer, which other engines never see.
//!
//! ```text
//! u32 series · u8[series] kind and mark · u32[series] rows · the label table (docs/formats/labels.md)
//! ```
//! Little-endian, one zstd frame; its place, sizes and CRC-32 stand in the key-value metadata.

use super::schema::IndexPlace;
use crate::downsample::columns::Kind;
use crate::downsample::mark::{Mark, Marked};
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, METRIC_NAME};
use crate::shard::matcher::Matcher;
use std::io::Read;
use std::ops::Range;

const ZSTD_LEVEL: i32 = 9;
const KIND_BITS: u32 = 2;
const KIND_MASK: u8 = (1 << KIND_BITS) - 1;
/// An index says its size before it is unpacked; no object of ours comes near.
pub const INDEX_BYTES_MAX: usize = 1 << 30;

#[derive(Debug)]
pub struct SeriesIndex {
    pub labels: LabelTable,
    pub kinds: Vec<Kind>,
    pub marks: Vec<Mark>,
    /// Rows of series `i`: `starts[i]..starts[i + 1]`, counted over all row groups.
    starts: Vec<u64>,
}

fn corrupt(why: &str) -> KernelError {
    KernelError::corruption(format!("cold object's index: {why}"))
}

/// The blob, and its size unpacked.
pub fn write(
    labels: &LabelTable,
    kinds: &[Kind],
    marks: &[Mark],
    rows: &[u32],
) -> Result<(Vec<u8>, usize)> {
    let table = labels.to_bytes();
    let mut plain = Vec::with_capacity(4 + kinds.len() * 5 + table.len());
    plain.extend_from_slice(&(kinds.len() as u32).to_le_bytes());
    let both = |(&kind, mark): (&Kind, &Mark)| kind as u8 | mark.to_u8() << KIND_BITS;
    plain.extend(kinds.iter().zip(marks).map(both));
    rows.iter().for_each(|rows| plain.extend_from_slice(&rows.to_le_bytes()));
    plain.extend_from_slice(&table);
    if plain.len() > INDEX_BYTES_MAX {
        return Err(KernelError::Backend("cold object: too many series for one".to_owned()));
    }
    Ok((zstd::bulk::compress(&plain, ZSTD_LEVEL)?, plain.len()))
}

impl SeriesIndex {
    pub fn read(bytes: &[u8], place: &IndexPlace) -> Result<SeriesIndex> {
        if crc32fast::hash(bytes) != place.crc32 {
            return Err(corrupt("checksum"));
        }
        if place.decoded_bytes > INDEX_BYTES_MAX {
            return Err(corrupt("too large"));
        }
        let mut plain = Vec::with_capacity(place.decoded_bytes);
        let frame = zstd::stream::read::Decoder::new(bytes).map_err(|_| corrupt("no frame"))?;
        frame
            .take(place.decoded_bytes as u64 + 1)
            .read_to_end(&mut plain)
            .map_err(|_| corrupt("a broken frame"))?;
        if plain.len() != place.decoded_bytes {
            return Err(corrupt("size"));
        }
        SeriesIndex::parse(&plain)
    }

    fn parse(plain: &[u8]) -> Result<SeriesIndex> {
        let short = || corrupt("ends early");
        let (count, rest) = plain.split_first_chunk::<4>().ok_or_else(short)?;
        let count = u32::from_le_bytes(*count) as usize;
        let (kinds, rest) = rest.split_at_checked(count).ok_or_else(short)?;
        let (rows, table) = rest.split_at_checked(count * 4).ok_or_else(short)?;
        let kind = |&code: &u8| Kind::from_u8(code & KIND_MASK).ok_or_else(|| corrupt("kind"));
        let mark = |&code: &u8| Mark::from_u8(code >> KIND_BITS).ok_or_else(|| corrupt("mark"));
        let marks = kinds.iter().map(mark).collect::<Result<Vec<_>>>()?;
        let kinds = kinds.iter().map(kind).collect::<Result<Vec<_>>>()?;
        let mut starts = vec![0u64];
        let mut row = 0u64;
        for rows in rows.as_chunks::<4>().0 {
            row += u64::from(u32::from_le_bytes(*rows));
            starts.push(row);
        }
        let labels = LabelTable::from_bytes(table)?;
        if labels.len() != count {
            return Err(corrupt("label sets"));
        }
        Ok(SeriesIndex { labels, kinds, marks, starts })
    }

    pub fn series_count(&self) -> usize {
        self.kinds.len()
    }

    pub fn rows(&self, series: usize) -> Range<u64> {
        self.starts[series]..self.starts[series + 1]
    }

    pub fn row_count(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Numbers of the series that pass all matchers, ascending. Each distinct value is asked once.
    pub fn select(&self, matchers: &[Matcher]) -> Result<Vec<u32>> {
        let mut passing: Vec<u32> = (0..self.kinds.len() as u32).collect();
        for matcher in matchers {
            let compiled = matcher.compile()?;
            let (codes, values) = self.labels.codes_of(&matcher.name);
            let passes: Vec<bool> = values.iter().map(|value| compiled.matches(value)).collect();
            passing.retain(|&series| passes[codes[series as usize] as usize]);
        }
        Ok(passing)
    }

    /// The series of a metric; they stand together.
    pub fn of_metric(&self, metric: &str) -> Range<usize> {
        let names = self.labels.values_of(METRIC_NAME);
        let from = names.partition_point(|name| *name < metric);
        from..from + names[from..].partition_point(|name| *name == metric)
    }

    /// What the marks come to.
    pub fn marked(&self) -> Marked {
        let mut marked = Marked::default();
        self.marks.iter().for_each(|&mark| marked.add(mark));
        marked
    }

    pub fn memory_bytes(&self) -> usize {
        self.labels.memory_bytes() + self.kinds.len() * 3 + self.starts.len() * 8
    }
}
