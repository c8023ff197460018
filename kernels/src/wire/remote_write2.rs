//! Remote write 2.0 (io.prometheus.write.v2.Request): labels are references into a table of
//! symbols, so canonical bytes are built per series by copying the symbols' bytes.
//!
//! Invariant: a reference is checked against the table before use; a bad one costs its series only.

use super::decoder::Decoder;
use super::histogram::Draft;
use super::labels::{Judged, METRIC_NAME, Pair, Refused, too_many_labels};
use super::limits::{LABELS_MAX, SYMBOLS_MAX};
use super::proto::{Cursor, Read, VARINT, wrong_version};
use super::rows::{Rows, too_many};
use crate::error::{KernelError, Result};
use crate::labels::canonical::push_label;
use crate::model::{Batch, RejectReason, SeriesType};
use std::collections::HashSet;

struct Reader<'a> {
    symbols: Vec<&'a [u8]>,
    /// References of the series being read; reused.
    references: Vec<u32>,
    /// Families whose metadata the batch has: (name, type, help, unit) as references.
    families: HashSet<Family>,
    family_last: Option<Family>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Family {
    name: u32,
    kind: u32,
    help: u32,
    unit: u32,
}

pub fn decode(body: &[u8], received_ms: i64, decoder: &Decoder) -> Result<Batch> {
    let symbols = symbols(body)?;
    let mut rows = Rows::new(decoder, received_ms, 0);
    let mut reader =
        Reader { symbols, references: Vec::new(), families: HashSet::new(), family_last: None };
    let mut cursor = Cursor::new(body);
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x2a => reader.series(cursor.message()?, &mut rows)?,
            // Series and metadata of a 1.0 message: it would be taken for an empty one.
            0x0a | 0x1a => return Err(wrong_version("2.0", "1.0")),
            _ => cursor.skip(tag)?,
        }
    }
    rows.finish(Vec::new())
}

fn symbols(body: &[u8]) -> Result<Vec<&[u8]>> {
    let mut symbols = Vec::new();
    let mut cursor = Cursor::new(body);
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x22 if symbols.len() >= SYMBOLS_MAX => return Err(too_many("symbols", SYMBOLS_MAX)),
            0x22 => symbols.push(cursor.slice()?),
            _ => cursor.skip(tag)?,
        }
    }
    match symbols.first() {
        Some(first) if !first.is_empty() => {
            let message = "the first symbol must be the empty string";
            Err(KernelError::client(400, "sluiceway-body-malformed", message))
        }
        _ => Ok(symbols),
    }
}

impl<'a> Reader<'a> {
    fn series(&mut self, mut cursor: Cursor<'a>, rows: &mut Rows) -> Result<()> {
        rows.begin_series();
        self.references.clear();
        let mut family = Family::default();
        while let Some(tag) = cursor.next_tag()? {
            match tag >> 3 {
                1 => cursor.repeated((tag, VARINT), &mut self.references, 2 * LABELS_MAX, clamp)?,
                2 if tag == 0x12 => rows.read_sample(cursor.message()?)?,
                3 if tag == 0x1a => {
                    rows.push_histogram(Draft::from_remote_write(cursor.message()?)?)?;
                }
                4 if tag == 0x22 => {
                    cursor.range()?;
                    rows.batch.exemplars_received += 1;
                }
                5 if tag == 0x2a => family = read_family(cursor.message()?)?,
                _ => cursor.skip(tag)?,
            }
        }
        let series_type = SeriesType::from_u8(u8::try_from(family.kind).unwrap_or(0));
        match self.sorted_pairs() {
            Err(refused) => rows.refuse_series(&refused),
            Ok(_) if !rows.series_has_points() => {}
            Ok(pairs) => rows.end_series_canonical(series_type, |out| {
                pairs.iter().for_each(|(name, value)| push_label(out, name, value));
            })?,
        }
        if family != Family::default() {
            self.note_family(family, series_type, rows)?;
        }
        Ok(())
    }

    /// The labels by name, without empty ones; `finish` judges them if it has not seen them.
    fn sorted_pairs(&self) -> Judged<Vec<Pair<'a>>> {
        let references = &self.references;
        if references.len() > 2 * LABELS_MAX {
            return Err(too_many_labels());
        }
        if references.len() % 2 == 1 {
            let message = "a series has an odd number of label references";
            return Err(Refused::new(RejectReason::InvalidReference, message));
        }
        let mut pairs = Vec::with_capacity(references.len() / 2);
        for pair in references.chunks_exact(2) {
            let (name, value) = (self.symbol(pair[0])?, self.symbol(pair[1])?);
            if !value.is_empty() {
                pairs.push((name, value));
            }
        }
        if !pairs.is_sorted() {
            pairs.sort_unstable();
        }
        Ok(pairs)
    }

    fn symbol(&self, reference: u32) -> Judged<&'a [u8]> {
        self.symbols.get(reference as usize).copied().ok_or_else(|| {
            let message = format!("symbol {reference} is past the table of {}", self.symbols.len());
            Refused::new(RejectReason::InvalidReference, message)
        })
    }

    /// Keep a family's metadata once, under its family name: `x_bucket` declares `x`.
    fn note_family(&mut self, mut family: Family, kind: SeriesType, rows: &mut Rows) -> Result<()> {
        let symbol = |reference: u32| self.symbols.get(reference as usize).copied();
        let mut names = self.references.chunks_exact(2);
        let Some(name) = names.find(|pair| symbol(pair[0]) == Some(METRIC_NAME)) else {
            return Ok(());
        };
        family.name = name[1];
        if self.family_last.replace(family) == Some(family) || !self.families.insert(family) {
            return Ok(());
        }
        let (Some(name), Some(help), Some(unit)) =
            (symbol(family.name), symbol(family.help), symbol(family.unit))
        else {
            return Ok(());
        };
        let suffixes: &[&[u8]] = match kind {
            SeriesType::Histogram | SeriesType::GaugeHistogram => &[b"_bucket", b"_sum", b"_count"],
            SeriesType::Summary => &[b"_sum", b"_count"],
            _ => &[],
        };
        let base = suffixes.iter().find_map(|suffix| name.strip_suffix(*suffix)).unwrap_or(name);
        rows.push_metadata(base, kind, help, unit)
    }
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn read_family(mut cursor: Cursor) -> Read<Family> {
    let mut family = Family::default();
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x08 => family.kind = clamp(cursor.varint()?),
            0x18 => family.help = clamp(cursor.varint()?),
            0x20 => family.unit = clamp(cursor.varint()?),
            _ => cursor.skip(tag)?,
        }
    }
    Ok(family)
}
