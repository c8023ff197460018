//! Several files of one tenant as one: the windows that each of them owns, in the order of files.
//!
//! Invariant: the outcome is a function of the windows and of who owns them, not of how they were
//! cut into files. Memory holds a slice of each file's labels and a batch of series' windows.
//!
//! A part that *replaces* (an import) may share hours with the others: where it has a series, its
//! windows take the place of all that the others have from its first window to its last.

use super::columns::{Fields, Kind, WindowColumns};
use super::file::{WindowFile, compare_labels};
use super::mark::Mark;
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, LabelTableBuilder};
use std::cmp::Ordering;
use std::ops::Range;
use std::rc::Rc;

/// Series of a file whose labels are held at once.
const LABELS_SLICE: usize = 4_096;
/// Series, and windows as far as the files' average tells, of one batch.
const BATCH_SERIES_MAX: usize = 4_096;
const BATCH_WINDOWS_MAX: u64 = 1 << 20;

/// A file and the ranges (from_ms, until_ms] of which it gives the windows: ascending, apart.
pub struct Part {
    pub file: Box<dyn WindowFile>,
    pub owned_ms: Vec<(i64, i64)>,
    /// Windows in the file.
    pub windows: u64,
    /// Its series take the place of the others' where it has windows.
    pub replaces: bool,
}

/// What had to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replaced {
    pub windows: u64,
    /// Raw points that those windows counted.
    pub points: u64,
}

/// Is handed series by labels, then kind, their windows, and what was done to each.
pub type WindowSink<'a> = dyn FnMut(&LabelTable, &WindowColumns, &[Mark]) -> Result<()> + 'a;

/// Hand all windows that the parts own to `sink`. Two parts must not have one window of a series,
/// but for those that replace.
pub fn join(parts: &[Part], sink: &mut WindowSink) -> Result<Replaced> {
    let window_ms = parts.first().map_or(0, |part| part.file.window_ms());
    if parts.iter().any(|part| part.file.window_ms() != window_ms) {
        return Err(KernelError::Backend("join: windows of several lengths".into()));
    }
    let mut cursors = parts.iter().map(Cursor::open).collect::<Result<Vec<_>>>()?;
    let series_max = batch_series_max(parts);
    let mut groups: Vec<Vec<(usize, u32)>> = Vec::new();
    let mut labels = LabelTableBuilder::default();
    let mut replaced = Replaced::default();
    while let Some(group) = next_group(&mut cursors, &mut labels)? {
        groups.push(group);
        if groups.len() == series_max {
            let labels = std::mem::take(&mut labels).finish();
            hand(parts, &groups, &labels, sink, &mut replaced)?;
            groups.clear();
        }
    }
    hand(parts, &groups, &labels.finish(), sink, &mut replaced)?;
    Ok(replaced)
}

fn batch_series_max(parts: &[Part]) -> usize {
    let series = parts.iter().map(|part| part.file.series_count() as u64).max().unwrap_or(0);
    let windows: u64 = parts.iter().map(|part| part.windows).sum();
    let fit = BATCH_WINDOWS_MAX / (windows / series.max(1) + 1);
    usize::try_from(fit).unwrap_or(usize::MAX).clamp(16, BATCH_SERIES_MAX)
}

/// A place in one file.
struct Cursor<'a> {
    file: &'a dyn WindowFile,
    count: usize,
    next: usize,
    /// Labels of the slice that `next` lies in.
    labels: Rc<LabelTable>,
}

