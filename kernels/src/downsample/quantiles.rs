//! `quantile_over_time` over windows of which some have sketches.
//!
//! Invariant: a series none of whose windows has a sketch is answered from its points, where windows
//! hold one or two, else as if only its windows' last points had been scraped. What a sketch says is within its relative error, which the answer tells;
//! a window that should have one and has not makes its steps approximate.

use super::columns::{Fields, WindowColumns};
use super::evaluate::Exactness;
use super::read_buffers::ReadBuffers;
use super::scan::Scan;
use super::sketches::PLAIN_POINTS_MAX;
use crate::error::Result;
use crate::evaluate::functions::{self, Function};
use crate::evaluate::window::{Steps, each_window};
use crate::sketch::quantiles::Tally;
use std::ops::Range;
use std::sync::atomic::Ordering;

const FIELDS: Fields = Fields::COUNT
    .with(Fields::FIRST_MS)
    .with(Fields::FIRST)
    .with(Fields::LAST_MS)
    .with(Fields::LAST)
    .with(Fields::SKETCH);
/// Bytes that a window takes while its series waits to be evaluated, about.
pub(super) const HELD_WINDOW_BYTES: usize = 256;

impl Scan<'_> {
    /// Does the function look at sketches?
    pub(super) fn reads_sketches(&self) -> bool {
        let call = &self.evaluation.call;
        call.extension.is_none() && call.function == Function::Quantile
    }

    /// The worst that an answer may be where only the best are wanted.
    pub(super) fn good_enough(&self) -> Exactness {
        if self.reads_sketches() { Exactness::Bounded } else { Exactness::Exact }
    }

    /// Evaluate the series `lane`, as `lane` does.
    pub(super) fn quantile_lane(
        &self,
        lane: Range<usize>,
        mut take: impl FnMut(usize, &[f64], &[bool]),
    ) -> Result<()> {
        let width = self.evaluation.end_ms.len();
        let (mut values, mut present) = (vec![0.0; width], vec![false; width]);
        let stop = || (self.check)().is_err();
        let mut scratch = functions::Scratch::new(&stop);
        let mut tally = Tally::default();
        let held = self.held_windows(&lane)?;
        for (row, windows) in lane.zip(&held) {
            present.fill(false);
            values.fill(0.0);
            if windows.sketches.is_empty() {
                self.of_points(windows, &mut scratch, &mut values, &mut present)?;
            } else {
                self.of_sketches(windows, &mut scratch, &mut tally, &mut values, &mut present)?;
            }
            if scratch.stopped() {
                (self.check)()?;
            }
            take(row, &values, &present);
        }
        Ok(())
    }

    /// The windows of each series of the lane, of all files.
    fn held_windows(&self, lane: &Range<usize>) -> Result<Vec<WindowColumns>> {
        let mut held = vec![WindowColumns::default(); lane.len()];
        let mut buffers = ReadBuffers::default();
        let (ends, range_ms) = self.ranges();
        for run in &self.selection.runs {
            let steps = Steps { eval_ms: ends, end_ms: ends, range_ms };
            self.note_edges(run, &steps)?;
            let span_ms = (run.from_ms, run.until_ms);
            self.read(run, span_ms, lane, FIELDS, &mut buffers, |entry, piece| {
                let own = &mut held[entry.series as usize - lane.start];
                own.append_fields(piece.columns, piece.range, FIELDS);
                Ok(())
            })?;
        }
        Ok(held)
    }

    /// The steps' ends, moved onto windows' edges where that is done, and how far back they look.
    fn ranges(&self) -> (&[i64], i64) {
        match &self.moved {
            Some(call) => (call.ends_ms(), call.covered_ms()),
            None => (&self.evaluation.end_ms, self.evaluation.range_ms),
        }
    }

    /// Of all points, where windows hold no more than two, else as if nothing but each window's last
    /// point had been scraped.
    fn of_points(
        &self,
        windows: &WindowColumns,
        scratch: &mut functions::Scratch<'_>,
        values: &mut [f64],
        present: &mut [bool],
    ) -> Result<()> {
        let all = windows.count.iter().all(|&count| count <= PLAIN_POINTS_MAX);
        self.note(if all { Exactness::Exact } else { Exactness::Approximate })?;
        let (mut times, mut held) = (Vec::new(), Vec::new());
        for at in (0..windows.window_count()).filter(|&at| windows.count[at] > 0) {
            if all && windows.count[at] > 1 {
                times.push(windows.first_ms[at]);
                held.push(windows.first[at]);
            }
            times.push(windows.last_ms[at]);
            held.push(windows.last[at]);
        }
        let steps = self.evaluation.steps();
        self.evaluation.call.run(&times, &held, &steps, scratch, values, present);
        Ok(())
    }

    fn of_sketches(
        &self,
        windows: &WindowColumns,
        scratch: &mut functions::Scratch<'_>,
        tally: &mut Tally,
        values: &mut [f64],
        present: &mut [bool],
    ) -> Result<()> {
        let (ends, range_ms) = self.ranges();
        let arguments = &self.evaluation.call.arguments[0];
        let (mut worst, mut failed) = (Exactness::Exact, None);
        each_window(&windows.end_ms, ends, range_ms, |step, from, until| {
            if failed.is_some() || !scratch.spend(until - from) {
                return;
            }
            tally.clear();
            let exactness = match count(windows, from..until, tally) {
                Ok(exactness) => exactness,
                Err(error) => {
                    failed = Some(error);
                    return;
                }
            };
            if tally.total() == 0 {
                return;
            }
            let q = arguments[if arguments.len() == 1 { 0 } else { step }];
            let (value, sure) = tally.quantile(q);
            (values[step], present[step]) = (value, true);
            worst = worst.max(if sure { exactness } else { Exactness::Approximate });
        });
        self.sketched.fetch_or(true, Ordering::Relaxed);
        failed.map_or(Ok(()), Err)?;
        self.note(worst)
    }
}

