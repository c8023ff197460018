//! Points as OpenMetrics lines: one sample with its time a line, series after series.
//!
//! Stale markers have no words in OpenMetrics and are left out; all other values read back to the
//! bit, but for what a NaN carries.

use super::bodies::Series;
use crate::error::Result;
use crate::labels::METRIC_NAME;
use crate::labels::number::{push_float, push_time};
use crate::model::STALE_BITS;

/// The lines, and how many.
pub fn write_text(series: &Series) -> Result<(Vec<u8>, u64)> {
    series.check()?;
    let mut out = Vec::with_capacity(series.values.len() * 64);
    let mut name = Vec::new();
    let mut lines = 0;
    for i in 0..series.labels.len() {
        name.clear();
        push_series(&mut name, series, i);
        for at in series.offsets[i] as usize..series.offsets[i + 1] as usize {
            let value = series.values[at];
            if value.to_bits() == STALE_BITS {
                continue;
            }
            out.extend_from_slice(&name);
            out.push(b' ');
            push_float(&mut out, value);
            out.push(b' ');
            push_time(&mut out, series.times_ms[at]);
            out.push(b'\n');
            lines += 1;
        }
    }
    Ok((out, lines))
}

fn push_series(out: &mut Vec<u8>, series: &Series, i: usize) {
    let metric = series.labels.value(i, METRIC_NAME);
    let plain = is_name(metric, true);
    if plain {
        out.extend_from_slice(metric.as_bytes());
    }
    out.push(b'{');
    if !plain {
        push_quoted(out, metric);
        out.push(b',');
    }
    for (name, value) in series.labels.labels(i).filter(|(name, _)| *name != METRIC_NAME) {
        if is_name(name, false) {
            out.extend_from_slice(name.as_bytes());
        } else {
            push_quoted(out, name);
        }
        out.push(b'=');
        push_quoted(out, value);
        out.push(b',');
    }
    match out.last() {
        Some(b',') => out.pop(),
        // No labels: the name alone.
        _ => {
            out.pop();
            return;
        }
    };
    out.push(b'}');
}

/// A name that needs no quotes; colons only in those of metrics.
fn is_name(name: &str, colons: bool) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (colons && byte == b':');
    !name.is_empty() && name.bytes().all(good) && !name.as_bytes()[0].is_ascii_digit()
}

fn push_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
