//! Several files of one tenant as one: the windows that each of them owns, in the order of files.
//!
//! Invariant: the outcome is a function of the windows and of who owns them, not of how they were
//! cut into files. Memory holds a slice of each file's labels and a batch of series' windows.

use super::columns::{Fields, Kind, WindowColumns};
use super::file::{WindowFile, compare_labels};
use super::mark::Mark;
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, LabelTableBuilder};
use std::cmp::Ordering;
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
}

/// Is handed series by labels, then kind, their windows, and what was done to each.
pub type WindowSink<'a> = dyn FnMut(&LabelTable, &WindowColumns, &[Mark]) -> Result<()> + 'a;

/// Hand all windows that the parts own to `sink`. Two parts must not own one hour.
pub fn join(parts: &[Part], sink: &mut WindowSink) -> Result<()> {
    let window_ms = parts.first().map_or(0, |part| part.file.window_ms());
    if parts.iter().any(|part| part.file.window_ms() != window_ms) {
        return Err(KernelError::Backend("join: windows of several lengths".into()));
    }
    let mut cursors = parts.iter().map(Cursor::open).collect::<Result<Vec<_>>>()?;
    let series_max = batch_series_max(parts);
    let mut groups: Vec<Vec<(usize, u32)>> = Vec::new();
    let mut labels = LabelTableBuilder::default();
    while let Some(group) = next_group(&mut cursors, &mut labels)? {
        groups.push(group);
        if groups.len() == series_max {
            hand(parts, &groups, &std::mem::take(&mut labels).finish(), sink)?;
            groups.clear();
        }
    }
    hand(parts, &groups, &labels.finish(), sink)
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
#[derive(Clone, Copy)]
struct Stretch {
    kind: Kind,
    piece: usize,
    series: usize,
    mark: Mark,
}

/// Read what the parts own of a batch, each part once a range, and put the series together.
fn hand(
    parts: &[Part],
    groups: &[Vec<(usize, u32)>],
    labels: &LabelTable,
    sink: &mut WindowSink,
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
                if !piece.series(place).is_empty() {
                    let kind = piece.kinds[place];
                    let (piece, mark) = (pieces.len(), marks[place]);
                    stretches[group].push(Stretch { kind, piece, series: place, mark });
                }
            }
            pieces.push(piece);
        }
    }
    let mut out = WindowColumns::default();
    let mut told = LabelTableBuilder::default();
    let mut marks = Vec::new();
    for (group, mut held) in stretches.into_iter().enumerate() {
        let first_ms = |s: &Stretch| pieces[s.piece].end_ms[pieces[s.piece].series(s.series).start];
        held.sort_by_key(|stretch| (stretch.kind, first_ms(stretch)));
        for of_kind in held.chunk_by(|a, b| a.kind == b.kind) {
            for stretch in of_kind {
                let piece = &pieces[stretch.piece];
                piece.series(stretch.series).for_each(|at| out.push(&piece.window(at)));
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
    if out.series_count() > 0 { sink(&told.finish(), &out, &marks) } else { Ok(()) }
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
        Part { file: Box::new(file), owned_ms, windows: count }
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
