//! Sections `windows` (ends, counts, stale marks) and `times` (when the first and last point was)
//! of a window page.

use super::columns::{Usual, UsualColumn, broken, put, put_differences, read, read_differences};
use super::page::{DROPPED, HIGH, LOW, PAGE_WINDOWS_MAX, SECTIONS, SUM, TIMES, Tally, VALUES};
use crate::codec::Codec;
use crate::codec::bytes::{Cursor, put_varint};
use crate::codec::times::{TimesBuilder, read_times};
use crate::codec::values::cost;
use crate::downsample::columns::{Kind, WindowColumns};
use crate::error::Result;

#[derive(Default)]
pub(super) struct TimesEncoder {
    ends: TimesBuilder,
    counts: Usual,
    firsts: Usual,
    lasts: Usual,
    intervals: Vec<i64>,
    scratch: [Vec<i64>; 4],
}

impl TimesEncoder {
    pub fn put_windows(&mut self, out: &mut Vec<u8>, page: &WindowColumns) {
        put_varint(out, page.series_count() as u64);
        put_varint(out, page.window_count() as u64);
        self.ends.clear();
        let values = &mut self.scratch[0];
        for series in 0..page.series_count() {
            let range = page.series(series);
            self.ends.push(&page.end_ms[range.clone()]);
            values.clear();
            values.extend(page.count[range].iter().map(|&count| i64::from(count)));
            self.counts.push(values);
        }
        self.ends.put_count(out);
        put(out, &page.kinds.iter().map(|&kind| kind as i64).collect::<Vec<i64>>());
        self.ends.encode(out, Codec::Dense);
        self.counts.put_heads(out);
        self.counts.put_residuals(out);
        let stale = page.ends_stale.iter().enumerate().filter(|(_, stale)| **stale);
        let stale: Vec<i64> = stale.map(|(at, _)| at as i64).collect();
        put_varint(out, stale.len() as u64);
        put_differences(out, &stale);
    }

    pub fn put_times(&mut self, out: &mut Vec<u8>, page: &WindowColumns, window_ms: i64) {
        self.intervals.clear();
        for series in 0..page.series_count() {
            self.push_series(page, series, window_ms);
        }
        put(out, &self.intervals);
        self.firsts.put_heads(out);
        self.lasts.put_heads(out);
        self.firsts.put_residuals(out);
        self.lasts.put_residuals(out);
    }

    fn push_series(&mut self, page: &WindowColumns, series: usize, window_ms: i64) {
        let [firsts, lasts, grid_firsts, grid_lasts] = &mut self.scratch;
        [&mut *firsts, &mut *lasts].into_iter().for_each(Vec::clear);
        for at in page.series(series).filter(|&at| page.count[at] > 0) {
            let start_ms = page.end_ms[at].wrapping_sub(window_ms);
            firsts.push(page.first_ms[at].wrapping_sub(start_ms));
            if page.count[at] > 1 {
                lasts.push(page.end_ms[at].wrapping_sub(page.last_ms[at]));
            }
        }
        let steady = |values: &[i64]| values.windows(2).all(|pair| pair[0] == pair[1]);
        let interval_ms = interval_of(page, series);
        if interval_ms == 0 || steady(firsts) && steady(lasts) {
            self.intervals.push(0);
            self.firsts.push(firsts);
            return self.lasts.push(lasts);
        }
        [&mut *grid_firsts, &mut *grid_lasts].into_iter().for_each(Vec::clear);
        let mut next_ms = None;
        for at in page.series(series).filter(|&at| page.count[at] > 0) {
            let expected_ms = next_ms.unwrap_or(page.first_ms[at]);
            grid_firsts.push(page.first_ms[at].wrapping_sub(expected_ms));
            if page.count[at] > 1 {
                let steps_ms = (i64::from(page.count[at]) - 1).wrapping_mul(interval_ms);
                grid_lasts
                    .push(page.last_ms[at].wrapping_sub(page.first_ms[at]).wrapping_sub(steps_ms));
            }
            next_ms = Some(page.last_ms[at].wrapping_add(interval_ms));
        }
        let of_grid = cost(grid_firsts, 0) + cost(grid_lasts, 0);
        let of_windows = cost(firsts, firsts[0]) + cost(lasts, lasts.first().copied().unwrap_or(0));
        if of_grid < of_windows {
            self.intervals.push(interval_ms);
            self.firsts.push_residuals(firsts[0], grid_firsts);
            self.lasts.push_residuals(0, grid_lasts);
        } else {
            self.intervals.push(0);
            self.firsts.push(firsts);
            self.lasts.push(lasts);
        }
    }
}

