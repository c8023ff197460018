//! What is folded as bytes: section 7 of a state file (docs/formats/policy.md).
//!
//! Invariant: what is loaded emits, bit for bit, what would have been emitted without the stop.

use super::budget::GaugeFunction;
use super::fold::{Fold, Output, Sides};
use super::fold_histogram::Histogram;
use super::fold_side::{Folded, HistogramSide, Input, Kind, Side};
use super::registry::Registry;
use super::registry_bytes::{Input as Bytes, Output as Out, corrupt};
use crate::error::Result;
use crate::model::SeriesKey;
use std::collections::BTreeMap;

const VERSION: u8 = 2;
/// Of builds that folded no native histograms.
const VERSION_FLOATS: u8 = 1;

impl Fold {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out(vec![VERSION]);
        out.signed(self.now_ms);
        out.number(self.outputs.len() as u64);
        for (&row, output) in &self.outputs {
            let Sides { floats, histograms } = &output.sides;
            out.number(u64::from(row));
            out.text(&output.budget);
            out.text(&output.overflow_label);
            out.0.extend_from_slice(&[floats.kind as u8, output.gauge as u8]);
            for time_ms in [output.grid_ms, output.lateness_ms, output.idle_ms] {
                out.number(time_ms as u64);
            }
            out.signed(output.closed_ms);
            out.signed(output.seen_ms);
            out.0.push(u8::from(floats.emitted));
            floats.total.write(&mut out);
            write_inputs(&mut out, &floats.inputs);
            out.0.push(u8::from(histograms.is_some()));
            if let Some(side) = histograms {
                out.0.push(u8::from(side.emitted));
                out.sized(&side.total.write());
                write_inputs(&mut out, &side.inputs);
            }
        }
        out.0
    }

    /// Take over what `encode` wrote; the registry of the same file is loaded.
    pub fn load(&mut self, bytes: &[u8], registry: &Registry) -> Result<()> {
        let mut input = Bytes(bytes);
        let version = input.bytes(1)?[0];
        if !(VERSION_FLOATS..=VERSION).contains(&version) {
            return Err(corrupt("not a folding section of version 1 or 2"));
        }
        let mut fold = Fold::at(input.signed()?);
        for _ in 0..input.count()? {
            let row = input.below(registry.row_count())?;
            let output = read_output(&mut input, registry.key(row), registry, version)?;
            if fold.has_output(row) {
                return Err(corrupt("an output twice"));
            }
            fold.restore(row, output);
        }
        if !input.0.is_empty() {
            return Err(corrupt("bytes after the folding section"));
        }
        *self = fold;
        Ok(())
    }
}

fn read_output(
    input: &mut Bytes,
    key: SeriesKey,
    registry: &Registry,
    version: u8,
) -> Result<Output> {
    let (budget, overflow_label) = (input.text()?.to_owned(), input.text()?.to_owned());
    let kind = match input.bytes(1)?[0] {
        1 => Kind::Counter,
        2 => Kind::Gauge,
        _ => return Err(corrupt("a kind that is unknown")),
    };
    let gauge = match input.bytes(1)?[0] {
        1 => GaugeFunction::Sum,
        2 => GaugeFunction::Avg,
        3 => GaugeFunction::Max,
        4 => GaugeFunction::Min,
        5 => GaugeFunction::Last,
        _ => return Err(corrupt("a function that is unknown")),
    };
    let mut span =
        || i64::try_from(input.number()?).map_err(|_| corrupt("a span of more than 63 bits"));
    let (grid_ms, lateness_ms, idle_ms) = (span()?, span()?, span()?);
    if grid_ms == 0 {
        return Err(corrupt("no grid"));
    }
    let (closed_ms, seen_ms) = (input.signed()?, input.signed()?);
    let mut floats = Side::new(kind, 0.0);
    floats.emitted = input.bytes(1)?[0] == 1;
    floats.total = f64::read(input)?;
    floats.inputs = read_inputs(input)?;
    let histograms = match version {
        VERSION_FLOATS => None,
        _ => read_histograms(input)?,
    };
    Ok(Output {
        tenant: key.tenant,
        budget,
        metric: registry.strings.get(key.metric).to_owned(),
        overflow_label,
        gauge,
        grid_ms,
        lateness_ms,
        idle_ms,
        closed_ms,
        seen_ms,
        sides: Sides { floats, histograms },
    })
}

