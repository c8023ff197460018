//! A checksum of what an object means: its series and windows, whatever the encoding. Writers and
//! readers compute it from opposite ends, so equal sums mean that all of it came through.

use super::schema::kind_name;
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::labels::LabelTable;
use crate::labels::canonical;
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

/// XXH3-64 over the series, ascending: canonical labels, kind, rows, then window by window what
/// its kind keeps.
#[derive(Default)]
pub struct Content {
    hash: Xxh3,
    scratch: Vec<u8>,
}

impl Content {
    pub fn add(
        &mut self,
        (labels, i): (&LabelTable, usize),
        kind: Kind,
        windows: &WindowColumns,
        rows: Range<usize>,
    ) {
        self.scratch.clear();
        let out = &mut self.scratch;
        canonical_labels(labels, i, out);
        out.extend_from_slice(kind_name(kind).as_bytes());
        out.extend_from_slice(&(rows.len() as u64).to_le_bytes());
        for at in rows {
            out.extend_from_slice(&windows.end_ms[at].to_le_bytes());
            out.extend_from_slice(&windows.count[at].to_le_bytes());
            out.push(u8::from(windows.ends_stale[at]));
            if windows.count[at] == 0 {
                continue;
            }
            out.extend_from_slice(&windows.first_ms[at].to_le_bytes());
            out.extend_from_slice(&windows.last_ms[at].to_le_bytes());
            let mut put = |value: f64| out.extend_from_slice(&value.to_bits().to_le_bytes());
            put(windows.first[at]);
            put(windows.last[at]);
            if kind.fields().has(Fields::DROPPED) {
                put(windows.dropped[at]);
            }
            if kind.fields().has(Fields::FOLDS) {
                put(windows.sum[at]);
                put(windows.minimum[at]);
                put(windows.maximum[at]);
            }
            if let Some(sketch) = windows.sketches.get(at) {
                out.extend_from_slice(&(sketch.len() as u64).to_le_bytes());
                out.extend_from_slice(sketch);
            }
        }
        self.hash.update(out);
    }

    pub fn sum(&self) -> u64 {
        self.hash.digest()
    }
}

/// Canonical labels of a series (docs/formats/registry.md).
pub fn canonical_labels(labels: &LabelTable, i: usize, out: &mut Vec<u8>) {
    for (name, value) in labels.labels(i) {
        canonical::push_label(out, name.as_bytes(), value.as_bytes());
    }
}
