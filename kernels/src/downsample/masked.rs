//! A file of windows as orders to delete leave it, whether it was written anew yet or not.
//!
//! Invariant: no window that may hold a point which an order takes is told of, and no series all of
//! whose windows are taken. A window that holds points from both sides of `before_ms` goes whole.

use super::columns::{Fields, WindowColumns};
use super::file::{WindowFile, too_many};
use super::mark::{Mark, Marked};
use super::read_buffers::ReadBuffers;
use super::view::Piece;
use crate::error::Result;
use crate::labels::LabelTable;
use crate::shard::matcher::Matcher;
use hashbrown::HashMap;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// What one order takes: points of the series that match, before a time; None: of any time.
#[derive(Clone, Debug, Deserialize)]
pub struct Taken {
    pub matchers: Vec<Matcher>,
    pub before_ms: Option<i64>,
}

/// Every window is taken.
const ALL: i64 = i64::MAX;

pub struct MaskedFile {
    inner: Arc<dyn WindowFile>,
    /// Of the series that an order names: windows with an end from here on stay.
    kept_from_ms: HashMap<u32, i64>,
}

impl MaskedFile {
    /// Errors: a matcher's regular expression (400), Corruption of the file's index.
    pub fn new(inner: Arc<dyn WindowFile>, taken: &[Taken]) -> Result<MaskedFile> {
        let mut kept_from_ms: HashMap<u32, i64> = HashMap::new();
        let window_ms = inner.window_ms();
        for order in taken {
            let from_ms = order.before_ms.map_or(ALL, |ms| ms.saturating_add(window_ms - 1));
            for series in inner.select(&order.matchers, usize::MAX)? {
                let held = kept_from_ms.entry(series).or_insert(from_ms);
                *held = from_ms.max(*held);
            }
        }
        Ok(MaskedFile { inner, kept_from_ms })
    }

    /// Series that an order names.
    pub fn named(&self) -> usize {
        self.kept_from_ms.len()
    }

    fn is_gone(&self, series: u32) -> bool {
        self.kept_from_ms.get(&series) == Some(&ALL)
    }

    fn some_gone(&self) -> bool {
        self.kept_from_ms.values().any(|&from_ms| from_ms == ALL)
    }

    fn matching(&self, matchers: &[Matcher]) -> Result<Vec<u32>> {
        let mut found = self.inner.select(matchers, usize::MAX)?;
        found.retain(|&series| !self.is_gone(series));
        Ok(found)
    }
}

impl WindowFile for MaskedFile {
    fn window_ms(&self) -> i64 {
        self.inner.window_ms()
    }

    fn series_count(&self) -> usize {
        self.inner.series_count()
    }

    fn select(&self, matchers: &[Matcher], series_max: usize) -> Result<Vec<u32>> {
        let found = self.matching(matchers)?;
        if found.len() > series_max {
            return Err(too_many(found.len() as u64, series_max));
        }
        Ok(found)
    }

    fn labels(&self, series: &[u32]) -> Result<LabelTable> {
        self.inner.labels(series)
    }

    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>> {
        if !self.some_gone() {
            return self.inner.label_names(matchers);
        }
        Ok(self.inner.labels(&self.matching(matchers)?)?.names())
    }

    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>> {
        if !self.some_gone() {
            return self.inner.label_values(name, matchers);
        }
        let labels = self.inner.labels(&self.matching(matchers)?)?;
        let values: BTreeSet<&str> = (0..labels.len()).map(|i| labels.value(i, name)).collect();
        Ok(values.into_iter().filter(|value| !value.is_empty()).map(str::to_owned).collect())
    }

    fn read(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        fields: Fields,
        out: &mut WindowColumns,
    ) -> Result<u64> {
        if !series.iter().any(|number| self.kept_from_ms.contains_key(number)) {
            return self.inner.read(series, range_ms, fields, out);
        }
        let mut held = WindowColumns::default();
        let bytes = self.inner.read(series, range_ms, fields, &mut held)?;
        for (place, number) in series.iter().enumerate() {
            let from_ms = self.kept_from_ms.get(number).copied().unwrap_or(i64::MIN);
            let own = held.series(place);
            let first = own.start + held.end_ms[own.clone()].partition_point(|&end| end < from_ms);
            out.append_fields(&held, first..own.end, fields);
            out.end_series(held.kinds[place]);
        }
        Ok(bytes)
    }