/// How far a series' points seem to lie apart; 0 where one cannot tell.
fn interval_of(page: &WindowColumns, series: usize) -> i64 {
    let range = page.series(series);
    let middle = range.start + range.len() / 2;
    let multi = (middle..range.end).chain(range.start..middle).find(|&at| page.count[at] > 1);
    if let Some(at) = multi {
        let span_ms = page.last_ms[at].wrapping_sub(page.first_ms[at]);
        let steps = i64::from(page.count[at]) - 1;
        return span_ms.wrapping_add(steps / 2) / steps;
    }
    let valued = |at: &usize| page.count[*at] > 0;
    let later = (middle..range.end).find(valued);
    let earlier = (range.start..middle).rev().find(valued);
    match (earlier, later) {
        (Some(a), Some(b)) => page.first_ms[b].wrapping_sub(page.last_ms[a]),
        _ => 0,
    }
}

/// Read section `windows` into an empty page; the columns of the other needed sections become
/// zeros, the rest stay empty. Answers what each series has.
pub(super) fn read_windows(
    bytes: &[u8],
    (series, windows): (usize, usize),
    needed: &[bool; SECTIONS],
    page: &mut WindowColumns,
) -> Result<Vec<Tally>> {
    let mut cursor = Cursor::new(bytes);
    let same =
        cursor.count(PAGE_WINDOWS_MAX)? == series && cursor.count(PAGE_WINDOWS_MAX)? == windows;
    if !same || series == 0 || series > windows {
        return Err(broken("counts of a window page"));
    }
    let vectors = cursor.count(series)?;
    let kinds = read(&mut cursor, series)?;
    let ends = read_times(&mut cursor, series, vectors, windows)?;
    page.clear();
    for (index, &kind) in kinds.iter().enumerate() {
        let kind = u8::try_from(kind).ok().and_then(Kind::from_u8);
        // Vectors are shared: what a few bytes say may come to more windows than the page has.
        if ends.of_series(index).len() > windows - page.end_ms.len() {
            return Err(broken("ends of a window page"));
        }
        page.end_ms.extend_from_slice(ends.of_series(index));
        page.end_series(kind.ok_or_else(|| broken("kind of a series"))?);
    }
    if page.end_ms.len() != windows {
        return Err(broken("ends of a window page"));
    }
    resize(page, windows, needed);
    let mut counts = UsualColumn::read_heads(&mut cursor, series)?;
    counts.read_residuals(&mut cursor, (0..series).map(|index| page.series(index).len()))?;
    let mut tallies = Vec::with_capacity(series);
    for index in 0..series {
        let range = page.series(index);
        let usual = counts.usual[index];
        let own = &mut page.count[range.clone()];
        let number = |count: i64| u32::try_from(count).map_err(|_| broken("count of a window"));
        own.fill(number(usual)?);
        for (count, residual) in own.iter_mut().zip(counts.residuals(index, range.len())) {
            *count = number(usual.wrapping_add(*residual))?;
        }
        tallies.push(Tally::of(own));
    }
    let stale = cursor.count(windows)?;
    for at in read_differences(&mut cursor, stale)? {
        let at = usize::try_from(at).ok().filter(|at| *at < windows);
        page.ends_stale[at.ok_or_else(|| broken("stale mark outside its page"))?] = true;
    }
    if cursor.is_empty() { Ok(tallies) } else { Err(broken("end of a section")) }
}

