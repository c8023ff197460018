//! Several series' windows as one series': what taking a label away makes of those that it told
//! apart. The rules stand in docs/formats/warm.md, Folds.

use crate::downsample::columns::{Kind, Window, WindowColumns};
use std::collections::BTreeMap;

/// What the members say of one window.
#[derive(Clone, Debug, Default)]
struct Folded {
    window: Window,
    /// Counters: what the members grew by from their windows before to this one, and inside it.
    entered: f64,
    crossed: f64,
}

/// Windows of one output, in the making. Memory follows the windows, not the members.
pub(super) struct Fold {
    kind: Kind,
    windows: BTreeMap<i64, Folded>,
    /// Counters: what the members grew by in the file before, as far as it was shown.
    grown_before: f64,
}

/// A member's windows in the file before: those of this series.
pub(super) type Earlier<'a> = (&'a WindowColumns, usize);

impl Fold {
    /// Not of `Kind::Unknown`: nothing honest can be said of counters and gauges at once.
    pub fn new(kind: Kind) -> Fold {
        Fold { kind, windows: BTreeMap::new(), grown_before: 0.0 }
    }

    /// Add one member: all of its windows, ascending. A counter that has `earlier` ones grows from
    /// their end.
    pub fn add(&mut self, columns: &WindowColumns, series: usize, earlier: Option<Earlier>) {
        let mut last_before = None;
        if let Some((columns, series)) = earlier.filter(|_| self.kind == Kind::Counter) {
            let mut before = Folded::default();
            for at in columns.series(series).filter(|&at| columns.count[at] > 0) {
                add_counter(&mut before, &columns.window(at), &mut last_before);
            }
            self.grown_before += before.entered + before.crossed;
        }
        for at in columns.series(series) {
            let window = columns.window(at);
            let folded = self.windows.entry(window.end_ms).or_insert_with(|| Folded {
                window: Window { end_ms: window.end_ms, ends_stale: true, ..Window::default() },
                ..Folded::default()
            });
            // A member that goes on keeps the fold alive.
            folded.window.ends_stale &= window.ends_stale;
            if window.count == 0 {
                continue;
            }
            if self.kind == Kind::Counter {
                add_counter(folded, &window, &mut last_before);
            } else {
                add_gauge(&mut folded.window, &window);
            }
        }
    }

    /// Append the fold's windows and close the series.
    pub fn finish(self, out: &mut WindowColumns) {
        let (mut total, mut is_first) = (0.0, true);
        for mut folded in self.windows.into_values() {
            let mut window = folded.window;
            if self.kind == Kind::Counter && window.count > 0 {
                // From the file before, where the fold ended at `grown_before` or higher, it falls
                // to this: only if it surely falls do readers count all of it as growth.
                if is_first && folded.entered * 2.0 >= self.grown_before {
                    folded.crossed += std::mem::take(&mut folded.entered);
                }
                is_first = false;
                window.first = total + folded.entered;
                window.last = window.first + folded.crossed;
                total = window.last;
                if window.count == 1 && window.first.to_bits() != window.last.to_bits() {
                    window.count = 2;
                }
            }
            if window.count == 1 {
                window.last_ms = window.first_ms;
            }
            out.push(&window);
        }
        out.end_series(self.kind);
    }
}

fn add_counter(folded: &mut Folded, window: &Window, last_before: &mut Option<f64>) {
    let into = &mut folded.window;
    note_times(into, window);
    // As often as the member that was scraped most: rates extrapolate by it.
    into.count = into.count.max(window.count);
    let (crossed, entered) = (
        window.last - window.first + window.dropped,
        match *last_before {
            Some(before) if window.first >= before => window.first - before,
            Some(_) => window.first,
            // A first sample adds nothing: it was counted before, or elsewhere.
            None => 0.0,
        },
    );
    // One member's NaN or Inf must not become the sum's for ever.
    if crossed.is_finite() && entered.is_finite() {
        folded.crossed += crossed;
        folded.entered += entered;
        *last_before = Some(window.last);
    }
}

