//! OTLP metrics (ExportMetricsServiceRequest): walked flat, translated as Prometheus' OTLP door
//! does it. A data point is taken whole or refused whole, counted once when refused.
//!
//! Fields may come in any order, so each message that decides over a later one (a resource over its
//! metrics, a temporality over its points) is walked twice: the first time only for itself.

mod attributes;
mod json;
mod names;
mod points;

pub use json::to_protobuf;

use super::decoder::Decoder;
use super::labels::{METRIC_NAME, Refused, judge, shown};
use super::proto::{Cursor, Read};
use super::rows::Rows;
use crate::error::Result;
use crate::labels::canonical::push_label;
use crate::model::{Batch, RejectReason, SeriesType};
use attributes::Attributes;
use names::{Kind, metric_name, unit_name};

/// Half of Prometheus' default look-back: `target_info` never goes stale inside a batch's span.
const TARGET_INFO_STEP_MS: i64 = 150_000;
/// A batch that spans years must not become a flood of `target_info`: only its end is covered.
const TARGET_INFO_POINTS_MAX: i64 = 1000;
const IDENTITY_KEYS: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];
const CUMULATIVE: u64 = 2;

/// What a data point needs to know of its surroundings.
struct Context<'r, 'd, 'i> {
    rows: &'r mut Rows<'d>,
    /// `job` and `instance`, from the resource.
    identity: &'i [(&'static str, Vec<u8>)],
    /// Times of the first and last point taken from this resource.
    span_ms: Option<(i64, i64)>,
}

struct Metric {
    name: String,
    kind: Kind,
    series_type: SeriesType,
}

pub fn decode(body: &[u8], received_ms: i64, decoder: &Decoder) -> Result<Batch> {
    let mut rows = Rows::new(decoder, received_ms, 0);
    let mut cursor = Cursor::new(body);
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x0a => resource_metrics(cursor.message()?, &mut rows)?,
            _ => cursor.skip(tag)?,
        }
    }
    Ok(rows.finish_judged(Vec::new()))
}

/// Call `each` with every sub-message of `cursor` under `tag`.
fn each_message<'a>(
    mut cursor: Cursor<'a>,
    wanted: u32,
    mut each: impl FnMut(Cursor<'a>) -> Result<()>,
) -> Result<()> {
    while let Some(tag) = cursor.next_tag()? {
        if tag == wanted { each(cursor.message()?)? } else { cursor.skip(tag)? }
    }
    Ok(())
}

fn resource_metrics(cursor: Cursor, rows: &mut Rows) -> Result<()> {
    let mut resource = Attributes::default();
    each_message(cursor, 0x0a, |message| {
        each_message(message, 0x0a, |pair| Ok(resource.read(pair)?))
    })?;
    let mut identity = Vec::new();
    if let Some(name) = resource.get("service.name") {
        let namespace = resource.get("service.namespace");
        let job = namespace.map_or(name.to_vec(), |space| [space, name].join(&b'/'));
        identity.push(("job", job));
    }
    if let Some(instance) = resource.get("service.instance.id") {
        identity.push(("instance", instance.to_vec()));
    }
    let mut context = Context { rows, identity: &identity, span_ms: None };
    each_message(cursor, 0x12, |scope| each_message(scope, 0x12, |metric| context.metric(metric)))?;
    let span_ms = context.span_ms;
    resource.remove(&IDENTITY_KEYS);
    match span_ms {
        Some(span_ms) if !identity.is_empty() && !resource.is_empty() => {
            target_info(resource, &identity, span_ms, rows)
        }
        _ => Ok(()),
    }
}

