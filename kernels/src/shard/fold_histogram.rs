//! Native histograms that can be added: read from their canonical bytes (docs/formats/histogram.md),
//! subtracted, brought to one layout, added, written again. The rules: docs/formats/policy.md.
//!
//! Invariant: a zero bucket never ends within a bucket that holds something, so that a sum that grows
//! coarser never looks like a reset.

use super::fold_side::{Folded, HistogramSide, Input, Kind, Number};
use super::registry_bytes::{Input as Bytes, Output as Out, corrupt};
use crate::error::Result;
use crate::wire::histogram::Side as Buckets;
use crate::wire::histogram::{CUSTOM_SCHEMA, Count, Draft, FLOAT, SCHEMA_MAX, STALE};
use crate::wire::limits::HISTOGRAM_BUCKETS_MAX;
use std::cmp::Ordering;

/// Of a sum; with more its resolution is halved. Custom bounds are as many as they are.
const BUCKETS_MAX: usize = 2_048;
const SCHEMA_MIN: i32 = -4;
const HINTS: u8 = 3;
const HINT_RESET: u8 = 1;
const HINT_GAUGE: u8 = 3;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    gauge: bool,
    /// The sender says that it began anew since the one before.
    reset: bool,
    schema: i32,
    zero_threshold: f64,
    sum: f64,
    count: f64,
    zero_count: f64,
    /// (index, count) of positive and of negative buckets that hold something, ascending.
    sides: [Vec<(i32, f64)>; 2],
    /// Upper bounds of custom buckets.
    bounds: Vec<f64>,
}

impl Histogram {
    /// None where it is a stale marker.
    pub fn read(bytes: &[u8]) -> Result<Option<Histogram>> {
        let mut input = Bytes(bytes);
        let flags = input.bytes(1)?[0];
        if flags & STALE != 0 {
            return Ok(None);
        }
        let schema = i32::try_from(input.signed()?).map_err(|_| corrupt("a schema"))?;
        let (zero_threshold, sum) = (f64::read(&mut input)?, f64::read(&mut input)?);
        if zero_threshold.is_nan() {
            return Err(corrupt("a zero threshold"));
        }
        let mut count = || match flags & FLOAT {
            0 => Ok(input.number()? as f64),
            _ => f64::read(&mut input),
        };
        let (count, zero_count) = (count()?, count()?);
        let spans = [read_spans(&mut input)?, read_spans(&mut input)?];
        let mut sides = [Vec::new(), Vec::new()];
        for (spans, buckets) in spans.iter().zip(&mut sides) {
            read_buckets(&mut input, spans, flags, buckets)?;
        }
        let mut bounds = Vec::new();
        if schema == CUSTOM_SCHEMA {
            for _ in 0..input.count()? {
                bounds.push(f64::read(&mut input)?);
            }
        } else if !(SCHEMA_MIN..=SCHEMA_MAX).contains(&schema) {
            return Err(corrupt("a schema that is unknown"));
        }
        let gauge = flags & HINTS == HINT_GAUGE;
        let reset = flags & HINTS == HINT_RESET;
        let mut read = Histogram {
            gauge,
            reset,
            schema,
            zero_threshold,
            sum,
            count,
            zero_count,
            sides,
            bounds,
        };
        read.stay_within_doubles();
        read.coarsen(schema, zero_threshold);
        Ok(Some(read))
    }

    /// Canonical bytes, with doubles.
    pub fn write(&self) -> Vec<u8> {
        let draft = Draft {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            count: Count::Float(self.count),
            zero_count: Count::Float(self.zero_count),
            positive: buckets_of(&self.sides[0]),
            negative: buckets_of(&self.sides[1]),
            custom_bounds: self.bounds.clone(),
            reset_hint: if self.gauge { HINT_GAUGE } else { 0 },
            ..Draft::default()
        };
        let mut out = Vec::new();
        if draft.encode(&mut out).is_err() {
            // No sum of what the wire judged: what was read was damaged past its checksum.
            out.push(STALE);
        }
        out
    }

    pub fn kind(&self) -> Kind {
        if self.gauge { Kind::Gauge } else { Kind::Counter }
    }

    /// The sum of nothing yet: any layout is coarser.
    pub fn beginning(&self) -> Histogram {
        let schema = if self.is_custom() { self.schema } else { SCHEMA_MAX };
        Histogram { schema, zero_threshold: 0.0, ..self.nothing() }
    }

    fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Can the two be added?
    pub fn fits(&self, other: &Histogram) -> bool {
        let custom = (self.is_custom(), &self.bounds) == (other.is_custom(), &other.bounds);
        // All sums of so many bounds have few enough buckets to be written.
        custom && self.gauge == other.gauge && self.bounds.len() < HISTOGRAM_BUCKETS_MAX
    }

    /// What it holds, not what was reserved: the same after a restart.
    pub fn held_bytes(&self) -> usize {
        (self.sides[0].len() + self.sides[1].len()) * size_of::<(i32, f64)>()
            + self.bounds.len() * 8
    }

    fn is_finite(&self) -> bool {
        let buckets = self.sides.iter().flatten().all(|(_, count)| count.is_finite());
        buckets && self.count.is_finite() && self.zero_count.is_finite()
    }

    /// What lies beyond the least and the greatest double counts in the last bucket before.
    fn stay_within_doubles(&mut self) {
        if self.is_custom() {
            return;
        }
        let (up, down) = (self.schema.max(0), (-self.schema).max(0));
        let index = |exponent: i32| (exponent << up) >> down;
        for buckets in &mut self.sides {
            buckets.iter_mut().for_each(|b| b.0 = b.0.clamp(index(-1_074), index(1_024) + 1));
            add_equal(buckets);
        }
    }

    /// The upper bound of a bucket, by its distance from 0.
    fn bound(&self, index: i32) -> f64 {
        2_f64.powf(f64::from(index) * 2_f64.powi(-self.schema))
    }

    /// Bring it to a schema and a zero threshold, where they are coarser than its own. The zero
    /// bucket takes in what it reaches into, and may be wider in the end.
    fn coarsen(&mut self, schema: i32, zero_threshold: f64) {
        if self.is_custom() {
            return;
        }
        // First the zero bucket: what goes into it is finer now than it will be.
        self.widen(zero_threshold);
        if schema < self.schema {
            let shift = self.schema - schema;
            for buckets in &mut self.sides {
                buckets.iter_mut().for_each(|b| b.0 = ((b.0 - 1) >> shift) + 1);
                add_equal(buckets);
            }
            self.schema = schema;
            self.widen(zero_threshold);
        }
    }

    fn widen(&mut self, zero_threshold: f64) {
        let mut wider = self.zero_threshold.max(zero_threshold);
        loop {
            self.zero_threshold = wider;
            for side in 0..2 {
                let within = |&&(index, _): &&(i32, f64)| self.bound(index - 1) < wider;
                let taken = self.sides[side].iter().take_while(within).count();
                for (index, count) in self.sides[side].drain(..taken).collect::<Vec<_>>() {
                    self.zero_count += count;
                    wider = wider.max(self.bound(index));
                }
            }
            if wider == self.zero_threshold {
                return;
            }
        }
    }

    /// The difference to one of the same layout; None where that holds more of anything.
    fn minus(&self, earlier: &Histogram) -> Option<Histogram> {
        let mut left = self.clone();
        left.count -= earlier.count;
        left.zero_count -= earlier.zero_count;
        left.sum -= earlier.sum;
        for (buckets, earlier) in left.sides.iter_mut().zip(&earlier.sides) {
            for (index, count) in earlier {
                let at = buckets.binary_search_by_key(index, |bucket| bucket.0).ok()?;
                buckets[at].1 -= count;
            }
            if buckets.iter().any(|bucket| bucket.1 < 0.0) {
                return None;
            }
            buckets.retain(|bucket| bucket.1 != 0.0);
        }
        (left.count >= 0.0 && left.zero_count >= 0.0).then_some(left)
    }
}

impl Number for Histogram {
    fn nothing(&self) -> Histogram {
        Histogram {
            reset: false,
            sum: 0.0,
            count: 0.0,
            zero_count: 0.0,
            sides: [Vec::new(), Vec::new()],
            bounds: self.bounds.clone(),
            ..*self
        }
    }

