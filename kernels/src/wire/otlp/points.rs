//! OTLP data points become samples: numbers one, classic histograms a series per bucket, summaries
//! one per quantile, exponential histograms one native histogram.

use super::attributes::{Attributes, Labels};
use super::names::Kind;
use super::{Context, Metric};
use crate::error::Result;
use crate::labels::canonical::push_label;
use crate::model::{RejectReason, STALE_BITS};
use crate::wire::histogram::{Count, Draft, Side};
use crate::wire::labels::{Judged, METRIC_NAME, Pair, Refused, judge};
use crate::wire::limits::HISTOGRAM_BUCKETS_MAX;
use crate::wire::proto::{Cursor, FIXED64, Read, VARINT, zigzag};

/// Prometheus' default width of the zero bucket, where the client names none.
const ZERO_THRESHOLD_DEFAULT: f64 = 1e-128;
const NO_RECORDED_VALUE: u64 = 1;

/// What every kind of data point has, and what one kind or another adds.
#[derive(Default)]
struct Point<'a> {
    attributes: Attributes<'a>,
    time_ms: i64,
    stale: bool,
    exemplars: u32,
    value: Option<f64>,
    count: u64,
    sum: Option<f64>,
    bounds: Vec<f64>,
    bucket_counts: Vec<u64>,
    /// Quantile and value.
    quantiles: Vec<(f64, f64)>,
    scale: i32,
    zero_count: u64,
    zero_threshold: f64,
    positive: Buckets,
    negative: Buckets,
}

#[derive(Default)]
struct Buckets {
    offset: i32,
    counts: Vec<u64>,
}

impl<'i> Context<'_, '_, 'i> {
    pub(super) fn point(&mut self, metric: &Metric, cursor: Cursor<'i>) -> Result<()> {
        let mut point = match metric.kind {
            Kind::Gauge | Kind::Sum | Kind::Counter => read_number(cursor),
            Kind::Histogram => read_histogram(cursor),
            Kind::ExponentialHistogram => read_exponential(cursor),
            Kind::Summary => read_summary(cursor),
        }?;
        self.rows.batch.exemplars_received += point.exemplars;
        let (bucket, sum) = (format!("{}_bucket", metric.name), format!("{}_sum", metric.name));
        // If the widest series of the point is taken, so are all of them. An attribute `le` hides
        // behind the bucket's own and shows in the sum: both forms are judged.
        let bare: &[Pair] = &[(METRIC_NAME, bucket.as_bytes())];
        let (widest, other): (&[Pair], _) = match metric.kind {
            Kind::Histogram => (&[bare[0], (b"le", b"+Inf")], Some(bare)),
            Kind::Summary => (&[bare[0], (b"quantile", b"1")], Some(bare)),
            _ => (&[(METRIC_NAME, metric.name.as_bytes())], None),
        };
        let attributes = std::mem::take(&mut point.attributes);
        let judged = self
            .rows
            .time_refusal(point.time_ms)
            .map_or(Ok(()), Err)
            .and_then(|()| point.judge(metric.kind))
            .and_then(|()| attributes.translate(self.identity))
            .and_then(|labels| {
                judge(&mut labels.with(widest))?;
                other.map_or(Ok(()), |own| judge(&mut labels.with(own)))?;
                Ok(labels)
            });
        let labels = match judged {
            Ok(labels) => labels,
            Err(refused) => return self.rows.refuse_received(&refused),
        };
        let time_ms = point.time_ms;
        let taken = match metric.kind {
            Kind::Histogram => self.classic(metric, &labels, &point, &bucket, &sum)?,
            Kind::Summary => self.summary(metric, &labels, &point, &sum)?,
            Kind::ExponentialHistogram => self.exponential(metric, &labels, point)?,
            _ => self.emit(metric, &labels, widest, &point, point.value.unwrap_or(0.0))?,
        };
        if taken {
            let (first, last) = self.span_ms.unwrap_or((time_ms, time_ms));
            self.span_ms = Some((first.min(time_ms), last.max(time_ms)));
        }
        Ok(())
    }

    /// One series with one sample; the stale marker where nothing was recorded.
    fn emit(
        &mut self,
        metric: &Metric,
        labels: &Labels,
        own: &[Pair],
        point: &Point,
        value: f64,
    ) -> Result<bool> {
        self.rows.begin_series();
        let value = if point.stale { f64::from_bits(STALE_BITS) } else { value };
        self.rows.push_sample(point.time_ms, value)?;
        self.end_series(metric, labels, own)
    }