/// The resource's other attributes, once per series of one sample each `TARGET_INFO_STEP_MS`.
/// Derived, so labels that break a rule cost no refusal: there is then no `target_info`.
fn target_info(
    resource: Attributes,
    identity: &[(&'static str, Vec<u8>)],
    (first_ms, last_ms): (i64, i64),
    rows: &mut Rows,
) -> Result<()> {
    let Ok(labels) = resource.translate(identity) else { return Ok(()) };
    let mut pairs = labels.with(&[(METRIC_NAME, b"target_info")]);
    if judge(&mut pairs).is_err() {
        return Ok(());
    }
    rows.begin_series();
    let mut time_ms = first_ms.max(last_ms - TARGET_INFO_POINTS_MAX * TARGET_INFO_STEP_MS);
    while time_ms < last_ms {
        rows.push_sample(time_ms, 1.0)?;
        time_ms += TARGET_INFO_STEP_MS;
    }
    rows.push_sample(last_ms, 1.0)?;
    rows.end_series_canonical(SeriesType::Info, |out| {
        pairs.iter().for_each(|(name, value)| push_label(out, name, value));
    })
}

impl<'i> Context<'_, '_, 'i> {
    fn metric(&mut self, mut cursor: Cursor<'i>) -> Result<()> {
        let (mut name, mut help, mut unit) = (&[][..], &[][..], &[][..]);
        let mut data = None;
        while let Some(tag) = cursor.next_tag()? {
            match tag {
                0x0a => name = cursor.slice()?,
                0x12 => help = cursor.slice()?,
                0x1a => unit = cursor.slice()?,
                0x2a | 0x3a | 0x4a | 0x52 | 0x5a => data = Some((tag >> 3, cursor.message()?)),
                _ => cursor.skip(tag)?,
            }
        }
        let Some((field, data)) = data else { return Ok(()) };
        let (temporality, monotonic) =
            if field == 5 || field == 11 { (CUMULATIVE, false) } else { temporality(data)? };
        let (kind, series_type) = match field {
            5 => (Kind::Gauge, SeriesType::Gauge),
            7 if monotonic => (Kind::Counter, SeriesType::Counter),
            7 => (Kind::Sum, SeriesType::Gauge),
            9 => (Kind::Histogram, SeriesType::Histogram),
            10 => (Kind::ExponentialHistogram, SeriesType::Histogram),
            _ => (Kind::Summary, SeriesType::Summary),
        };
        let text = (std::str::from_utf8(name), std::str::from_utf8(unit));
        let translated = match text {
            (Ok(name), Ok(unit)) => metric_name(name, unit, kind),
            _ => String::new(),
        };
        let refused = if temporality != CUMULATIVE {
            let message = format!(
                "metric {}: only cumulative temporality is taken, set the exporter to cumulative",
                shown(name)
            );
            Some(Refused::new(RejectReason::UnsupportedTemporality, message))
        } else if text.0.is_err() || text.1.is_err() {
            let message = format!("metric {}: name or unit is not valid UTF-8", shown(name));
            Some(Refused::new(RejectReason::InvalidUtf8, message))
        } else if translated.is_empty() {
            let message = format!("metric {} has no name that can be kept", shown(name));
            Some(Refused::new(RejectReason::MissingName, message))
        } else {
            None
        };
        if let Some(refused) = refused {
            return each_message(data, 0x0a, |_| self.rows.refuse_received(&refused));
        }
        let metric = Metric { name: translated, kind, series_type };
        let good_before = self.rows.batch.points_good();
        each_message(data, 0x0a, |point| self.point(&metric, point))?;
        if self.rows.batch.points_good() > good_before {
            let unit = text.1.map(unit_name).unwrap_or_default();
            self.rows.push_metadata(metric.name.as_bytes(), series_type, help, unit.as_bytes())?;
        }
        Ok(())
    }
}

/// (aggregation temporality, is monotonic) of a Sum or a histogram.
fn temporality(mut cursor: Cursor) -> Read<(u64, bool)> {
    let (mut temporality, mut monotonic) = (0, false);
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x10 => temporality = cursor.varint()?,
            0x18 => monotonic = cursor.varint()? != 0,
            _ => cursor.skip(tag)?,
        }
    }
    Ok((temporality, monotonic))
}