/// Count the values of these windows. Every value goes through a bucket, so it is never exact.
fn count(windows: &WindowColumns, range: Range<usize>, tally: &mut Tally) -> Result<Exactness> {
    let mut exactness = Exactness::Bounded;
    for at in range {
        let points = windows.count[at];
        if points > PLAIN_POINTS_MAX {
            match windows.sketches.get(at) {
                Some(sketch) => tally.merge(sketch)?,
                None => {
                    tally.add(windows.last[at], u64::from(points));
                    exactness = Exactness::Approximate;
                }
            }
            continue;
        }
        if points > 0 {
            tally.add(windows.first[at], 1);
        }
        if points > 1 {
            tally.add(windows.last[at], 1);
        }
    }
    Ok(exactness)
}

#[cfg(test)]
mod tests {
    use super::super::columns::Kind;
    use super::super::memory_file::MemoryFile;
    use super::super::reader::{Reader, ReaderOptions, TierAnswer};
    use super::super::selection::OwnedFile;
    use super::super::sketches::sketch_points;
    use super::super::window::downsample;
    use super::*;
    use crate::evaluate::numeric;
    use crate::evaluate::plan::{Limits, Plan};
    use crate::labels::LabelTable;
    use crate::model::STALE_BITS;
    use crate::sketch::quantiles::{RELATIVE_ERROR, Sketch};
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 60 * MINUTE_MS;
    const STALE: f64 = f64::from_bits(STALE_BITS);

    fn file(times_ms: &[i64], values: &[f64], sketched: bool) -> OwnedFile {
        let mut windows = WindowColumns::default();
        downsample(times_ms, values, MINUTE_MS, Kind::Gauge, &mut windows);
        if sketched {
            let all = 0..windows.window_count();
            sketch_points(values, all, &mut Sketch::default(), &mut windows);
        }
        let labels = LabelTable::from_lists(&[vec![("__name__", "latency")]]);
        let file = MemoryFile::new(MINUTE_MS, &labels, &windows).expect("a file");
        OwnedFile { file: Arc::new(file), ranges_ms: vec![(0, 4 * HOUR_MS)] }
    }