    fn end_series(&mut self, metric: &Metric, labels: &Labels, own: &[Pair]) -> Result<bool> {
        let mut pairs = labels.with(own);
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.sort_unstable();
        self.rows.end_series_canonical(metric.series_type, |out| {
            pairs.iter().for_each(|(name, value)| push_label(out, name, value));
        })?;
        Ok(true)
    }

    fn classic(
        &mut self,
        metric: &Metric,
        labels: &Labels,
        point: &Point,
        bucket: &str,
        sum: &str,
    ) -> Result<bool> {
        let mut cumulative = 0u64;
        for (bound, count) in point.bounds.iter().zip(&point.bucket_counts) {
            cumulative = cumulative.saturating_add(*count);
            if *bound == f64::INFINITY {
                continue;
            }
            let le = bound_text(*bound);
            let own: [Pair; 2] = [(METRIC_NAME, bucket.as_bytes()), (b"le", le.as_bytes())];
            self.emit(metric, labels, &own, point, cumulative as f64)?;
        }
        let own: [Pair; 2] = [(METRIC_NAME, bucket.as_bytes()), (b"le", b"+Inf")];
        self.emit(metric, labels, &own, point, point.count as f64)?;
        self.sum_and_count(metric, labels, point, sum)
    }

    fn summary(
        &mut self,
        metric: &Metric,
        labels: &Labels,
        point: &Point,
        sum: &str,
    ) -> Result<bool> {
        for &(quantile, value) in &point.quantiles {
            let name = bound_text(quantile);
            let own: [Pair; 2] =
                [(METRIC_NAME, metric.name.as_bytes()), (b"quantile", name.as_bytes())];
            self.emit(metric, labels, &own, point, value)?;
        }
        self.sum_and_count(metric, labels, point, sum)
    }

    fn sum_and_count(
        &mut self,
        metric: &Metric,
        labels: &Labels,
        point: &Point,
        sum: &str,
    ) -> Result<bool> {
        if let Some(value) = point.sum {
            self.emit(metric, labels, &[(METRIC_NAME, sum.as_bytes())], point, value)?;
        }
        let count = format!("{}_count", metric.name);
        self.emit(metric, labels, &[(METRIC_NAME, count.as_bytes())], point, point.count as f64)
    }

    fn exponential(&mut self, metric: &Metric, labels: &Labels, point: Point) -> Result<bool> {
        let threshold = point.zero_threshold;
        let mut draft = Draft {
            time_ms: point.time_ms,
            schema: point.scale,
            zero_threshold: if threshold == 0.0 { ZERO_THRESHOLD_DEFAULT } else { threshold },
            sum: point.sum.unwrap_or(0.0),
            count: Count::Integer(point.count),
            zero_count: Count::Integer(point.zero_count),
            ..Draft::default()
        };
        if point.stale {
            draft.sum = f64::from_bits(STALE_BITS);
        }
        draft.positive = point.positive.side();
        draft.negative = point.negative.side();
        self.rows.begin_series();
        self.rows.push_histogram(draft)?;
        if !self.rows.series_has_points() {
            return Ok(false);
        }
        self.end_series(metric, labels, &[(METRIC_NAME, metric.name.as_bytes())])
    }
}

impl Buckets {
    /// OTLP's bucket i is (base^i, base^(i+1)], the native one (base^(i-1), base^i].
    fn side(self) -> Side {
        let mut side = Side::default();
        if !self.counts.is_empty() {
            side.spans.push((self.offset.saturating_add(1), self.counts.len() as u32));
        }
        let mut before = 0i64;
        for count in self.counts {
            // A count past i64 turns the running count negative, which the judge refuses.
            let count = i64::try_from(count).unwrap_or(-1);
            side.deltas.push(count.wrapping_sub(before));
            before = count;
        }
        side
    }

    fn read(mut cursor: Cursor) -> Read<Buckets> {
        let mut buckets = Buckets::default();
        while let Some(tag) = cursor.next_tag()? {
            match tag {
                0x08 => buckets.offset = zigzag(cursor.varint()?) as i32,
                0x10 | 0x12 => {
                    cursor.repeated(
                        (tag, VARINT),
                        &mut buckets.counts,
                        HISTOGRAM_BUCKETS_MAX,
                        |v| v,
                    )?;
                }
                _ => cursor.skip(tag)?,
            }
        }
        Ok(buckets)
    }
}