fn resize(page: &mut WindowColumns, windows: usize, needed: &[bool; SECTIONS]) {
    page.count.resize(windows, 0);
    page.ends_stale.resize(windows, false);
    for (section, column) in [(TIMES, &mut page.first_ms), (TIMES, &mut page.last_ms)] {
        column.resize(if needed[section] { windows } else { 0 }, 0);
    }
    for (section, column) in [
        (VALUES, &mut page.first),
        (VALUES, &mut page.last),
        (DROPPED, &mut page.dropped),
        (LOW, &mut page.minimum),
        (HIGH, &mut page.maximum),
        (SUM, &mut page.sum),
    ] {
        column.resize(if needed[section] { windows } else { 0 }, 0.0);
    }
}

/// Read section `times` into the columns of a page whose windows are there.
pub(super) fn read_first_last_ms(
    bytes: &[u8],
    window_ms: i64,
    tallies: &[Tally],
    page: &mut WindowColumns,
) -> Result<()> {
    let mut cursor = Cursor::new(bytes);
    let intervals = read(&mut cursor, tallies.len())?;
    let mut firsts = UsualColumn::read_heads(&mut cursor, tallies.len())?;
    let mut lasts = UsualColumn::read_heads(&mut cursor, tallies.len())?;
    firsts.read_residuals(&mut cursor, tallies.iter().map(|tally| tally.valued))?;
    lasts.read_residuals(&mut cursor, tallies.iter().map(|tally| tally.multi))?;
    for (index, tally) in tallies.iter().enumerate() {
        let interval_ms = intervals[index];
        let (usual_first, usual_last) = (firsts.usual[index], lasts.usual[index]);
        let first_residuals = firsts.residuals(index, tally.valued);
        let last_residuals = lasts.residuals(index, tally.multi);
        let range = page.series(index);
        let regular = interval_ms == 0 && first_residuals.is_empty() && last_residuals.is_empty();
        if regular && tally.multi == range.len() {
            let ends = &page.end_ms[range.clone()];
            let from_end_ms = usual_first.wrapping_sub(window_ms);
            for (first_ms, end_ms) in page.first_ms[range.clone()].iter_mut().zip(ends) {
                *first_ms = end_ms.wrapping_add(from_end_ms);
            }
            for (last_ms, end_ms) in page.last_ms[range].iter_mut().zip(ends) {
                *last_ms = end_ms.wrapping_sub(usual_last);
            }
            continue;
        }
        let mut first_residuals = first_residuals.iter().copied();
        let mut last_residuals = last_residuals.iter().copied();
        let mut next_ms = None;
        for at in range {
            let count = i64::from(page.count[at]);
            if count == 0 {
                continue;
            }
            let of_window = page.end_ms[at].wrapping_sub(window_ms).wrapping_add(usual_first);
            let expected_ms = next_ms.unwrap_or(of_window);
            let first_ms = expected_ms.wrapping_add(first_residuals.next().unwrap_or(0));
            page.first_ms[at] = first_ms;
            page.last_ms[at] = match (count, interval_ms) {
                (1, _) => first_ms,
                (_, 0) => {
                    let residual = last_residuals.next().unwrap_or(0);
                    page.end_ms[at].wrapping_sub(usual_last).wrapping_sub(residual)
                }
                _ => {
                    let steps_ms = (count - 1).wrapping_mul(interval_ms);
                    let residual = last_residuals.next().unwrap_or(0);
                    first_ms.wrapping_add(steps_ms).wrapping_add(residual)
                }
            };
            if interval_ms != 0 {
                next_ms = Some(page.last_ms[at].wrapping_add(interval_ms));
            }
        }
    }
    if cursor.is_empty() { Ok(()) } else { Err(broken("end of a section")) }
}