    /// A reset shows as in Prometheus: the sender says so, the layout is finer than before, or
    /// something holds less.
    fn since(&self, before: &Histogram) -> Histogram {
        let finer = self.schema > before.schema || self.zero_threshold < before.zero_threshold;
        let mut increase = None;
        if !self.reset && !finer {
            let mut earlier = before.clone();
            earlier.coarsen(self.schema, self.zero_threshold);
            if earlier.zero_threshold == self.zero_threshold {
                increase = self.minus(&earlier);
            }
        }
        let mut increase = increase.unwrap_or_else(|| self.clone());
        // One observation that is not a number takes the sum away; counts go on.
        increase.sum = if increase.sum.is_finite() { increase.sum } else { 0.0 };
        increase
    }

    fn add(&mut self, more: &Histogram) {
        let mut more = more.clone();
        loop {
            self.coarsen(more.schema, more.zero_threshold);
            more.coarsen(self.schema, self.zero_threshold);
            if self.zero_threshold == more.zero_threshold {
                break;
            }
        }
        self.sum += more.sum;
        self.count += more.count;
        self.zero_count += more.zero_count;
        for (buckets, more) in self.sides.iter_mut().zip(more.sides) {
            buckets.extend(more);
            buckets.sort_by_key(|bucket| bucket.0);
            add_equal(buckets);
        }
        while !self.is_custom()
            && self.sides[0].len() + self.sides[1].len() > BUCKETS_MAX
            && self.schema > SCHEMA_MIN
        {
            self.coarsen(self.schema - 1, self.zero_threshold);
        }
    }

    fn divided(mut self, by: f64) -> Histogram {
        let buckets = self.sides.iter_mut().flatten().map(|bucket| &mut bucket.1);
        let counts = [&mut self.sum, &mut self.count, &mut self.zero_count];
        buckets.chain(counts).for_each(|count| *count /= by);
        self
    }

    fn compare(&self, _: &Histogram) -> Option<Ordering> {
        None
    }
}

/// Inputs hold canonical bytes: they are a tenth of what is read from them.
impl Folded for Box<[u8]> {
    type Number = Histogram;

    fn counted(&self) -> Option<Histogram> {
        self.measured()
    }

    fn measured(&self) -> Option<Histogram> {
        Histogram::read(self).ok().flatten().filter(Histogram::is_finite)
    }

    fn is(&self, other: &Box<[u8]>) -> bool {
        self == other
    }

    fn write(&self, out: &mut Out) {
        out.sized(self);
    }

    fn read(input: &mut Bytes) -> Result<Box<[u8]>> {
        let bytes = input.sized()?;
        Histogram::read(bytes).map(|_| bytes.into())
    }
}

impl HistogramSide {
    /// Of the total and one input.
    pub fn held_bytes_with(&self, id: u128) -> usize {
        self.inputs.get(&id).map_or(0, held_bytes) + self.total.held_bytes()
    }

    pub fn held_bytes(&self) -> usize {
        self.inputs.values().map(held_bytes).sum::<usize>() + self.total.held_bytes()
    }
}

fn held_bytes(input: &Input<Box<[u8]>>) -> usize {
    input.settled.iter().chain(&input.open).map(|(_, bytes)| bytes.len() + 16).sum()
}

fn read_spans(input: &mut Bytes) -> Result<Vec<(i64, u64)>> {
    (0..input.count()?).map(|_| Ok((input.signed()?, input.number()?))).collect()
}

fn read_buckets(
    input: &mut Bytes,
    spans: &[(i64, u64)],
    flags: u8,
    buckets: &mut Vec<(i32, f64)>,
) -> Result<()> {
    let (mut index, mut current) = (0_i64, 0_i64);
    for &(offset, length) in spans {
        index = index.saturating_add(offset);
        for _ in 0..length {
            let count = if flags & FLOAT != 0 {
                f64::read(input)?
            } else {
                current = current.saturating_add(input.signed()?);
                current as f64
            };
            if count != 0.0 {
                let index = i32::try_from(index).map_err(|_| corrupt("a bucket's index"))?;
                buckets.push((index, count));
            }
            index = index.saturating_add(1);
        }
    }
    Ok(())
}

fn buckets_of(buckets: &[(i32, f64)]) -> Buckets {
    let mut side = Buckets::default();
    let mut next = 0;
    for &(index, count) in buckets {
        match side.spans.last_mut() {
            Some(last) if index == next => last.1 += 1,
            _ => side.spans.push((index - next, 1)),
        }
        side.counts.push(count);
        next = index + 1;
    }
    side
}

