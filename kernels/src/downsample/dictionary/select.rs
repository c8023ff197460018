//! Finding series of a file: matchers -> numbers, by the file's own index.
//!
//! Look-ups come before scans, and a scan tests whichever is smaller: the values of the name, or
//! the labels of the series still left.

use super::Dictionary;
use super::index::{ValueList, ValuePage, read_posting};
use super::place::NameEntry;
use crate::downsample::file::too_many;
use crate::error::Result;
use crate::labels::METRIC_NAME;
use crate::shard::matcher::{CompiledMatcher, Matcher, Test};
use roaring::RoaringBitmap;
use std::collections::BTreeSet;
use std::ops::Range;

/// Reading a series' labels costs about as much as testing so many values.
const VALUES_PER_SERIES: u64 = 4;

impl Dictionary {
    fn name(&self, name: &str) -> Option<&NameEntry> {
        let names = &self.places.names;
        names.binary_search_by(|known| known.name.as_str().cmp(name)).ok().map(|at| &names[at])
    }

    fn with_name(&self, name: Option<&NameEntry>) -> Result<RoaringBitmap> {
        let Some(name) = name else { return Ok(RoaringBitmap::new()) };
        read_posting(&self.pieces.read(name.all)?).map_err(|error| self.pieces.named(error))
    }

