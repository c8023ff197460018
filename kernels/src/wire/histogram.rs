//! Native histograms on the wire: judged, then written as canonical bytes (docs/formats/histogram.md).
//!
//! Invariant: what `encode` writes, every reader may trust: spans and buckets agree, no count is
//! negative, the schema is -4..8 or custom bounds.

use super::labels::{Judged, Refused};
use super::limits::HISTOGRAM_BUCKETS_MAX;
use super::proto::{Cursor, FIXED64, Read, VARINT, put_varint, unzigzag, zigzag};
use crate::model::{RejectReason, STALE_BITS};

pub const CUSTOM_SCHEMA: i32 = -53;
const SCHEMA_MIN: i32 = -4;
pub const SCHEMA_MAX: i32 = 8;
/// Finer schemas than 8 are merged down; past this one the wire format itself is not defined.
const SCHEMA_WIRE_MAX: i32 = 52;

pub const FLOAT: u8 = 1 << 2;
pub const CUSTOM: u8 = 1 << 3;
pub const STALE: u8 = 1 << 4;

/// A count: integer histograms keep all 64 bits, float ones any double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    Integer(u64),
    Float(f64),
}

/// Buckets of one sign. Integer histograms fill `deltas`, float ones `counts`.
#[derive(Default, Debug, Clone)]
pub struct Side {
    /// (distance to the span before, buckets in it); the first distance is the first index.
    pub spans: Vec<(i32, u32)>,
    pub deltas: Vec<i64>,
    pub counts: Vec<f64>,
}

/// A histogram as a client describes it; not judged yet. Reused from sample to sample.
#[derive(Debug)]
pub struct Draft {
    pub time_ms: i64,
    pub schema: i32,
    pub zero_threshold: f64,
    pub sum: f64,
    pub count: Count,
    pub zero_count: Count,
    pub positive: Side,
    pub negative: Side,
    pub custom_bounds: Vec<f64>,
    pub reset_hint: u8,
}

impl Default for Draft {
    fn default() -> Draft {
        Draft {
            time_ms: 0,
            schema: 0,
            zero_threshold: 0.0,
            sum: 0.0,
            count: Count::Integer(0),
            zero_count: Count::Integer(0),
            positive: Side::default(),
            negative: Side::default(),
            custom_bounds: Vec::new(),
            reset_hint: 0,
        }
    }
}

impl Draft {
    /// Read the `Histogram` message of remote write 1.0 and 2.0 (the same numbers in both).
    pub fn from_remote_write(mut cursor: Cursor) -> Read<Draft> {
        const MAX: usize = HISTOGRAM_BUCKETS_MAX;
        let mut draft = Draft::default();
        while let Some(tag) = cursor.next_tag()? {
            match tag >> 3 {
                1 if tag & 7 == 0 => draft.count = Count::Integer(cursor.varint()?),
                2 if tag & 7 == 1 => draft.count = Count::Float(cursor.double()?),
                3 if tag & 7 == 1 => draft.sum = cursor.double()?,
                4 if tag & 7 == 0 => draft.schema = zigzag(cursor.varint()?) as i32,
                5 if tag & 7 == 1 => draft.zero_threshold = cursor.double()?,
                6 if tag & 7 == 0 => draft.zero_count = Count::Integer(cursor.varint()?),
                7 if tag & 7 == 1 => draft.zero_count = Count::Float(cursor.double()?),
                8 if tag & 7 == 2 => draft.negative.push_span(cursor.message()?)?,
                9 => cursor.repeated((tag, VARINT), &mut draft.negative.deltas, MAX, zigzag)?,
                10 => cursor.repeated(
                    (tag, FIXED64),
                    &mut draft.negative.counts,
                    MAX,
                    f64::from_bits,
                )?,
                11 if tag & 7 == 2 => draft.positive.push_span(cursor.message()?)?,
                12 => cursor.repeated((tag, VARINT), &mut draft.positive.deltas, MAX, zigzag)?,
                13 => cursor.repeated(
                    (tag, FIXED64),
                    &mut draft.positive.counts,
                    MAX,
                    f64::from_bits,
                )?,
                14 if tag & 7 == 0 => draft.reset_hint = (cursor.varint()? & 3) as u8,
                15 if tag & 7 == 0 => draft.time_ms = cursor.varint()? as i64,
                16 => cursor.repeated(
                    (tag, FIXED64),
                    &mut draft.custom_bounds,
                    MAX,
                    f64::from_bits,
                )?,
                _ => cursor.skip(tag)?,
            }
        }
        Ok(draft)
    }