impl<'a> Cursor<'a> {
    fn open(part: &'a Part) -> Result<Cursor<'a>> {
        let file = &*part.file;
        let count = file.series_count();
        let mut cursor = Cursor { file, count, next: 0, labels: Rc::default() };
        cursor.turn()?;
        Ok(cursor)
    }

    fn turn(&mut self) -> Result<()> {
        let until = (self.next + LABELS_SLICE).min(self.count);
        let numbers: Vec<u32> = (self.next as u32..until as u32).collect();
        self.labels = Rc::new(self.file.labels(&numbers)?);
        Ok(())
    }

    fn place(&self) -> Option<usize> {
        (self.next < self.count).then_some(self.next % LABELS_SLICE)
    }

    fn step(&mut self) -> Result<()> {
        self.next += 1;
        if self.next < self.count && self.next.is_multiple_of(LABELS_SLICE) {
            self.turn()
        } else {
            Ok(())
        }
    }
}

/// (part, series) of the lowest labels, wherever they stand; the labels go to `labels`.
fn next_group(
    cursors: &mut [Cursor<'_>],
    labels: &mut LabelTableBuilder,
) -> Result<Option<Vec<(usize, u32)>>> {
    let mut lowest: Option<(usize, usize)> = None;
    for (number, cursor) in cursors.iter().enumerate() {
        let Some(place) = cursor.place() else { continue };
        let lower = lowest.is_none_or(|(best, at)| {
            compare_labels(&cursor.labels, place, &cursors[best].labels, at) == Ordering::Less
        });
        if lower {
            lowest = Some((number, place));
        }
    }
    let Some((best, at)) = lowest else { return Ok(None) };
    let held = Rc::clone(&cursors[best].labels);
    for (name, value) in held.labels(at) {
        let (name, value) = (labels.intern(name), labels.intern(value));
        labels.label(name, value);
    }
    labels.end_series();
    let mut group = Vec::new();
    for (number, cursor) in cursors.iter_mut().enumerate() {
        // Of two kinds, labels stand twice in a file.
        while let Some(place) = cursor.place()
            && compare_labels(&cursor.labels, place, &held, at) == Ordering::Equal
        {
            group.push((number, cursor.next as u32));
            cursor.step()?;
        }
    }
    Ok(Some(group))
}

/// A series' windows in one piece that was read.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub kind: Kind,
    pub piece: usize,
    pub windows: Range<usize>,
    pub mark: Mark,
    pub replaces: bool,
}

/// Read what the parts own of a batch, each part once a range, and put the series together.
fn hand(
    parts: &[Part],
    groups: &[Vec<(usize, u32)>],
    labels: &LabelTable,
    sink: &mut WindowSink,
    replaced: &mut Replaced,
) -> Result<()> {
    let mut pieces: Vec<WindowColumns> = Vec::new();
    let mut stretches: Vec<Vec<Stretch>> = vec![Vec::new(); groups.len()];
    for (number, part) in parts.iter().enumerate() {
        let (mut series, mut owners) = (Vec::new(), Vec::new());
        for (group, members) in groups.iter().enumerate() {
            for &(_, own) in members.iter().filter(|(of, _)| *of == number) {
                series.push(own);
                owners.push(group);
            }
        }
        let marks = part.file.marks(&series)?;
        for &(from_ms, until_ms) in part.owned_ms.iter().filter(|_| !series.is_empty()) {
            let mut piece = WindowColumns::default();
            part.file.read(&series, from_ms + 1..until_ms + 1, Fields::ALL, &mut piece)?;
            for (place, &group) in owners.iter().enumerate() {
                let windows = piece.series(place);
                if !windows.is_empty() {
                    let (kind, mark, replaces) = (piece.kinds[place], marks[place], part.replaces);
                    let piece = pieces.len();
                    stretches[group].push(Stretch { kind, piece, windows, mark, replaces });
                }
            }
            pieces.push(piece);
        }
    }
    for held in &mut stretches {
        make_room(&pieces, held, replaced);
    }
    let (told, out, marks) = put_together(&pieces, stretches, labels);
    if out.series_count() > 0 { sink(&told, &out, &marks) } else { Ok(()) }
}

/// Cut out of a series' stretches what those that replace stand for.
fn make_room(pieces: &[WindowColumns], held: &mut Vec<Stretch>, replaced: &mut Replaced) {
    let ends = |stretch: &Stretch| {
        let ends = &pieces[stretch.piece].end_ms[stretch.windows.clone()];
        (ends[0], ends[ends.len() - 1])
    };
    let hull = held.iter().filter(|stretch| stretch.replaces).map(ends);
    let Some((first, last)) = hull.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return };
    let mut kept = Vec::with_capacity(held.len() + 1);
    for stretch in held.drain(..) {
        if stretch.replaces {
            kept.push(stretch);
            continue;
        }
        let piece = &pieces[stretch.piece];
        let own = &piece.end_ms[stretch.windows.clone()];
        let start = stretch.windows.start;
        let (from, until) = (
            start + own.partition_point(|&end| end < first),
            start + own.partition_point(|&end| end <= last),
        );
        replaced.windows += (until - from) as u64;
        replaced.points += piece.count[from..until].iter().map(|&n| u64::from(n)).sum::<u64>();
        for windows in [start..from, until..stretch.windows.end] {
            if !windows.is_empty() {
                kept.push(Stretch { windows, ..stretch.clone() });
            }
        }
    }
    *held = kept;
}

