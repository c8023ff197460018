//! The rows of a row group before they are encoded: columns as Parquet takes them, values without
//! the nulls and beside them the levels that say where nulls stand.

use super::column::{Chunk, Values, encode};
use super::content::canonical_labels;
use super::schema::{self, COLUMN_COUNT, kind_name};
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, METRIC_NAME};
use crate::shard::registry::series_id;
use parquet::data_type::ByteArray;
use parquet::schema::types::SchemaDescPtr;
use std::ops::Range;

#[derive(Default)]
pub struct Rows {
    metric: Vec<ByteArray>,
    series: Vec<i32>,
    series_id: Vec<ByteArray>,
    labels: Vec<ByteArray>,
    kind: Vec<ByteArray>,
    window_end: Vec<i64>,
    points: Vec<i32>,
    ends_stale: Vec<bool>,
    /// Windows with points: their first and last.
    pointed: Levels,
    first_ms: Vec<i64>,
    first: Vec<f64>,
    last_ms: Vec<i64>,
    last: Vec<f64>,
    /// Windows with points of kinds that keep what resets lost.
    counted: Levels,
    increase: Vec<f64>,
    dropped: Vec<f64>,
    /// Windows with points of kinds that keep folds.
    folded: Levels,
    sum: Vec<f64>,
    minimum: Vec<f64>,
    maximum: Vec<f64>,
    /// Windows with a sketch.
    sketched: Levels,
    sketches: Vec<ByteArray>,
    sketch_bytes: usize,
}

type Levels = Vec<i16>;

impl Rows {
    pub fn len(&self) -> usize {
        self.window_end.len()
    }

    /// Bytes of the sketches.
    pub fn sketch_bytes(&self) -> usize {
        self.sketch_bytes
    }

    /// Append the windows of one series, whose number in the object is `number`.
    pub fn push(
        &mut self,
        tenant: &str,
        number: usize,
        (labels, i): (&LabelTable, usize),
        kind: Kind,
        windows: &WindowColumns,
        rows: Range<usize>,
    ) -> Result<()> {
        let number = i32::try_from(number).map_err(|_| too_many("series"))?;
        let count = self.len() + rows.len();
        let mut canonical = Vec::new();
        canonical_labels(labels, i, &mut canonical);
        let id = format!("{:032x}", series_id(tenant, &canonical));
        self.metric.resize(count, labels.value(i, METRIC_NAME).into());
        self.series.resize(count, number);
        self.series_id.resize(count, id.as_str().into());
        self.labels.resize(count, json(labels, i)?.as_str().into());
        self.kind.resize(count, kind_name(kind).into());
        self.window_end.extend_from_slice(&windows.end_ms[rows.clone()]);
        self.ends_stale.extend_from_slice(&windows.ends_stale[rows.clone()]);
        for at in rows {
            self.points.push(i32::try_from(windows.count[at]).map_err(|_| too_many("points"))?);
            self.push_values(kind, windows, at);
        }
        Ok(())
    }

    fn push_values(&mut self, kind: Kind, windows: &WindowColumns, at: usize) {
        let pointed = windows.count[at] > 0;
        let counted = pointed && kind.fields().has(Fields::DROPPED);
        let folded = pointed && kind.fields().has(Fields::FOLDS);
        self.pointed.push(i16::from(pointed));
        self.counted.push(i16::from(counted));
        self.folded.push(i16::from(folded));
        let sketch = windows.sketches.get(at);
        self.sketched.push(i16::from(sketch.is_some()));
        self.sketches.extend(sketch.map(|sketch| ByteArray::from(sketch.to_vec())));
        self.sketch_bytes += sketch.map_or(0, <[u8]>::len);
        if pointed {
            self.first_ms.push(windows.first_ms[at]);
            self.first.push(windows.first[at]);
            self.last_ms.push(windows.last_ms[at]);
            self.last.push(windows.last[at]);
        }
        if counted {
            let dropped = windows.dropped[at];
            self.increase.push(windows.last[at] - windows.first[at] + dropped);
            self.dropped.push(dropped);
        }
        if folded {
            self.sum.push(windows.sum[at]);
            self.minimum.push(windows.minimum[at]);
            self.maximum.push(windows.maximum[at]);
        }
    }

    /// All columns, in the schema's order.
    pub fn encode(&self, tenant: &str, columns: &SchemaDescPtr) -> Result<Vec<Chunk>> {
        let tenants = vec![ByteArray::from(tenant); self.len()];
        let (pointed, counted, folded) =
            (Some(&self.pointed), Some(&self.counted), Some(&self.folded));
        let mut all: Vec<(Values<'_>, Option<&Levels>)> = vec![
            (Values::Text(&tenants), None),
            (Values::Text(&self.metric), None),
            (Values::Int32(&self.series), None),
            (Values::Text(&self.series_id), None),
            (Values::Text(&self.labels), None),
            (Values::Text(&self.kind), None),
            (Values::Int64(&self.window_end), None),
            (Values::Int32(&self.points), None),
            (Values::Int64(&self.first_ms), pointed),
            (Values::Double(&self.first), pointed),
            (Values::Int64(&self.last_ms), pointed),
            (Values::Double(&self.last), pointed),
            (Values::Truth(&self.ends_stale), None),
            (Values::Double(&self.increase), counted),
            (Values::Double(&self.dropped), counted),
            (Values::Double(&self.sum), folded),
            (Values::Double(&self.minimum), folded),
            (Values::Double(&self.maximum), folded),
        ];
        debug_assert_eq!(all.len(), COLUMN_COUNT);
        if columns.num_columns() > schema::SKETCH {
            all.push((Values::Opaque(&self.sketches), Some(&self.sketched)));
        } else if !self.sketches.is_empty() {
            return Err(KernelError::Backend("cold object: sketches, and no column".to_owned()));
        }
        let chunk = |(column, (values, levels)): (usize, &(Values<'_>, Option<&Levels>))| {
            let ordered = matches!(
                column,
                schema::METRIC_NAME | schema::SERIES | schema::LABELS | schema::WINDOW_END
            );
            encode(&columns.column(column), values, levels.map(Vec::as_slice), ordered)
        };
        all.iter().enumerate().map(chunk).collect()
    }

    pub fn clear(&mut self) {
        *self = Rows::default();
    }
}

/// Labels without the metric's name as a JSON object, ascending by name.
pub fn json(labels: &LabelTable, i: usize) -> Result<String> {
    let mut text = String::from("{");
    for (name, value) in labels.labels(i).filter(|(name, _)| *name != METRIC_NAME) {
        if text.len() > 1 {
            text.push(',');
        }
        let write = |string: &str| {
            serde_json::to_string(string).map_err(|error| KernelError::Backend(error.to_string()))
        };
        text.push_str(&write(name)?);
        text.push(':');
        text.push_str(&write(value)?);
    }
    text.push('}');
    Ok(text)
}

fn too_many(what: &str) -> KernelError {
    KernelError::Backend(format!("cold object: more {what} than its column can say"))
}
