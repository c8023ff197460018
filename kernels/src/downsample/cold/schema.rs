//! The columns of a cold object, in their order, and what stands in its key-value metadata.
//!
//! Types are those that Athena, Trino, Spark, DuckDB and ClickHouse all read: nothing unsigned, no
//! nanoseconds, nothing nested. No column is named as a part of the path or a reserved word.

use crate::downsample::columns::{Fields, Kind};
use crate::error::{KernelError, Result};
use parquet::file::metadata::{FileMetaData, KeyValue, SortingColumn};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::TypePtr;
use serde::Serialize;
use std::sync::Arc;

pub const FORMAT: &str = "cold/2";
/// Read by engines that know a writer's faults; ours has none on their lists.
pub const CREATED_BY: &str = "sluiceway version 1.0.0 (build cold/2)";

// Numbers in the schema below; `Rows::encode` writes all of them in this order.
pub const METRIC_NAME: usize = 1;
pub const SERIES: usize = 2;
pub const LABELS: usize = 4;
pub const KIND: usize = 5;
pub const WINDOW_END: usize = 6;
pub const POINTS: usize = 7;
pub const FIRST_TIME: usize = 8;
pub const FIRST_VALUE: usize = 9;
pub const LAST_TIME: usize = 10;
pub const LAST_VALUE: usize = 11;
pub const ENDS_STALE: usize = 12;
pub const DROPPED: usize = 14;
pub const SUM_VALUE: usize = 15;
pub const MIN_VALUE: usize = 16;
pub const MAX_VALUE: usize = 17;
/// Columns of every object.
pub const COLUMN_COUNT: usize = 18;
/// The column after them, of objects with sketches.
pub const SKETCH: usize = 18;

const MESSAGE: &str = "message sluiceway_windows {
  required binary tenant_name (UTF8);
  required binary metric_name (UTF8);
  required int32 series;
  required binary series_id (UTF8);
  required binary labels (UTF8);
  required binary kind (UTF8);
  required int64 window_end (TIMESTAMP(MILLIS,true));
  required int32 points;
  optional int64 first_time (TIMESTAMP(MILLIS,true));
  optional double first_value;
  optional int64 last_time (TIMESTAMP(MILLIS,true));
  optional double last_value;
  required boolean ends_stale;
  optional double increase;
  optional double dropped;
  optional double sum_value;
  optional double min_value;
  optional double max_value;
";
const SKETCH_MESSAGE: &str = "  optional binary sketch;\n";

/// `sketched`: with the column of sketches.
pub fn schema(sketched: bool) -> TypePtr {
    let more = if sketched { SKETCH_MESSAGE } else { "" };
    let message = format!("{MESSAGE}{more}}}");
    Arc::new(parse_message_type(&message).expect("the schema is a constant"))
}

/// Rows ascend by series (and so by metric), then by time.
pub fn sorting() -> Vec<SortingColumn> {
    [METRIC_NAME, SERIES, WINDOW_END]
        .map(|column| SortingColumn {
            column_idx: column as i32,
            descending: false,
            nulls_first: false,
        })
        .to_vec()
}

pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Unknown => "unknown",
    }
}

/// The optional columns that hold `fields`, with the field of each.
pub const VALUE_COLUMNS: [(usize, Fields); 8] = [
    (FIRST_TIME, Fields::FIRST_MS),
    (FIRST_VALUE, Fields::FIRST),
    (LAST_TIME, Fields::LAST_MS),
    (LAST_VALUE, Fields::LAST),
    (DROPPED, Fields::DROPPED),
    (SUM_VALUE, Fields::SUM),
    (MIN_VALUE, Fields::MINIMUM),
    (MAX_VALUE, Fields::MAXIMUM),
];

/// Where the series index lies in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IndexPlace {
    pub offset: u64,
    pub bytes: u64,
    /// Of its end.
    pub root_bytes: usize,
    pub crc32: u32,
}