/// Series `i` of `labels` out of its stretches, in time order, once a kind: labels, windows, and
/// what was done to each. A series without a stretch is left out.
pub(super) fn put_together(
    pieces: &[WindowColumns],
    stretches: Vec<Vec<Stretch>>,
    labels: &LabelTable,
) -> (LabelTable, WindowColumns, Vec<Mark>) {
    let mut out = WindowColumns::default();
    let mut told = LabelTableBuilder::default();
    let mut marks = Vec::new();
    for (group, mut held) in stretches.into_iter().enumerate() {
        held.sort_by_key(|stretch| {
            (stretch.kind, pieces[stretch.piece].end_ms[stretch.windows.start])
        });
        for of_kind in held.chunk_by(|a, b| a.kind == b.kind) {
            for stretch in of_kind {
                out.append(&pieces[stretch.piece], stretch.windows.clone());
            }
            out.end_series(of_kind[0].kind);
            let mut mark = Mark::NONE;
            of_kind.iter().for_each(|stretch| mark.merge(stretch.mark));
            marks.push(mark);
            for (name, value) in labels.labels(group) {
                let (name, value) = (told.intern(name), told.intern(value));
                told.label(name, value);
            }
            told.end_series();
        }
    }
    (told.finish(), out, marks)
}

#[cfg(test)]
mod tests {
    use super::super::memory_file::MemoryFile;
    use super::super::window::downsample;
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: i64 = 3_600_000;

    fn named(number: usize) -> Vec<(String, String)> {
        let metric = format!("m{}", number % 3);
        vec![("__name__".into(), metric), ("i".into(), format!("{number:02}"))]
    }

    /// A file of some series' windows of hours `from..until`: of series `n` a point a minute.
    fn part(series: &[usize], hours: (i64, i64), owned: &[(i64, i64)], salt: f64) -> Part {
        let mut order = series.to_vec();
        order.sort_by_key(|&number| (number % 3, number));
        let mut windows = WindowColumns::default();
        for &number in &order {
            let times: Vec<i64> =
                (hours.0 * 60..hours.1 * 60).map(|minute| minute * 60_000 + 30_000).collect();
            let values: Vec<f64> = times.iter().map(|t| (t / 1000) as f64 + salt).collect();
            let kind = if number % 2 == 0 { Kind::Gauge } else { Kind::Counter };
            downsample(&times, &values, 60_000, kind, &mut windows);
        }
        let labels: Vec<_> = order.iter().map(|&number| named(number)).collect();
        let count = windows.window_count() as u64;
        let Ok(file) = MemoryFile::new(60_000, &LabelTable::from_lists(&labels), &windows) else {
            panic!("a file in memory");
        };
        let owned_ms = owned.iter().map(|(a, b)| (a * HOUR_MS, b * HOUR_MS)).collect();
        Part { file: Box::new(file), owned_ms, windows: count, replaces: false }
    }

