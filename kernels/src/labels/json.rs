//! Answers as JSON, as Prometheus' HTTP API words them: the `result` array of a matrix or vector
//! and the `data` array of series. The envelope is the API's.

use super::number::{push_float, push_time};
use super::table::LabelTable;
use crate::error::{KernelError, Result, room_for};

/// A point with all its digits, and the labels of a series, as they mostly are at most.
const POINT_BYTES: usize = 40;
const SERIES_BYTES: usize = 200;

/// Room for `bytes` more, a little at a time: doubling would ask for twice what is needed, and a
/// `Vec` that cannot grow ends the process.
fn make_room(out: &mut Vec<u8>, bytes: usize) -> Result<()> {
    if out.capacity() - out.len() >= bytes {
        return Ok(());
    }
    out.try_reserve_exact(bytes.max(out.len() / 8))
        .map_err(|_| KernelError::out_of_memory("the answer"))
}

/// Series written between two looks at who may stop it.
const SERIES_A_LOOK: usize = 64;

/// Series of columns: `values` and `present` are [S, T], row-major.
pub struct Columns<'a> {
    pub values: &'a [f64],
    pub present: &'a [bool],
    pub steps: usize,
}

/// `[{"metric":{..},"values":[[time,"value"],..]},..]`; a series without a point is left out.
/// `check` is asked between series; its error ends the work.
pub fn write_matrix(
    labels: &LabelTable,
    columns: &Columns,
    start_ms: i64,
    step_ms: i64,
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<u8>> {
    let Columns { values, present, steps } = *columns;
    let cells = labels.len() * steps;
    if values.len() != cells || present.len() != cells {
        return Err(shape_error());
    }
    // The times are the same for every series: `[1435781430.781,"` once a step.
    let mut times = Vec::with_capacity(steps * 20);
    let mut time_ends = Vec::with_capacity(steps);
    for step in 0..steps as i64 {
        times.push(b'[');
        push_time(&mut times, start_ms.wrapping_add(step.wrapping_mul(step_ms)));
        times.extend_from_slice(b",\"");
        time_ends.push(times.len());
    }
    let points = present.iter().filter(|&&there| there).count();
    let mut out: Vec<u8> = room_for(points * 28 + labels.len() * 160 + 2, "the answer")?;
    out.push(b'[');
    for i in 0..labels.len() {
        if i % SERIES_A_LOOK == 0 {
            check()?;
        }
        let row = i * steps..(i + 1) * steps;
        let (values, present) = (&values[row.clone()], &present[row]);
        let points = present.iter().filter(|&&there| there).count();
        if points == 0 {
            continue;
        }
        make_room(&mut out, SERIES_BYTES + points * POINT_BYTES)?;
        separate(&mut out);
        out.extend_from_slice(b"{\"metric\":");
        push_labels(&mut out, labels, i);
        out.extend_from_slice(b",\"values\":[");
        let mut time_start = 0;
        for ((&value, &there), &time_end) in values.iter().zip(present).zip(&time_ends) {
            if there {
                out.extend_from_slice(&times[time_start..time_end]);
                push_float(&mut out, value);
                out.extend_from_slice(b"\"],");
            }
            time_start = time_end;
        }
        out.pop();
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    Ok(out)
}

/// The same with times of each series' own: series `i` owns points `offsets[i]..offsets[i + 1]`;
/// written in the order of `order`.
pub fn write_points(
    labels: &LabelTable,
    order: &[i64],
    offsets: &[i64],
    times_ms: &[i64],
    values: &[f64],
) -> Result<Vec<u8>> {
    if offsets.len() != labels.len() + 1 || times_ms.len() != values.len() {
        return Err(shape_error());
    }
    let mut out: Vec<u8> = room_for(times_ms.len() * 28 + labels.len() * 160 + 2, "the answer")?;
    out.push(b'[');
    for &row in order {
        let bounds =
            usize::try_from(row).ok().and_then(|row| Some((row, offsets.get(row..=row + 1)?)));
        let Some((row, &[from, until])) = bounds else { return Err(shape_error()) };
        let range = from as usize..until as usize;
        let (Some(times_ms), Some(values)) = (times_ms.get(range.clone()), values.get(range))
        else {
            return Err(shape_error());
        };
        if times_ms.is_empty() {
            continue;
        }
        separate(&mut out);
        out.extend_from_slice(b"{\"metric\":");
        push_labels(&mut out, labels, row);
        out.extend_from_slice(b",\"values\":[");
        for (&time_ms, &value) in times_ms.iter().zip(values) {
            out.push(b'[');
            push_time(&mut out, time_ms);
            out.extend_from_slice(b",\"");
            push_float(&mut out, value);
            out.extend_from_slice(b"\"],");
        }
        out.pop();
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    Ok(out)
}

/// `[{"metric":{..},"value":[time,"value"]},..]`
pub fn write_vector(labels: &LabelTable, values: &[f64], time_ms: i64) -> Result<Vec<u8>> {
    if values.len() != labels.len() {
        return Err(shape_error());
    }
    let mut time = Vec::new();
    push_time(&mut time, time_ms);
    let mut out: Vec<u8> = room_for(labels.len() * 200 + 2, "the answer")?;
    out.push(b'[');
    for (i, &value) in values.iter().enumerate() {
        separate(&mut out);
        out.extend_from_slice(b"{\"metric\":");
        push_labels(&mut out, labels, i);
        out.extend_from_slice(b",\"value\":[");
        out.extend_from_slice(&time);
        out.extend_from_slice(b",\"");
        push_float(&mut out, value);
        out.extend_from_slice(b"\"]}");
    }
    out.push(b']');
    Ok(out)
}

/// `[{..},..]`: the label sets themselves.
pub fn write_series(labels: &LabelTable) -> Vec<u8> {
    let mut out = vec![b'['];
    for i in 0..labels.len() {
        separate(&mut out);
        push_labels(&mut out, labels, i);
    }
    out.push(b']');
    out
}

fn shape_error() -> KernelError {
    KernelError::Backend("columns and labels differ in length".to_owned())
}

fn separate(out: &mut Vec<u8>) {
    if out.len() > 1 {
        out.push(b',');
    }
}

fn push_labels(out: &mut Vec<u8>, labels: &LabelTable, i: usize) {
    out.push(b'{');
    for (name, value) in labels.labels(i) {
        push_text(out, name);
        out.push(b':');
        push_text(out, value);
        out.push(b',');
    }
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b'}');
}

/// A JSON string. Only what JSON forbids is escaped; UTF-8 stays as it is.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