/// What an object says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    pub tenant: String,
    pub window_ms: i64,
    pub from_ms: i64,
    pub until_ms: i64,
    pub number: u64,
    pub series: usize,
    pub windows: u64,
    pub points: u64,
    pub content: u64,
    /// Series that lost labels on the way here, and the fewest digits that any was rounded to.
    pub folded: u64,
    pub digits: u8,
    /// Labels that were lost, ascending.
    pub taken: Vec<String>,
    /// Windows that have a sketch.
    pub sketches: u64,
    pub index: IndexPlace,
}

impl Facts {
    pub fn to_key_values(&self) -> Vec<KeyValue> {
        let place = &self.index;
        let index =
            format!("{} {} {} {:08x}", place.offset, place.bytes, place.root_bytes, place.crc32);
        let mut pairs = vec![
            ("sluiceway.format", FORMAT.to_owned()),
            ("sluiceway.tenant", self.tenant.clone()),
            ("sluiceway.window_ms", self.window_ms.to_string()),
            ("sluiceway.from_ms", self.from_ms.to_string()),
            ("sluiceway.until_ms", self.until_ms.to_string()),
            ("sluiceway.number", self.number.to_string()),
            ("sluiceway.series", self.series.to_string()),
            ("sluiceway.windows", self.windows.to_string()),
            ("sluiceway.points", self.points.to_string()),
            ("sluiceway.content", format!("{:016x}", self.content)),
            ("sluiceway.index", index),
        ];
        if self.digits > 0 {
            pairs.push(("sluiceway.digits", self.digits.to_string()));
        }
        if self.folded > 0 {
            pairs.push(("sluiceway.folded", self.folded.to_string()));
            pairs.push(("sluiceway.taken", serde_json::Value::from(&self.taken[..]).to_string()));
        }
        if self.sketches > 0 {
            pairs.push(("sluiceway.sketches", self.sketches.to_string()));
        }
        pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect()
    }

    pub fn of(file: &FileMetaData) -> Result<Facts> {
        let pairs = file.key_value_metadata().map_or(&[][..], Vec::as_slice);
        let given = |name: &str| {
            let found = pairs.iter().find(|pair| pair.key.strip_prefix("sluiceway.") == Some(name));
            found.and_then(|pair| pair.value.as_deref())
        };
        let text = |name: &str| {
            given(name).ok_or_else(|| KernelError::corruption(format!("cold object: no {name}")))
        };
        let taken = serde_json::from_str(given("taken").unwrap_or("[]"))
            .map_err(|_| KernelError::corruption("cold object: which labels are taken?"))?;
        let format = text("format")?;
        if format != FORMAT {
            let message = format!("cold object of format {format}, this release reads {FORMAT}");
            return Err(KernelError::corruption(message));
        }
        Ok(Facts {
            tenant: text("tenant")?.to_owned(),
            window_ms: number(text("window_ms")?)?,
            from_ms: number(text("from_ms")?)?,
            until_ms: number(text("until_ms")?)?,
            number: number(text("number")?)?,
            series: number(text("series")?)?,
            windows: number(text("windows")?)?,
            points: number(text("points")?)?,
            content: hexadecimal(text("content")?)?,
            folded: number(given("folded").unwrap_or("0"))?,
            digits: number(given("digits").unwrap_or("0"))?,
            taken,
            sketches: number(given("sketches").unwrap_or("0"))?,
            index: index_place(text("index")?)?,
        })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| KernelError::corruption(format!("cold object: not a number: {text}")))
}

fn hexadecimal(text: &str) -> Result<u64> {
    u64::from_str_radix(text, 16)
        .map_err(|_| KernelError::corruption(format!("cold object: not a number: {text}")))
}

fn index_place(text: &str) -> Result<IndexPlace> {
    let parts: Vec<&str> = text.split(' ').collect();
    let &[offset, bytes, root_bytes, crc32] = parts.as_slice() else {
        return Err(KernelError::corruption("cold object: where is its index?"));
    };
    Ok(IndexPlace {
        offset: number(offset)?,
        bytes: number(bytes)?,
        root_bytes: number(root_bytes)?,
        crc32: hexadecimal(crc32)? as u32,
    })
}