fn read_histograms(input: &mut Bytes) -> Result<Option<Box<HistogramSide>>> {
    if input.bytes(1)?[0] == 0 {
        return Ok(None);
    }
    let emitted = input.bytes(1)?[0] == 1;
    let total = Histogram::read(input.sized()?)?;
    let total = total.ok_or_else(|| corrupt("a total that is a stale marker"))?;
    let inputs = read_inputs(input)?;
    Ok(Some(Box::new(Side { kind: total.kind(), emitted, total, inputs })))
}

fn write_inputs<V: Folded>(out: &mut Out, inputs: &BTreeMap<u128, Input<V>>) {
    out.number(inputs.len() as u64);
    for (id, input) in inputs {
        out.0.extend_from_slice(&id.to_le_bytes());
        out.signed(input.seen_ms);
        out.0.push(u8::from(input.settled.is_some()));
        if let Some((time_ms, value)) = &input.settled {
            out.signed(*time_ms);
            value.write(out);
        }
        out.number(input.open.len() as u64);
        let mut before = 0_i64;
        for (time_ms, value) in &input.open {
            out.signed(time_ms.wrapping_sub(before));
            value.write(out);
            before = *time_ms;
        }
    }
}

fn read_inputs<V: Folded>(input: &mut Bytes) -> Result<BTreeMap<u128, Input<V>>> {
    let mut inputs = BTreeMap::new();
    for _ in 0..input.count()? {
        let mut id = [0; 16];
        id.copy_from_slice(input.bytes(16)?);
        let seen_ms = input.signed()?;
        let settled = match input.bytes(1)?[0] {
            0 => None,
            _ => Some((input.signed()?, V::read(input)?)),
        };
        let count = input.count()?;
        let mut open = Vec::with_capacity(count);
        let mut before = 0_i64;
        for _ in 0..count {
            before = before.wrapping_add(input.signed()?);
            open.push((before, V::read(input)?));
        }
        inputs.insert(u128::from_le_bytes(id), Input { settled, open, seen_ms });
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::super::budget::FoldRules;
    use super::super::fold::{Emission, Emitted, HISTOGRAM_BYTES_MAX, NewOutput, Target};
    use super::super::letters::LetterReason;
    use super::*;
    use crate::labels::canonical::push_label;
    use crate::model::{HistogramPoint, SeriesType};
    use crate::wire::histogram::{Count, Draft, Side as Buckets};

    const RULES: FoldRules = FoldRules {
        labels: Vec::new(),
        gauge: GaugeFunction::Avg,
        grid_ms: 10_000,
        lateness_ms: 5_000,
        idle_ms: 60_000,
        inputs_max: 20,
        outputs_max: 9,
    };

    fn registry_of(rows: usize) -> Registry {
        let mut registry = Registry::new(1);
        let tenant = registry.tenant("a");
        for row in 0..rows {
            let mut labels = Vec::new();
            push_label(&mut labels, b"__name__", b"up");
            push_label(&mut labels, b"id", row.to_string().as_bytes());
            assert!(registry.register(tenant, &labels, SeriesType::Unknown, 0).is_ok());
        }
        registry
    }

    /// Canonical bytes of three, at the times of the floats; those of row 2 are gauges.
    fn histograms(row: u32, value: f64) -> (Vec<u8>, Vec<HistogramPoint>) {
        let (mut bytes, mut points) = (Vec::new(), Vec::new());
        for (time_ms, more) in [(101_000, 1), (99_000, 0), (115_000, 2)] {
            let start = bytes.len() as u32;
            let mut draft =
                Draft { sum: value, count: Count::Integer(3 + more), ..Draft::default() };
            draft.positive = Buckets { spans: vec![(1, 2)], deltas: vec![1, 1], counts: vec![] };
            draft.zero_count = Count::Integer(more);
            draft.reset_hint = if row == 2 { 3 } else { 0 };
            assert!(draft.encode(&mut bytes).is_ok());
            let end = bytes.len() as u32;
            points.push(HistogramPoint { series_index: 0, time_ms, start, end });
        }
        (bytes, points)
    }

    fn folding() -> Fold {
        let mut fold = Fold::default();
        fold.advance(100_000);
        for (row, kind) in [(0, Kind::Counter), (2, Kind::Gauge)] {
            let overflow_label = if row == 0 { "id".to_owned() } else { String::new() };
            let new = NewOutput { tenant: 0, budget: "b", metric: "up", overflow_label, kind };
            fold.open_output(row, new, &RULES);
            for input in 0..3_u32 {
                let target = Target { output: row, input: u128::from(input) << 99 };
                let value = f64::from(input) + 0.5;
                let mut points = vec![(101_000, value), (99_000, value / 3.0), (115_000, 9.0)];
                assert_eq!(fold.take(target, &RULES, &mut points), None);
                let (bytes, points) = histograms(row, value);
                let mut points: Vec<&HistogramPoint> = points.iter().collect();
                assert_eq!(fold.take_histograms(target, &RULES, &mut points, &bytes), None);
            }
        }
        fold.advance(116_000);
        fold
    }

    #[test]
    fn what_is_loaded_folds_on_and_what_is_damaged_is_refused() {
        let registry = registry_of(3);
        let mut fold = folding();
        let bytes = fold.encode();
        let mut again = Fold::default();
        assert!(again.load(&bytes, &registry).is_ok());
        assert_eq!(again.encode(), bytes);
        assert_eq!(again.overflowing(0, "b", "up"), Some("id"));
        let made = fold.advance(125_000);
        assert_eq!(again.advance(125_000), made);
        assert_eq!((made.floats.len(), made.histograms.len()), (2, 2));
        assert_eq!(again.encode(), fold.encode());

        assert!(again.load(&bytes, &registry_of(2)).is_err(), "a row that is not there");
        for cut in 0..bytes.len() {
            assert!(again.load(&bytes[..cut], &registry).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            // The state file's CRC notices it; here it must only not panic.
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut loaded = Fold::default();
            if loaded.load(&damaged, &registry).is_ok() {
                loaded.advance(125_000);
            }
        }
    }

    #[test]
    fn a_section_of_a_build_that_folded_floats_alone_is_read() {
        let mut fold = Fold::default();
        fold.advance(100_000);
        let new = NewOutput {
            tenant: 0,
            budget: "b",
            metric: "up",
            overflow_label: String::new(),
            kind: Kind::Counter,
        };
        fold.open_output(0, new, &RULES);
        let target = Target { output: 0, input: 7 };
        assert_eq!(fold.take(target, &RULES, &mut vec![(101_000, 1.0)]), None);
        let mut bytes = fold.encode();
        // The one output's mark that it has no histograms is the last byte, and the version the first.
        assert_eq!((bytes.pop(), bytes[0]), (Some(0), 2));
        bytes[0] = 1;
        let mut again = Fold::default();
        assert!(again.load(&bytes, &registry_of(1)).is_ok());
        assert_eq!(again.encode(), fold.encode());
    }

    #[test]
    fn what_does_not_fit_or_is_too_much_stays() {
        let mut fold = folding();
        let target = Target { output: 0, input: 1 };
        let (bytes, points) = histograms(2, 1.0);
        let mut left: Vec<&HistogramPoint> = points.iter().collect();
        let why = fold.take_histograms(target, &RULES, &mut left, &bytes);
        assert_eq!((why, left.len()), (Some(LetterReason::FoldHistogram), 3), "gauges");
        let few = FoldRules { inputs_max: 12, ..RULES };
        let target = Target { output: 2, input: 99 };
        let why = fold.take_histograms(target, &few, &mut left, &bytes);
        assert_eq!(
            (why, left.len()),
            (Some(LetterReason::FoldFull), 3),
            "twelve inputs in two outputs"
        );
        let why = fold.take_histograms(target, &RULES, &mut left, &bytes);
        assert_eq!((why, left.len()), (Some(LetterReason::FoldLate), 2), "windows are closed");
        let held = fold.memory_bytes();
        fold.advance(9_000_000);
        assert!(fold.memory_bytes() < held, "inputs that are idle let their bytes go");
    }

    #[test]
    fn bytes_held_are_limited_and_the_same_after_a_load() {
        let mut fold = folding();
        let mut draft = Draft { schema: -53, count: Count::Float(9.0), ..Draft::default() };
        draft.custom_bounds = (0..999).map(f64::from).collect();
        draft.positive = Buckets { spans: vec![(0, 999)], deltas: vec![], counts: vec![1.0; 999] };
        let mut bytes = Vec::new();
        assert!(draft.encode(&mut bytes).is_ok());
        let mut taken = 0;
        let mut time_ms = 116_000;
        let new = NewOutput {
            tenant: 0,
            budget: "b",
            metric: "up",
            overflow_label: String::new(),
            kind: Kind::Counter,
        };
        fold.open_output(1, new, &RULES);
        let target = Target { output: 1, input: 1 };
        let mut take = |fold: &mut Fold| {
            time_ms += 1;
            let end = bytes.len() as u32;
            let point = HistogramPoint { series_index: 0, time_ms, start: 0, end };
            fold.take_histograms(target, &RULES, &mut vec![&point], &bytes)
        };
        while take(&mut fold).is_none() {
            taken += 1;
            assert!(taken * bytes.len() < HISTOGRAM_BYTES_MAX);
        }
        assert!((taken + 3) * bytes.len() > HISTOGRAM_BYTES_MAX);
        assert_eq!(take(&mut fold), Some(LetterReason::FoldFull));
        let registry = registry_of(3);
        let mut again = Fold::default();
        assert!(again.load(&fold.encode(), &registry).is_ok());
        assert_eq!(again.memory_bytes(), fold.memory_bytes());
        let emitted = fold.advance(135_000).histograms;
        assert_eq!(again.advance(135_000).histograms, emitted);
        assert_eq!(again.memory_bytes(), fold.memory_bytes());
        assert_eq!(take(&mut fold), None, "what is settled has gone");
    }

    #[test]
    fn a_clock_that_was_wrong_is_followed_back() {
        let mut fold = folding();
        assert_eq!(fold.advance(9_000_000).floats.len(), 2, "what was open at 116 s");
        assert_eq!(fold.advance(200_000), Emission::default());
        let target = Target { output: 2, input: 7 };
        assert_eq!(fold.take(target, &RULES, &mut vec![(200_000, 4.0)]), None);
        let made = fold.advance(205_000);
        assert_eq!(made.floats, [Emitted { row: 2, time_ms: 200_000, value: 4.0 }]);
    }

    #[test]
    fn an_output_is_forgotten_a_day_after_its_last_point() {
        let mut fold = folding();
        fold.advance(9_000_000);
        assert!(fold.has_output(0) && fold.has_output(2));
        fold.advance(100_000 + 86_400_000);
        assert!(!fold.has_output(0) && !fold.has_output(2));
        assert_eq!(fold.overflowing(0, "b", "up"), None);
        assert!(fold.has_room(0, "b", &RULES));
    }
}