fn add_gauge(into: &mut Window, window: &Window) {
    let is_new = into.count == 0;
    let earlier = window.first_ms < into.first_ms
        || window.first_ms == into.first_ms && window.first.total_cmp(&into.first).is_lt();
    let later = window.last_ms > into.last_ms
        || window.last_ms == into.last_ms && window.last.total_cmp(&into.last).is_lt();
    if is_new || earlier {
        into.first = window.first;
    }
    if is_new || later {
        into.last = window.last;
    }
    note_times(into, window);
    into.sum = if is_new { window.sum } else { into.sum + window.sum };
    if is_new || into.minimum.is_nan() || window.minimum < into.minimum {
        into.minimum = window.minimum;
    }
    if is_new || into.maximum.is_nan() || window.maximum > into.maximum {
        into.maximum = window.maximum;
    }
    into.count = into.count.saturating_add(window.count);
}

fn note_times(into: &mut Window, window: &Window) {
    let is_new = into.count == 0;
    into.first_ms = if is_new { window.first_ms } else { into.first_ms.min(window.first_ms) };
    into.last_ms = if is_new { window.last_ms } else { into.last_ms.max(window.last_ms) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downsample::window::downsample;
    use proptest::prelude::*;

    const WINDOW_MS: i64 = 60_000;

    /// A counter's growth from its first sample to its last, resets corrected.
    fn increase(values: &[f64]) -> f64 {
        let step = |pair: &[f64]| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] };
        values.windows(2).map(step).sum()
    }

    fn times(gaps: &[(u16, u16)]) -> Vec<i64> {
        let mut time_ms = 0;
        gaps.iter()
            .map(|&(gap, _)| {
                time_ms += 1 + i64::from(gap) * 2;
                time_ms
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn folded_counters_grow_by_the_sum_of_their_members(
            members in prop::collection::vec(
                prop::collection::vec((any::<u16>(), any::<u16>()), 1..60), 1..6),
        ) {
            let mut fold = Fold::new(Kind::Counter);
            let mut sum = 0.0;
            for member in &members {
                let values: Vec<f64> = member.iter().map(|&(_, v)| f64::from(v)).collect();
                sum += increase(&values);
                let mut columns = WindowColumns::default();
                downsample(&times(member), &values, WINDOW_MS, Kind::Counter, &mut columns);
                fold.add(&columns, 0, None);
            }
            let mut out = WindowColumns::default();
            fold.finish(&mut out);
            prop_assert_eq!(out.last[out.last.len() - 1] - out.first[0], sum);
            prop_assert!(out.first.iter().zip(&out.last).all(|(first, last)| first <= last));
            prop_assert!(out.end_ms.is_sorted_by(|a, b| a < b));
        }

        #[test]
        fn folded_gauges_are_the_windows_of_all_points(
            members in prop::collection::vec(
                prop::collection::vec((any::<u16>(), any::<u16>()), 1..60), 1..6),
        ) {
            let mut fold = Fold::new(Kind::Gauge);
            let mut all: Vec<(i64, f64)> = Vec::new();
            for member in &members {
                let values: Vec<f64> = member.iter().map(|&(_, v)| f64::from(v)).collect();
                let times = times(member);
                let mut columns = WindowColumns::default();
                downsample(&times, &values, WINDOW_MS, Kind::Gauge, &mut columns);
                fold.add(&columns, 0, None);
                all.extend(times.into_iter().zip(values));
            }
            all.sort_by_key(|point| point.0);
            let (times, values): (Vec<i64>, Vec<f64>) = all.into_iter().unzip();
            let (mut ours, mut pooled) = (WindowColumns::default(), WindowColumns::default());
            fold.finish(&mut ours);
            downsample(&times, &values, WINDOW_MS, Kind::Gauge, &mut pooled);
            prop_assert_eq!(&ours.end_ms, &pooled.end_ms);
            prop_assert_eq!(&ours.count, &pooled.count);
            prop_assert_eq!(&ours.sum, &pooled.sum);
            prop_assert_eq!(&ours.minimum, &pooled.minimum);
            prop_assert_eq!(&ours.maximum, &pooled.maximum);
            prop_assert_eq!(&ours.first_ms, &pooled.first_ms);
            prop_assert_eq!(&ours.last_ms, &pooled.last_ms);
        }
    }
}
