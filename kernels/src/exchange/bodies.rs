//! Series cut into remote write 1.0 bodies (prometheus.WriteRequest) of bounded size.
//!
//! Invariant: the bodies' series and points are those that went in, in their order, each value to
//! the bit; a series that a cut parts stands in both bodies.

use crate::error::{KernelError, Result};
use crate::labels::LabelTable;
use crate::model::SeriesType;
use crate::wire::put_varint;

const FIELD_SERIES: u8 = 0x0a;
const FIELD_METADATA: u8 = 0x1a;
const FIELD_LABEL: u8 = 0x0a;
const FIELD_SAMPLE: u8 = 0x12;
/// Bytes of a sample at most: tag, length, value, time.
const SAMPLE_BYTES_MAX: usize = 2 + 9 + 11;

/// What one body may hold, about: it is cut behind the point that reaches one of them.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub points_max: u64,
    pub bytes_max: usize,
}

/// A body, not compressed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub points: u64,
}

/// Points of series in columns: series `i` owns `offsets[i]..offsets[i + 1]`.
pub struct Series<'a> {
    pub labels: &'a LabelTable,
    pub offsets: &'a [i64],
    pub times_ms: &'a [i64],
    pub values: &'a [f64],
}

impl Series<'_> {
    pub fn check(&self) -> Result<()> {
        let fits = self.offsets.len() == self.labels.len() + 1
            && self.times_ms.len() == self.values.len()
            && self.offsets.first() == Some(&0)
            && self.offsets.last() == Some(&(self.values.len() as i64))
            && self.offsets.is_sorted();
        if fits {
            return Ok(());
        }
        Err(KernelError::Backend("points and labels differ in length".to_owned()))
    }
}

/// Bodies in the making.
pub(super) struct Bodies {
    limits: BodyLimits,
    done: Vec<Body>,
    open: Body,
    /// The series that is open: its labels as fields, its samples.
    labels: Vec<u8>,
    samples: Vec<u8>,
}

impl Bodies {
    pub fn new(limits: BodyLimits) -> Bodies {
        let (done, open) = (Vec::new(), Body::default());
        Bodies { limits, done, open, labels: Vec::new(), samples: Vec::new() }
    }

    /// Begin a series; its labels come by `label`.
    pub fn begin(&mut self) {
        self.end();
        self.labels.clear();
    }

    pub fn label(&mut self, name: &str, value: &str) {
        let mut label = Vec::with_capacity(name.len() + value.len() + 12);
        put_text(&mut label, 0x0a, name);
        put_text(&mut label, 0x12, value);
        self.raw_label(&label);
    }

    /// A label as the bytes of its message.
    pub fn raw_label(&mut self, label: &[u8]) {
        self.labels.push(FIELD_LABEL);
        put_varint(&mut self.labels, label.len() as u64);
        self.labels.extend_from_slice(label);
    }

    #[inline]
    pub fn sample(&mut self, time_ms: i64, value: f64) {
        let mut sample = [0u8; SAMPLE_BYTES_MAX];
        sample[0] = 0x09;
        sample[1..9].copy_from_slice(&value.to_le_bytes());
        sample[9] = 0x10;
        let mut at = 10;
        let mut rest = time_ms as u64;
        while rest > 0x7f {
            sample[at] = rest as u8 | 0x80;
            rest >>= 7;
            at += 1;
        }
        sample[at] = rest as u8;
        self.samples.push(FIELD_SAMPLE);
        self.samples.push(at as u8 + 1);
        self.samples.extend_from_slice(&sample[..=at]);
        self.open.points += 1;
        let bytes = self.open.bytes.len() + self.labels.len() + self.samples.len();
        if self.open.points >= self.limits.points_max || bytes >= self.limits.bytes_max {
            self.end();
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    pub fn metadata(&mut self, family: &str, series_type: SeriesType, help: &str, unit: &str) {
        self.end();
        let mut message = vec![0x08, series_type as u8];
        put_text(&mut message, 0x12, family);
        put_text(&mut message, 0x22, help);
        put_text(&mut message, 0x2a, unit);
        self.open.bytes.push(FIELD_METADATA);
        put_varint(&mut self.open.bytes, message.len() as u64);
        self.open.bytes.extend_from_slice(&message);
    }

    /// Close the series, where it has samples; more of them open it again.
    fn end(&mut self) {
        if self.samples.is_empty() {
            return;
        }
        self.open.bytes.push(FIELD_SERIES);
        put_varint(&mut self.open.bytes, (self.labels.len() + self.samples.len()) as u64);
        self.open.bytes.extend_from_slice(&self.labels);
        self.open.bytes.append(&mut self.samples);
    }

    pub fn finish(mut self) -> Vec<Body> {
        self.end();
        if !self.open.bytes.is_empty() {
            self.done.push(self.open);
        }
        self.done
    }
}

fn put_text(out: &mut Vec<u8>, tag: u8, text: &str) {
    if !text.is_empty() {
        out.push(tag);
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}

/// The series as bodies. Raises: Backend (columns that do not fit).
pub fn remote_write(series: &Series, limits: BodyLimits) -> Result<Vec<Body>> {
    series.check()?;
    let mut bodies = Bodies::new(limits);
    for i in 0..series.labels.len() {
        let range = series.offsets[i] as usize..series.offsets[i + 1] as usize;
        bodies.begin();
        series.labels.labels(i).for_each(|(name, value)| bodies.label(name, value));
        for at in range {
            bodies.sample(series.times_ms[at], series.values[at]);
        }
    }
    Ok(bodies.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PayloadEncoding, PayloadFormat, STALE_BITS};
    use crate::wire::{Decoder, decode};

    #[test]
    fn bodies_hold_what_went_in_however_they_are_cut() {
        let pairs =
            |i: usize| vec![("__name__".to_owned(), "m".to_owned()), ("i".into(), i.to_string())];
        let labels = LabelTable::from_lists(&(0..5).map(pairs).collect::<Vec<_>>());
        let offsets = [0, 3, 3, 10, 11, 30];
        let times_ms: Vec<i64> = (0..30).map(|i| i * 1_000 - 5_000).collect();
        let mut values: Vec<f64> = (0..30).map(|i| f64::from(i) / 3.0).collect();
        values[4] = f64::from_bits(STALE_BITS);
        let series =
            Series { labels: &labels, offsets: &offsets, times_ms: &times_ms, values: &values };
        for (points_max, bytes_max) in [(1, 1 << 20), (4, 1 << 20), (100, 64), (100, 1 << 20)] {
            let limits = BodyLimits { points_max, bytes_max };
            let bodies = remote_write(&series, limits).unwrap_or_default();
            assert_eq!(bodies.iter().map(|body| body.points).sum::<u64>(), 30);
            let decoder = Decoder::new(1);
            let (mut told_ms, mut told) = (Vec::new(), Vec::new());
            for body in &bodies {
                assert!(body.points <= points_max);
                let (format, plain) = (PayloadFormat::RemoteWrite1, PayloadEncoding::Identity);
                let Ok(batch) = decode(&body.bytes, format, plain, 1 << 40, &decoder) else {
                    panic!("a body that decodes");
                };
                assert_eq!(batch.points_received, body.points as u32);
                told_ms.extend_from_slice(&batch.point_time_ms);
                told.extend(batch.point_value.iter().map(|value| value.to_bits()));
            }
            assert_eq!(told_ms, times_ms);
            assert_eq!(told, values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        }
    }
}