    fn visit(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        asked: Fields,
        buffers: &mut ReadBuffers,
        visit: &mut dyn FnMut(usize, Piece<'_>) -> Result<()>,
    ) -> Result<u64> {
        self.inner.visit(series, range_ms, asked, buffers, &mut |i, mut piece| {
            if let Some(&from_ms) = self.kept_from_ms.get(&series[i]) {
                let ends = &piece.columns.end_ms[piece.range.clone()];
                piece.range.start += ends.partition_point(|&end| end < from_ms);
            }
            if piece.range.is_empty() { Ok(()) } else { visit(i, piece) }
        })
    }

    fn marked(&self) -> Marked {
        self.inner.marked()
    }

    fn marks(&self, series: &[u32]) -> Result<Vec<Mark>> {
        self.inner.marks(series)
    }

    fn taken(&self) -> &[String] {
        self.inner.taken()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory_file::MemoryFile;
    use super::super::window::downsample;
    use super::*;
    use crate::downsample::columns::Kind;
    use crate::shard::matcher::MatchOp;
    use proptest::prelude::*;

    const MINUTE_MS: i64 = 60_000;

    fn order(value: &str, before_ms: Option<i64>) -> Taken {
        Taken { matchers: vec![Matcher::new("i", MatchOp::Equal, value)], before_ms }
    }

    /// Of each series its points' times.
    fn file(points: &[Vec<i64>]) -> Arc<dyn WindowFile> {
        let named = |i: usize| {
            let own = [("__name__", "m".to_owned()), ("i", i.to_string())];
            own.map(|(name, value)| (name.to_owned(), value)).to_vec()
        };
        let labels: Vec<Vec<(String, String)>> = (0..points.len()).map(named).collect();
        let mut windows = WindowColumns::default();
        for times in points {
            let values = vec![1.0; times.len()];
            downsample(times, &values, MINUTE_MS, Kind::Gauge, &mut windows);
        }
        let table = LabelTable::from_lists(&labels);
        Arc::new(MemoryFile::new(MINUTE_MS, &table, &windows).expect("a file"))
    }

    #[test]
    fn a_series_that_is_taken_whole_is_in_no_list() {
        let masked = MaskedFile::new(file(&[vec![1], vec![2]]), &[order("0", None)]).expect("one");
        assert_eq!(masked.named(), 1);
        assert_eq!(masked.select(&[], 1).expect("found"), [1]);
        assert_eq!(masked.label_values("i", &[]).expect("values"), ["1"]);
        assert_eq!(masked.label_names(&[]).expect("names"), ["__name__", "i"]);
        let partly = [order("0", Some(1_000))];
        let masked = MaskedFile::new(file(&[vec![1], vec![2]]), &partly).expect("partly");
        assert_eq!(masked.label_values("i", &[]).expect("values"), ["0", "1"]);
        assert!(masked.select(&[], 1).is_err(), "two series, one allowed");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// What is left is what the windows of the points not taken are, those apart that hold both.
        #[test]
        fn windows_that_hold_a_taken_point_go(
            series in prop::collection::vec(prop::collection::btree_set(1i64..600_000, 0..40), 3),
            before in prop::option::of(0i64..700_000),
        ) {
            let times: Vec<Vec<i64>> = series.iter().map(|own| own.iter().copied().collect()).collect();
            let masked = MaskedFile::new(file(&times), &[order("1", before)]).expect("masked");
            let mut found = WindowColumns::default();
            masked.read(&[0, 1, 2], i64::MIN..i64::MAX, Fields::ALL, &mut found).expect("read");
            for (place, own) in times.iter().enumerate() {
                let taken = |end: i64| {
                    place == 1 && before.is_none_or(|before| end - MINUTE_MS + 1 < before)
                };
                let ends: BTreeSet<i64> =
                    own.iter().map(|t| (t - 1).div_euclid(MINUTE_MS) * MINUTE_MS + MINUTE_MS).collect();
                let expected: Vec<i64> = ends.into_iter().filter(|&end| !taken(end)).collect();
                prop_assert_eq!(&found.end_ms[found.series(place)], &expected[..]);
                let mut visited = Vec::new();
                let mut visit = |_: usize, piece: Piece<'_>| {
                    visited.extend_from_slice(&piece.columns.end_ms[piece.range]);
                    Ok(())
                };
                let (all, mut buffers) = (i64::MIN..i64::MAX, ReadBuffers::default());
                masked
                    .visit(&[place as u32], all, Fields::ALL, &mut buffers, &mut visit)
                    .expect("visited");
                prop_assert_eq!(visited, expected);
            }
        }
    }
}