    /// Four ranges of an hour, from `shift_ms` after the first hour on.
    fn asked(file: &OwnedFile, q: f64, shift_ms: i64, exact_only: bool) -> Option<TierAnswer> {
        let plan: Plan = serde_json::from_value(json!({
            "tenant": "t", "matchers": [], "function": "quantile_over_time", "args": [q],
            "range_ms": HOUR_MS, "offset_ms": 0, "at_ms": null, "lookback_ms": 300_000,
            "start_ms": HOUR_MS + shift_ms, "end_ms": 4 * HOUR_MS + shift_ms, "step_ms": HOUR_MS,
            "limits": {}, "aggregate": null, "extension": null,
        }))
        .expect("a plan");
        let limits =
            Limits { series_max: 10, points_max: 1 << 30, bytes_max: 64 << 20, cost_max: u64::MAX };
        let options = ReaderOptions { query_threads: 1, query_bytes_max: 64 << 20, limits };
        Reader::new(options)
            .evaluate(&plan, std::slice::from_ref(file), exact_only, &|| Ok(()))
            .expect("evaluated")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn sketches_answer_within_their_error(
            points in prop::collection::vec((1i64..60_000, 0u8..30, 1.0..1e9f64), 30..600),
            q in prop_oneof![Just(0.0), Just(0.5), Just(0.99), Just(1.0), 0.0..1.0f64],
        ) {
            let mut at = 0;
            let (mut times, mut values) = (Vec::new(), Vec::new());
            for (gap, style, value) in points {
                at += gap;
                times.push(at);
                values.push(if style == 0 { STALE } else { value });
            }
            let answer = asked(&file(&times, &values, true), q, 0, false).expect("an answer");
            for step in 0..answer.step_count.min(answer.values.len()) {
                let inside = |at: i64| {
                    let end = (step as i64 + 1) * HOUR_MS;
                    end - HOUR_MS < at && at <= end
                };
                let mut own: Vec<f64> = times.iter().zip(&values)
                    .filter(|(at, value)| inside(**at) && value.to_bits() != STALE_BITS)
                    .map(|(_, &value)| value).collect();
                prop_assert_eq!(answer.present[step], !own.is_empty());
                if !own.is_empty() {
                    let exact = numeric::quantile(q, &mut own);
                    let off = (answer.values[step] - exact).abs();
                    prop_assert!(off <= exact * 0.010_000_1, "{} {exact}", answer.values[step]);
                }
            }
        }
    }

    #[test]
    fn an_answer_says_what_it_came_from() {
        let times: Vec<i64> = (1..=4 * 360).map(|i| i * 10_000).collect();
        let values: Vec<f64> = (0..times.len()).map(|i| (i % 97) as f64).collect();
        let (with, without) = (file(&times, &values, true), file(&times, &values, false));
        let told = asked(&with, 0.9, 0, true).expect("good enough");
        assert_eq!(
            (told.exactness, told.stats.relative_error),
            (Exactness::Bounded, RELATIVE_ERROR)
        );
        assert!(asked(&without, 0.9, 0, true).is_none(), "last points alone");
        let told = asked(&without, 0.9, 0, false).expect("an answer");
        assert_eq!((told.exactness, told.stats.relative_error), (Exactness::Approximate, 0.0));
        let moved = asked(&with, 0.9, 1_000, false).expect("an answer");
        assert_eq!(moved.exactness, Exactness::Bounded);
        assert_eq!(moved.values, asked(&with, 0.9, 0, false).expect("an answer").values);
        assert!(asked(&with, 0.9, 1_000, true).is_none(), "edges are moved");
        // A minute without one among others that have one.
        let mut some = WindowColumns::default();
        downsample(&times, &values, MINUTE_MS, Kind::Gauge, &mut some);
        sketch_points(&values, 0..100, &mut Sketch::default(), &mut some);
        let labels = LabelTable::from_lists(&[vec![("__name__", "latency")]]);
        let part = MemoryFile::new(MINUTE_MS, &labels, &some).expect("a file");
        let part = OwnedFile { file: Arc::new(part), ranges_ms: with.ranges_ms.clone() };
        let told = asked(&part, 0.9, 0, false).expect("an answer");
        assert_eq!(told.exactness, Exactness::Approximate);
        assert!(told.values.iter().all(|value| (80.0..97.0).contains(value)));
        // One or two points a minute are windows by themselves.
        for every_ms in [MINUTE_MS, MINUTE_MS / 2] {
            let count = (4 * HOUR_MS / every_ms) as usize;
            let sparse: Vec<i64> = (1..=count as i64).map(|i| i * every_ms).collect();
            let told = asked(&file(&sparse, &values[..count], true), 0.9, 0, true).expect("exact");
            assert_eq!(told.exactness, Exactness::Exact);
            let exact = numeric::quantile(0.9, &mut values[..count / 4].to_vec());
            assert_eq!(told.values[0], exact);
        }
    }
}