/// Buckets of equal index, side by side, become one.
fn add_equal(buckets: &mut Vec<(i32, f64)>) {
    buckets.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 += later.1;
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: i32, zero_threshold: f64, positive: &[(i32, f64)]) -> Histogram {
        let count: f64 = positive.iter().map(|bucket| bucket.1).sum();
        let sides = [positive.to_vec(), Vec::new()];
        let (gauge, reset, zero_count) = (false, false, 0.0);
        let (sum, bounds) = (count, Vec::new());
        Histogram { gauge, reset, schema, zero_threshold, sum, count, zero_count, sides, bounds }
    }

    #[test]
    fn a_sum_is_at_the_coarsest_and_wide_enough_at_zero() {
        let mut sum = of(2, 0.0, &[(-3, 1.0), (1, 2.0), (4, 4.0), (5, 8.0)]);
        sum.add(&of(0, 0.75, &[(1, 16.0), (9, 32.0)]));
        // 0.75 takes -3 in, which ends at 0.6; (0.5, 1] is empty then.
        assert_eq!((sum.schema, sum.zero_threshold, sum.zero_count), (0, 0.75, 1.0));
        // One that is cut in two widens it.
        let mut cut = of(2, 0.5, &[(-2, 1.0)]);
        cut.add(&of(0, 0.6, &[]));
        assert_eq!((cut.zero_threshold, cut.zero_count), (2_f64.powf(-0.5), 1.0));
        assert_eq!(sum.sides[0], [(1, 22.0), (2, 8.0), (9, 32.0)]);
        let bytes = sum.write();
        assert_eq!(Histogram::read(&bytes).expect("sound"), Some(sum));
    }

    #[test]
    fn many_buckets_halve_the_resolution_and_none_lies_beyond_a_double() {
        let wide: Vec<(i32, f64)> = (0..3_000).map(|at| (at * 40, 1.0)).collect();
        let mut sum = of(8, 0.0, &[]);
        sum.add(&of(8, 0.0, &wide));
        assert!(sum.sides[0].len() <= BUCKETS_MAX && sum.schema < 8);
        assert_eq!(sum.sides[0].iter().map(|bucket| bucket.1).sum::<f64>(), 3_000.0);
        let mut far = of(-4, 0.0, &[(i32::MIN, 1.0), (-900, 1.0), (3, 1.0), (i32::MAX, 1.0)]);
        far.stay_within_doubles();
        assert_eq!(far.sides[0], [(-68, 2.0), (3, 1.0), (65, 1.0)]);
    }

    #[test]
    fn a_reset_shows_in_any_bucket_in_the_layout_and_in_the_hint() {
        let before = of(1, 0.25, &[(1, 5.0), (3, 2.0)]);
        let later = of(1, 0.25, &[(1, 5.0), (3, 3.0), (4, 1.0)]);
        assert_eq!(later.since(&before).sides[0], [(3, 1.0), (4, 1.0)]);
        let moved = of(1, 0.25, &[(1, 4.0), (3, 9.0)]);
        let finer = of(2, 0.25, &[(1, 50.0), (5, 20.0)]);
        let narrower = of(1, 0.125, &[(1, 50.0), (3, 20.0)]);
        let said = Histogram { reset: true, ..later };
        for anew in [moved, finer, narrower, said] {
            assert_eq!(anew.since(&before).sides, anew.sides);
        }
        // What the wider zero bucket takes in does not come into a coarser bucket that it would cut.
        let near = of(2, 0.25, &[(-5, 5.0)]).since(&of(2, 0.25, &[(-5, 4.0)]));
        assert_eq!(near.sides[0], [(-5, 1.0)]);
        let wide = Histogram { zero_count: 5.0, count: 5.0, ..of(-2, 0.5, &[]) };
        let increase = wide.since(&of(2, 0.25, &[(-5, 4.0)]));
        assert_eq!((increase.count, increase.zero_count), (1.0, 1.0));
        let coarser = of(0, 0.5, &[(1, 6.0), (2, 2.0)]);
        assert_eq!(coarser.since(&before).sides[0], [(1, 1.0)]);
        let nan = Histogram { sum: f64::NAN, ..of(1, 0.25, &[(1, 7.0), (3, 2.0)]) };
        let increase = nan.since(&before);
        assert_eq!((increase.sum, increase.sides[0].clone()), (0.0, vec![(1, 2.0)]));
    }
}