    /// Judge the histogram and append its canonical bytes. On refusal `out` is as it was.
    pub fn encode(mut self, out: &mut Vec<u8>) -> Judged<()> {
        if self.sum.to_bits() == STALE_BITS {
            out.push(STALE);
            return Ok(());
        }
        let float = matches!(self.count, Count::Float(_));
        let custom = self.schema == CUSTOM_SCHEMA;
        if custom {
            self.judge_custom()?;
        } else if !(SCHEMA_MIN..=SCHEMA_WIRE_MAX).contains(&self.schema) {
            return Err(refuse(format!("schema {} is not known", self.schema)));
        } else if !self.custom_bounds.is_empty() {
            return Err(refuse("custom bounds without schema -53"));
        }
        if self.zero_threshold.is_nan() || self.zero_threshold < 0.0 {
            return Err(refuse("the zero threshold is negative or not a number"));
        }
        let positive = self.positive.judge(float)?;
        let negative = self.negative.judge(float)?;
        self.judge_counts(float, positive, negative)?;
        if self.schema > SCHEMA_MAX {
            let shift = (self.schema - SCHEMA_MAX) as u32;
            self.positive.merge_down(shift, float);
            self.negative.merge_down(shift, float);
            self.schema = SCHEMA_MAX;
        }
        out.push(
            self.reset_hint & 3 | if float { FLOAT } else { 0 } | if custom { CUSTOM } else { 0 },
        );
        put_varint(out, unzigzag(i64::from(self.schema)));
        out.extend_from_slice(&self.zero_threshold.to_le_bytes());
        out.extend_from_slice(&self.sum.to_le_bytes());
        self.count.write(float, out);
        self.zero_count.write(float, out);
        for side in [&self.positive, &self.negative] {
            put_varint(out, side.spans.len() as u64);
            for &(offset, length) in &side.spans {
                put_varint(out, unzigzag(i64::from(offset)));
                put_varint(out, u64::from(length));
            }
        }
        for side in [&self.positive, &self.negative] {
            match float {
                true => side.counts.iter().for_each(|c| out.extend_from_slice(&c.to_le_bytes())),
                false => side.deltas.iter().for_each(|&d| put_varint(out, unzigzag(d))),
            }
        }
        if custom {
            put_varint(out, self.custom_bounds.len() as u64);
            self.custom_bounds.iter().for_each(|b| out.extend_from_slice(&b.to_le_bytes()));
        }
        Ok(())
    }

    fn judge_custom(&self) -> Judged<()> {
        let bounds = &self.custom_bounds;
        if bounds.len() > HISTOGRAM_BUCKETS_MAX {
            return Err(refuse("more custom bounds than a histogram may have buckets"));
        }
        if bounds.iter().any(|b| b.is_nan() || *b == f64::INFINITY)
            || bounds.windows(2).any(|pair| pair[0] >= pair[1])
        {
            return Err(refuse("custom bounds must increase strictly and be finite"));
        }
        let zero = matches!(self.zero_count, Count::Integer(0))
            || matches!(self.zero_count, Count::Float(c) if c == 0.0);
        if !zero || self.zero_threshold != 0.0 || !self.negative.spans.is_empty() {
            return Err(refuse("custom bounds leave no room for zero or negative buckets"));
        }
        let mut end = 0i64;
        for &(offset, length) in &self.positive.spans {
            if offset < 0 {
                return Err(refuse("a span starts before the first custom bound"));
            }
            end += i64::from(offset) + i64::from(length);
        }
        if end > bounds.len() as i64 + 1 {
            return Err(refuse("a span reaches past the last custom bound"));
        }
        Ok(())
    }

    /// Integer counts must add up exactly; float ones only may not be negative (rounding).
    fn judge_counts(&self, float: bool, positive: u64, negative: u64) -> Judged<()> {
        match (self.count, self.zero_count) {
            (Count::Float(count), zero) if float => {
                let zero = match zero {
                    Count::Float(zero) => zero,
                    Count::Integer(zero) => zero as f64,
                };
                if count < 0.0 || zero < 0.0 {
                    return Err(refuse("a count is negative"));
                }
                Ok(())
            }
            (Count::Integer(count), Count::Integer(zero)) => {
                let sum = positive.checked_add(negative).and_then(|sum| sum.checked_add(zero));
                // Observations that are NaN are counted but fall into no bucket; the sum is NaN then.
                match sum {
                    Some(sum) if sum == count || sum < count && self.sum.is_nan() => Ok(()),
                    _ => Err(refuse("the buckets do not add up to the count")),
                }
            }
            _ => Err(refuse("integer and float counts are mixed")),
        }
    }
}

