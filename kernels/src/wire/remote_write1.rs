//! Remote write 1.0 (prometheus.WriteRequest): the most common sender and the fastest path.
//!
//! A series whose labels stand together, as every sender writes them, stays where it is in the
//! body, and if its hash was found valid before, nothing in it is looked at again. Labels that are
//! scattered over the message are made canonical on the spot.

use super::decoder::Decoder;
use super::histogram::Draft;
use super::labels::{Fault, canonical_labels};
use super::proto::{Cursor, Malformed, wrong_version};
use super::rows::Rows;
use crate::error::Result;
use crate::model::{Batch, SeriesType};

/// Typical bytes of a series with one sample; only guides the first reservation.
const SERIES_BYTES_TYPICAL: usize = 200;

pub fn decode(body: Vec<u8>, received_ms: i64, decoder: &Decoder, judged: bool) -> Result<Batch> {
    let mut rows = Rows::new(decoder, received_ms, body.len());
    rows.reserve(body.len() / SERIES_BYTES_TYPICAL + 1);
    let mut cursor = Cursor::new(&body);
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x0a => series(cursor.message()?, &mut rows)?,
            0x1a => metadata(cursor.message()?, &mut rows)?,
            // Symbols and series of a 2.0 message: it would be taken for an empty one.
            0x22 | 0x2a => return Err(wrong_version("1.0", "2.0")),
            _ => cursor.skip(tag)?,
        }
    }
    if judged { Ok(rows.finish_judged(body)) } else { rows.finish(body) }
}

#[inline]
fn series(mut cursor: Cursor, rows: &mut Rows) -> Result<()> {
    let whole = cursor;
    rows.begin_series();
    let label_start = cursor.at;
    while cursor.peek() == Some(0x0a) {
        cursor.at += 1;
        cursor.range()?;
    }
    let label_range = label_start..cursor.at;
    let mut scattered = false;
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x12 => rows.read_sample(cursor.message()?)?,
            0x22 => rows.push_histogram(Draft::from_remote_write(cursor.message()?)?)?,
            0x1a => {
                cursor.range()?;
                rows.batch.exemplars_received += 1;
            }
            0x0a => {
                cursor.range()?;
                scattered = true;
            }
            _ => cursor.skip(tag)?,
        }
    }
    if scattered {
        return series_scattered(whole, rows);
    }
    if rows.series_has_points() {
        let hash = rows.decoder.hash_raw(&whole.bytes[label_range.clone()]);
        rows.end_series_raw(label_range, hash);
    }
    Ok(())
}

/// Labels with something else between them: gather and make canonical.
#[cold]
fn series_scattered(mut cursor: Cursor, rows: &mut Rows) -> Result<()> {
    let mut raw = Vec::new();
    loop {
        let before = cursor.at;
        let Some(tag) = cursor.next_tag()? else { break };
        cursor.skip(tag)?;
        if tag == 0x0a {
            raw.push(0x0a);
            let mut field = Cursor { bytes: &cursor.bytes[..cursor.at], at: before };
            field.varint()?;
            raw.extend_from_slice(&field.bytes[field.at..]);
        }
    }
    if !rows.series_has_points() {
        return Ok(());
    }
    let mut canonical = Vec::new();
    match canonical_labels(&raw, &mut canonical) {
        Ok(()) => rows.end_series_canonical(SeriesType::Unknown, |out| {
            out.extend_from_slice(&canonical);
        }),
        Err(Fault::Malformed) => Err(Malformed.into()),
        Err(Fault::Refused(refused)) => {
            rows.refuse_series(&refused);
            Ok(())
        }
    }
}

fn metadata(mut cursor: Cursor, rows: &mut Rows) -> Result<()> {
    let (mut kind, mut name, mut help, mut unit) = (0, &[][..], &[][..], &[][..]);
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x08 => kind = cursor.varint()?,
            0x12 => name = cursor.slice()?,
            0x22 => help = cursor.slice()?,
            0x2a => unit = cursor.slice()?,
            _ => cursor.skip(tag)?,
        }
    }
    // The wire's MetricType has the numbers of SeriesType.
    let series_type = SeriesType::from_u8(u8::try_from(kind).unwrap_or(0));
    rows.push_metadata(name, series_type, help, unit)
}