impl Point<'_> {
    /// Rules beyond labels and time that make a data point unusable.
    fn judge(&self, kind: Kind) -> Judged<()> {
        let refuse = |reason, message: &str| Err(Refused::new(reason, message));
        match kind {
            Kind::Gauge | Kind::Sum | Kind::Counter if self.value.is_none() && !self.stale => {
                refuse(RejectReason::Unsupported, "a data point has no value")
            }
            Kind::Histogram if self.bucket_counts.len() > HISTOGRAM_BUCKETS_MAX => {
                refuse(RejectReason::InvalidHistogram, "a histogram has too many buckets")
            }
            Kind::Histogram
                if self.bounds.len() > HISTOGRAM_BUCKETS_MAX
                    || self.bounds.windows(2).any(|pair| pair[0] >= pair[1])
                    || self.bounds.iter().any(|bound| bound.is_nan()) =>
            {
                refuse(RejectReason::InvalidHistogram, "a histogram's bounds do not increase")
            }
            Kind::Summary if self.quantiles.len() > HISTOGRAM_BUCKETS_MAX => {
                refuse(RejectReason::Unsupported, "a summary has too many quantiles")
            }
            _ => Ok(()),
        }
    }

    fn set_time(&mut self, cursor: &mut Cursor) -> Read<()> {
        self.time_ms = (cursor.fixed64()? / 1_000_000) as i64;
        Ok(())
    }

    fn set_flags(&mut self, cursor: &mut Cursor) -> Read<()> {
        self.stale = cursor.varint()? & NO_RECORDED_VALUE != 0;
        Ok(())
    }
}

fn read_number(mut cursor: Cursor<'_>) -> Read<Point<'_>> {
    let mut point = Point::default();
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x3a => point.attributes.read(cursor.message()?)?,
            0x19 => point.set_time(&mut cursor)?,
            0x21 => point.value = Some(cursor.double()?),
            0x31 => point.value = Some(cursor.fixed64()? as i64 as f64),
            0x40 => point.set_flags(&mut cursor)?,
            _ => {
                point.exemplars += u32::from(tag == 0x2a);
                cursor.skip(tag)?;
            }
        }
    }
    Ok(point)
}

fn read_histogram(mut cursor: Cursor<'_>) -> Read<Point<'_>> {
    const MAX: usize = HISTOGRAM_BUCKETS_MAX;
    let mut point = Point::default();
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x4a => point.attributes.read(cursor.message()?)?,
            0x19 => point.set_time(&mut cursor)?,
            0x21 => point.count = cursor.fixed64()?,
            0x29 => point.sum = Some(cursor.double()?),
            0x31 | 0x32 => cursor.repeated((tag, FIXED64), &mut point.bucket_counts, MAX, |v| v)?,
            0x39 | 0x3a => {
                cursor.repeated((tag, FIXED64), &mut point.bounds, MAX, f64::from_bits)?
            }
            0x50 => point.set_flags(&mut cursor)?,
            _ => {
                point.exemplars += u32::from(tag == 0x42);
                cursor.skip(tag)?;
            }
        }
    }
    Ok(point)
}

fn read_exponential(mut cursor: Cursor<'_>) -> Read<Point<'_>> {
    let mut point = Point::default();
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x0a => point.attributes.read(cursor.message()?)?,
            0x19 => point.set_time(&mut cursor)?,
            0x21 => point.count = cursor.fixed64()?,
            0x29 => point.sum = Some(cursor.double()?),
            0x30 => point.scale = zigzag(cursor.varint()?) as i32,
            0x39 => point.zero_count = cursor.fixed64()?,
            0x42 => point.positive = Buckets::read(cursor.message()?)?,
            0x4a => point.negative = Buckets::read(cursor.message()?)?,
            0x50 => point.set_flags(&mut cursor)?,
            0x71 => point.zero_threshold = cursor.double()?,
            _ => {
                point.exemplars += u32::from(tag == 0x5a);
                cursor.skip(tag)?;
            }
        }
    }
    Ok(point)
}

fn read_summary(mut cursor: Cursor<'_>) -> Read<Point<'_>> {
    let mut point = Point { sum: Some(0.0), ..Point::default() };
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x3a => point.attributes.read(cursor.message()?)?,
            0x19 => point.set_time(&mut cursor)?,
            0x21 => point.count = cursor.fixed64()?,
            0x29 => point.sum = Some(cursor.double()?),
            0x32 => {
                let mut inner = cursor.message()?;
                let (mut quantile, mut value) = (0.0, 0.0);
                while let Some(tag) = inner.next_tag()? {
                    match tag {
                        0x09 => quantile = inner.double()?,
                        0x11 => value = inner.double()?,
                        _ => inner.skip(tag)?,
                    }
                }
                if point.quantiles.len() <= HISTOGRAM_BUCKETS_MAX {
                    point.quantiles.push((quantile, value));
                }
            }
            0x40 => point.set_flags(&mut cursor)?,
            _ => cursor.skip(tag)?,
        }
    }
    Ok(point)
}

/// A bound or quantile as Prometheus writes it: Go's FormatFloat(v, 'f', -1, 64).
fn bound_text(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    }
}