impl Count {
    fn write(self, float: bool, out: &mut Vec<u8>) {
        match self {
            Count::Float(value) => out.extend_from_slice(&value.to_le_bytes()),
            Count::Integer(value) if float => out.extend_from_slice(&(value as f64).to_le_bytes()),
            Count::Integer(value) => put_varint(out, value),
        }
    }
}

impl Side {
    fn push_span(&mut self, mut cursor: Cursor) -> Read<()> {
        let (mut offset, mut length) = (0, 0);
        while let Some(tag) = cursor.next_tag()? {
            match tag {
                0x08 => offset = zigzag(cursor.varint()?) as i32,
                0x10 => length = cursor.varint()? as u32,
                _ => cursor.skip(tag)?,
            }
        }
        if self.spans.len() <= HISTOGRAM_BUCKETS_MAX {
            self.spans.push((offset, length));
        }
        Ok(())
    }

    /// Check spans against buckets and make the spans canonical. Returns the sum of integer counts.
    fn judge(&mut self, float: bool) -> Judged<u64> {
        let buckets = if float { self.counts.len() } else { self.deltas.len() };
        let unused = if float { self.deltas.len() } else { self.counts.len() };
        if unused > 0 {
            return Err(refuse("integer and float buckets are mixed"));
        }
        if buckets > HISTOGRAM_BUCKETS_MAX || self.spans.len() > HISTOGRAM_BUCKETS_MAX {
            return Err(refuse(format!("more than {HISTOGRAM_BUCKETS_MAX} buckets")));
        }
        let (mut total, mut index, mut gap) = (0u64, 0i64, 0i64);
        let mut spans: Vec<(i32, u32)> = Vec::with_capacity(self.spans.len());
        for (i, &(offset, length)) in self.spans.iter().enumerate() {
            if i > 0 && offset < 0 {
                return Err(refuse("a span overlaps the one before"));
            }
            total += u64::from(length);
            index += i64::from(offset) + i64::from(length);
            gap += i64::from(offset);
            if i32::try_from(index).is_err() || i32::try_from(gap).is_err() {
                return Err(refuse("a bucket index is out of range"));
            }
            match spans.last_mut() {
                _ if length == 0 => continue,
                Some(last) if gap == 0 => last.1 = last.1.saturating_add(length),
                _ => spans.push((gap as i32, length)),
            }
            gap = 0;
        }
        if total != buckets as u64 {
            return Err(refuse(format!("spans name {total} buckets, {buckets} are sent")));
        }
        self.spans = spans;
        if float {
            return match self.counts.iter().any(|count| *count < 0.0) {
                true => Err(refuse("a bucket count is negative")),
                false => Ok(0),
            };
        }
        let (mut current, mut sum) = (0i64, 0u64);
        for &delta in &self.deltas {
            current = current.checked_add(delta).filter(|c| *c >= 0).ok_or_else(negative)?;
            sum = sum.checked_add(current as u64).ok_or_else(negative)?;
        }
        Ok(sum)
    }

    /// Halve the resolution `shift` times: bucket i covers (base^(i-1), base^i].
    fn merge_down(&mut self, shift: u32, float: bool) {
        let mut merged: Vec<(i64, i64, f64)> = Vec::new();
        let (mut index, mut at, mut current) = (0i64, 0, 0i64);
        for &(offset, length) in &self.spans {
            index += i64::from(offset);
            for _ in 0..length {
                let target = ((index - 1) >> shift.min(62)) + 1;
                let mut value = 0.0;
                if float {
                    value = self.counts[at];
                } else {
                    current += self.deltas[at];
                }
                match merged.last_mut() {
                    Some(last) if last.0 == target => {
                        last.1 += current;
                        last.2 += value;
                    }
                    _ => merged.push((target, current, value)),
                }
                at += 1;
                index += 1;
            }
        }
        *self = Side::default();
        let (mut next, mut before) = (0i64, 0i64);
        for (i, (target, count, value)) in merged.into_iter().enumerate() {
            match self.spans.last_mut() {
                Some(last) if i > 0 && target == next => last.1 += 1,
                _ => self.spans.push(((target - next) as i32, 1)),
            }
            next = target + 1;
            if float {
                self.counts.push(value);
            } else {
                self.deltas.push(count - before);
                before = count;
            }
        }
    }
}

fn negative() -> Refused {
    refuse("a bucket count is negative or too large")
}

#[cold]
fn refuse(message: impl Into<String>) -> Refused {
    Refused::new(RejectReason::InvalidHistogram, format!("native histogram: {}", message.into()))
}