    fn everything(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.series);
        all
    }

    fn value_list(&self, name: &NameEntry) -> Result<ValueList> {
        ValueList::read(&self.pieces.read(name.list)?, self.pieces.bytes)
            .map_err(|error| self.pieces.named(error))
    }

    fn value_page(&self, list: &ValueList, number: usize) -> Result<ValuePage> {
        let bytes = self.pieces.read(list.pages[number])?;
        ValuePage::read(&bytes, self.pieces.bytes).map_err(|error| self.pieces.named(error))
    }

    fn add_series(&self, page: &ValuePage, at: usize, found: &mut RoaringBitmap) -> Result<()> {
        page.series(at, &mut |place| self.pieces.read(place), found)
            .map_err(|error| self.pieces.named(error))
    }

    /// Series with one of these values.
    fn look_up<'a>(
        &self,
        name: Option<&NameEntry>,
        values: impl Iterator<Item = &'a String>,
    ) -> Result<RoaringBitmap> {
        let mut found = RoaringBitmap::new();
        let Some(name) = name else { return Ok(found) };
        let list = self.value_list(name)?;
        let mut values: Vec<&String> = values.collect();
        values.sort_unstable();
        let mut open: Option<(usize, ValuePage)> = None;
        for value in values {
            let Some(number) = list.page_of(value.as_bytes()) else { continue };
            if open.as_ref().is_none_or(|(known, _)| *known != number) {
                open = Some((number, self.value_page(&list, number)?));
            }
            if let Some((_, page)) = &open
                && let Some(at) = page.find(value)
            {
                self.add_series(page, at, &mut found)?;
            }
        }
        Ok(found)
    }

    /// Series with a value that passes `test`.
    fn scan(&self, name: &NameEntry, test: &dyn Fn(&str) -> bool) -> Result<RoaringBitmap> {
        let list = self.value_list(name)?;
        let mut found = RoaringBitmap::new();
        for number in 0..list.pages.len() {
            let page = self.value_page(&list, number)?;
            for (at, value) in page.texts().iter().enumerate() {
                if test(value) {
                    self.add_series(&page, at, &mut found)?;
                }
            }
        }
        Ok(found)
    }

    /// (metric, series) of the file, ascending: as its series stand.
    pub fn metric_counts(&self) -> Result<Vec<(String, u64)>> {
        let mut counts = Vec::new();
        if let Some(name) = self.name(METRIC_NAME) {
            let list = self.value_list(name)?;
            for number in 0..list.pages.len() {
                let page = self.value_page(&list, number)?;
                for (at, value) in page.texts().iter().enumerate() {
                    counts.push((value.to_string(), page.series_count(at)));
                }
            }
        }
        let named: u64 = counts.iter().map(|(_, series)| series).sum();
        // Series without a name stand before all others.
        if named < u64::from(self.series) {
            counts.insert(0, (String::new(), u64::from(self.series) - named));
        }
        Ok(counts)
    }

    /// The numbers of each metric's series, ascending.
    pub fn metric_ranges(&self) -> Result<Vec<(String, Range<u32>)>> {
        let mut next = 0;
        let counts = self.metric_counts()?;
        let range = |(metric, series): (String, u64)| {
            let start = next;
            next = (start + series).min(u64::from(self.series));
            (metric, start as u32..next as u32)
        };
        Ok(counts.into_iter().map(range).collect())
    }

    pub fn matching(&self, matchers: &[Matcher]) -> Result<RoaringBitmap> {
        let compiled = matchers.iter().map(Matcher::compile).collect::<Result<Vec<_>>>()?;
        let (look_ups, scans): (Vec<_>, Vec<_>) =
            compiled.iter().partition(|matcher| matches!(matcher.test, Test::OneOf(_)));
        let (narrow, take): (Vec<_>, Vec<_>) =
            look_ups.into_iter().partition(|matcher| !matcher.matches("") && !matcher.negated);
        let mut found: Option<RoaringBitmap> = None;
        for matcher in narrow.into_iter().chain(take).chain(scans) {
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                break;
            }
            found = Some(self.apply(matcher, found)?);
        }
        Ok(found.unwrap_or_else(|| self.everything()))
    }

    /// A series passes when it has a value that passes, or has none and the empty value passes.
    fn apply(
        &self,
        matcher: &CompiledMatcher,
        found: Option<RoaringBitmap>,
    ) -> Result<RoaringBitmap> {
        let absent_passes = matcher.matches("");
        let name = self.name(&matcher.name);
        let retain = |wanted: RoaringBitmap| match &found {
            Some(found) => found & wanted,
            None => wanted,
        };
        let remove = |unwanted: RoaringBitmap| match &found {
            Some(found) => found - unwanted,
            None => self.everything() - unwanted,
        };
        Ok(match &matcher.test {
            Test::OneOf(values) if absent_passes == matcher.negated => {
                let listed = self.look_up(name, values.iter())?;
                if absent_passes { remove(listed) } else { retain(listed) }
            }
            Test::OneOf(values) => {
                let others = self.with_name(name)? - self.look_up(name, values.iter())?;
                if absent_passes { remove(others) } else { retain(others) }
            }
            Test::Anything if matcher.negated => RoaringBitmap::new(),
            Test::Anything => found.unwrap_or_else(|| self.everything()),
            Test::Something if matcher.negated => remove(self.with_name(name)?),
            Test::Something => retain(self.with_name(name)?),
            _ => {
                let Some(name) = name else {
                    return Ok(match absent_passes {
                        true => found.unwrap_or_else(|| self.everything()),
                        false => RoaringBitmap::new(),
                    });
                };
                let few = found.as_ref().filter(|f| f.len() < name.values / VALUES_PER_SERIES);
                if let Some(few) = few {
                    return self.filter(matcher, few);
                }
                let other = self.scan(name, &|value| matcher.matches(value) != absent_passes)?;
                if absent_passes { remove(other) } else { retain(other) }
            }
        })
    }

    fn filter(&self, matcher: &CompiledMatcher, found: &RoaringBitmap) -> Result<RoaringBitmap> {
        let series: Vec<u32> = found.iter().collect();
        let mut passes = Vec::with_capacity(series.len());
        self.visit_labels(&series, &mut |page, index, _| {
            let value = page.labels(index).find(|(name, _)| *name == matcher.name);
            passes.push(matcher.matches(value.map_or("", |(_, value)| value)));
        })?;
        Ok(series.into_iter().zip(passes).filter(|(_, pass)| *pass).map(|(n, _)| n).collect())
    }

    /// Numbers of the series that pass all matchers, ascending.
    pub fn select(&self, matchers: &[Matcher], series_max: usize) -> Result<Vec<u32>> {
        let found = self.matching(matchers)?;
        if found.len() > series_max as u64 {
            return Err(too_many(found.len(), series_max));
        }
        Ok(found.into_iter().collect())
    }

    pub fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>> {
        let all = matchers.is_empty();
        let found = if all { RoaringBitmap::new() } else { self.matching(matchers)? };
        let mut names = Vec::new();
        for name in &self.places.names {
            if all || !self.with_name(Some(name))?.is_disjoint(&found) {
                names.push(name.name.clone());
            }
        }
        Ok(names)
    }

    pub fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>> {
        let Some(entry) = self.name(name) else { return Ok(Vec::new()) };
        let all = matchers.is_empty();
        let found = if all { RoaringBitmap::new() } else { self.matching(matchers)? };
        if !all && found.len() < entry.values / VALUES_PER_SERIES {
            let series: Vec<u32> = found.iter().collect();
            let mut values = BTreeSet::new();
            self.visit_labels(&series, &mut |page, index, _| {
                let own = page.labels(index).find(|(known, _)| *known == name);
                values.extend(own.map(|(_, value)| value.to_owned()));
            })?;
            return Ok(values.into_iter().collect());
        }
        let list = self.value_list(entry)?;
        let mut values = Vec::new();
        for number in 0..list.pages.len() {
            let page = self.value_page(&list, number)?;
            for (at, value) in page.texts().iter().enumerate() {
                let mut series = RoaringBitmap::new();
                if !all {
                    self.add_series(&page, at, &mut series)?;
                }
                if all || !series.is_disjoint(&found) {
                    values.push(value.clone());
                }
            }
        }
        Ok(values)
    }
}
