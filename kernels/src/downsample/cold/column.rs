//! One column of a row group, encoded by trial: the smallest of the encodings that every engine
//! reads wins, ties going to the first.

use super::page::ChecksummedPages;
use super::unwritable;
use crate::error::Result;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::writer::{ColumnCloseResult, ColumnWriter, get_column_writer};
use parquet::data_type::ByteArray;
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesPtr, WriterVersion,
};
use parquet::schema::types::ColumnDescPtr;
use std::sync::Arc;

/// Rows of a page: what is read at least where one series is asked for. All columns of a row group
/// are cut alike.
pub const PAGE_ROWS: usize = 8_192;
/// Rows that the library takes before it looks whether the page is full.
const BATCH_ROWS: usize = 1_024;
/// Pages end by their rows, not by their bytes.
const PAGE_BYTES: usize = 64 << 20;
/// A dictionary is read whole, whatever part of its row group is asked for.
const DICTIONARY_BYTES_MAX: usize = 512 << 10;
const ZSTD_LEVEL: i32 = 9;

/// Values that are there; which rows they belong to say the levels.
pub enum Values<'a> {
    Text(&'a [ByteArray]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Double(&'a [f64]),
    Truth(&'a [bool]),
    /// Bytes of no order, none like another.
    Opaque(&'a [ByteArray]),
}

pub struct Chunk {
    pub bytes: Bytes,
    pub close: ColumnCloseResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    Dictionary,
    Plain,
    Delta,
}

impl Values<'_> {
    fn trials(&self) -> &'static [Trial] {
        match self {
            Values::Text(_) => &[Trial::Dictionary],
            Values::Int32(_) | Values::Int64(_) => &[Trial::Dictionary, Trial::Delta],
            Values::Truth(_) | Values::Opaque(_) => &[Trial::Plain],
            // The library's dictionary takes -0 for 0.
            Values::Double(values) if values.iter().any(|v| *v == 0.0 && v.is_sign_negative()) => {
                &[Trial::Plain]
            }
            Values::Double(_) => &[Trial::Dictionary, Trial::Plain],
        }
    }
}

/// Encode a column. `levels` is 1 for each row with a value and 0 for each without, and None where
/// the column is required. `ordered`: pages tell their least and greatest value.
pub fn encode(
    column: &ColumnDescPtr,
    values: &Values<'_>,
    levels: Option<&[i16]>,
    ordered: bool,
) -> Result<Chunk> {
    let mut best: Option<Chunk> = None;
    for &trial in values.trials() {
        let statistics = match values {
            Values::Opaque(_) => EnabledStatistics::None,
            _ if ordered => EnabledStatistics::Page,
            _ => EnabledStatistics::Chunk,
        };
        let chunk = encode_as(column, values, levels, properties(trial, statistics))?;
        if best.as_ref().is_none_or(|best| chunk.bytes.len() < best.bytes.len()) {
            best = Some(chunk);
        }
    }
    Ok(best.expect("each type has a trial"))
}

fn properties(trial: Trial, statistics: EnabledStatistics) -> WriterPropertiesPtr {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("a level of zstd");
    let builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_write_batch_size(BATCH_ROWS)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_statistics_enabled(statistics)
        .set_dictionary_enabled(trial == Trial::Dictionary);
    Arc::new(match trial {
        Trial::Dictionary => builder.build(),
        Trial::Plain => builder.set_encoding(Encoding::PLAIN).build(),
        Trial::Delta => builder.set_encoding(Encoding::DELTA_BINARY_PACKED).build(),
    })
}

fn encode_as(
    column: &ColumnDescPtr,
    values: &Values<'_>,
    levels: Option<&[i16]>,
    properties: WriterPropertiesPtr,
) -> Result<Chunk> {
    let mut bytes = Vec::new();
    let pages = Box::new(ChecksummedPages { out: &mut bytes });
    let mut writer = get_column_writer(Arc::clone(column), properties, pages);
    let written = match (&mut writer, values) {
        (ColumnWriter::ByteArrayColumnWriter(w), Values::Text(v) | Values::Opaque(v)) => {
            w.write_batch(v, levels, None)
        }
        (ColumnWriter::Int32ColumnWriter(w), Values::Int32(v)) => w.write_batch(v, levels, None),
        (ColumnWriter::Int64ColumnWriter(w), Values::Int64(v)) => w.write_batch(v, levels, None),
        (ColumnWriter::DoubleColumnWriter(w), Values::Double(v)) => w.write_batch(v, levels, None),
        (ColumnWriter::BoolColumnWriter(w), Values::Truth(v)) => w.write_batch(v, levels, None),
        _ => unreachable!("the schema and the rows are written together"),
    };
    written.map_err(|error| unwritable(&error))?;
    let close = writer.close().map_err(|error| unwritable(&error))?;
    Ok(Chunk { bytes: Bytes::from(bytes), close })
}