    type Told = (Vec<(String, String)>, Kind, Vec<(i64, f64)>);

    fn joined(parts: &[Part]) -> Vec<Told> {
        let mut found = Vec::new();
        let told = join(parts, &mut |labels, windows, _| {
            for i in 0..labels.len() {
                let own = labels.labels(i).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                let values =
                    windows.series(i).map(|at| (windows.end_ms[at], windows.last[at])).collect();
                found.push((own, windows.kinds[i], values));
            }
            Ok(())
        });
        assert!(told.is_ok());
        found
    }

    /// Of a series that both have, all between the first and the last window that came goes.
    #[test]
    fn what_replaces_stands_for_all_between_its_ends() {
        let before = part(&[0, 1, 2], (0, 6), &[(0, 3), (3, 6)], 0.0);
        let mut came = part(&[1, 4], (2, 4), &[(0, 6)], 0.5);
        came.replaces = true;
        let (from, until) = (2 * 60, 4 * 60);
        let mut found = Vec::new();
        let replaced = join(&[came, before], &mut |labels, windows, _| {
            for i in 0..labels.len() {
                let last: Vec<f64> = windows.series(i).map(|at| windows.last[at]).collect();
                let ends: Vec<i64> = windows.series(i).map(|at| windows.end_ms[at]).collect();
                found.push((labels.value(i, "i").to_owned(), ends, last));
            }
            Ok(())
        });
        assert_eq!(replaced.ok(), Some(Replaced { windows: 120, points: 120 }));
        let minutes =
            |range: std::ops::Range<i64>| range.map(|m| (m + 1) * 60_000).collect::<Vec<_>>();
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["00", "01", "04", "02"]);
        for (name, ends, last) in &found {
            let all = if name == "04" { from..until } else { 0..6 * 60 };
            assert_eq!(ends, &minutes(all));
            for (&end_ms, value) in ends.iter().zip(last) {
                let minute = end_ms / 60_000 - 1;
                let fresh = (from..until).contains(&minute) && (name == "01" || name == "04");
                let salt = if fresh { 0.5 } else { 0.0 };
                assert_eq!(*value, (minute * 60 + 30) as f64 + salt, "{name} {minute}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Cut by hours among owners, the windows come out as each owner has them, in order.
        #[test]
        fn each_hour_comes_from_its_owner(
            members in prop::collection::vec(prop::collection::btree_set(0usize..12, 0..12), 1..4),
            owners in prop::collection::vec(0usize..4, 6),
        ) {
            let count = members.len();
            let parts: Vec<Part> = members.iter().enumerate().map(|(number, series)| {
                let owned: Vec<(i64, i64)> = (0..6).filter(|&hour| owners[hour] % count == number)
                    .map(|hour| (hour as i64, hour as i64 + 1)).collect();
                let series: Vec<usize> = series.iter().copied().collect();
                part(&series, (0, 6), &owned, number as f64 / 10.0)
            }).collect();
            let found = joined(&parts);
            let mut expected = Vec::new();
            let mut all: Vec<usize> = (0..12).collect();
            all.sort_by_key(|&number| (number % 3, number));
            for number in all {
                let mut values = Vec::new();
                for hour in 0..6i64 {
                    let owner = owners[hour as usize] % count;
                    if members[owner].contains(&number) {
                        values.extend((hour * 60..hour * 60 + 60).map(|minute| {
                            let t = minute * 60_000 + 30_000;
                            ((minute + 1) * 60_000, (t / 1000) as f64 + owner as f64 / 10.0)
                        }));
                    }
                }
                let kind = if number % 2 == 0 { Kind::Gauge } else { Kind::Counter };
                if !values.is_empty() {
                    expected.push((named(number), kind, values));
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
