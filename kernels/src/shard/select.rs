//! Finding series: matchers -> rows.
//!
//! Look-ups come before scans, and a scan tests whichever is smaller: the values of the name, or
//! the rows still left.

use super::matcher::{CompiledMatcher, Matcher, Test};
use super::postings::{Posting, TenantIndex};
use super::registry::Registry;
use crate::error::{KernelError, Result};
use crate::model::{SeriesRow, Symbol, TenantNumber};
use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;
use rustc_hash::FxBuildHasher;

/// Half-open, in ms.
pub type TimeRange = Option<(i64, i64)>;

impl Registry {
    /// Rows of a tenant that pass all matchers and were alive in the range, sorted by `SeriesKey`.
    ///
    /// Errors: a matcher's regular expression (400); `sluiceway-query-series-limit` (422) where
    /// more than `series_max` match.
    pub fn select(
        &self,
        tenant: TenantNumber,
        matchers: &[Matcher],
        range: TimeRange,
        series_max: usize,
    ) -> Result<Vec<SeriesRow>> {
        let found = self.find_rows(tenant, matchers, range)?;
        if found.len() > series_max as u64 {
            let message = format!(
                "the query selects {} series, the limit is {series_max}: narrow the selector",
                found.len()
            );
            return Err(KernelError::client(422, "sluiceway-query-series-limit", message));
        }
        // (metric, row) in one number: rows of one metric come sorted, others sort fast.
        let key = |row: SeriesRow| u64::from(self.rows[row as usize].metric) << 32 | u64::from(row);
        let mut keys: Vec<u64> = found.iter().map(key).collect();
        if !keys.is_sorted() {
            keys.sort_unstable();
        }
        Ok(keys.into_iter().map(|key| key as SeriesRow).collect())
    }

    /// `matching_rows` but for those that have no point any more.
    pub(super) fn find_rows(
        &self,
        tenant: TenantNumber,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<RoaringBitmap> {
        Ok(self.matching_rows(tenant, matchers, range)? - &self.gone)
    }

    pub(super) fn matching_rows(
        &self,
        tenant: TenantNumber,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<RoaringBitmap> {
        let compiled = matchers.iter().map(Matcher::compile).collect::<Result<Vec<_>>>()?;
        let Some(tenant) = self.tenants.get(tenant as usize) else {
            return Ok(RoaringBitmap::new());
        };
        let mut selection = Selection { registry: self, index: &tenant.index, rows: None };
        let (look_ups, scans): (Vec<_>, Vec<_>) =
            compiled.iter().partition(|matcher| matches!(matcher.test, Test::OneOf(_)));
        // What must be one of some values narrows most, and smallest first; what must not be, or
        // may be absent, only takes away.
        let (mut narrow, take): (Vec<_>, Vec<_>) =
            look_ups.into_iter().partition(|matcher| !matcher.matches("") && !matcher.negated);
        narrow.sort_by_cached_key(|matcher| selection.size(matcher));
        for matcher in narrow.into_iter().chain(take).chain(scans) {
            selection.apply(matcher);
        }
        let mut rows = selection.rows.unwrap_or_else(|| tenant.index.rows().to_bitmap());
        if let Some((from_ms, until_ms)) = range {
            self.alive.retain(&mut rows, from_ms, until_ms);
        }
        Ok(rows)
    }

    /// Names of the labels of the matching series, ascending.
    pub fn label_names(
        &self,
        tenant: TenantNumber,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<String>> {
        let rows = self.find_rows(tenant, matchers, range)?;
        let mut shapes: HashSet<u32, FxBuildHasher> = HashSet::default();
        shapes.extend(rows.iter().map(|row| self.rows[row as usize].shape));
        let names = shapes.into_iter().flat_map(|shape| self.shapes.get(shape));
        Ok(self.sorted_strings(names.copied().collect()))
    }

    /// Values of one label over the matching series, ascending.
    pub fn label_values(
        &self,
        tenant: TenantNumber,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<String>> {
        let index = self.tenants.get(tenant as usize).map(|tenant| &tenant.index);
        let (Some(name), Some(index)) = (self.strings.find(name.as_bytes()), index) else {
            return Ok(Vec::new());
        };
        if matchers.is_empty() && range.is_none() && self.gone.is_empty() {
            return Ok(self.sorted_strings(index.values(name).map(|(value, _)| value).collect()));
        }
        let rows = self.find_rows(tenant, matchers, range)?;
        let values = rows.iter().map(|row| self.value(row, name)).filter(|&value| value != 0);
        Ok(self.sorted_strings(values.collect()))
    }

    fn sorted_strings(&self, symbols: HashSet<Symbol, FxBuildHasher>) -> Vec<String> {
        let mut strings: Vec<&str> = symbols.into_iter().map(|s| self.strings.get(s)).collect();
        strings.sort_unstable();
        strings.into_iter().map(str::to_owned).collect()
    }

    /// The row's value of a name, 0 where absent.
    fn value(&self, row: SeriesRow, name: Symbol) -> Symbol {
        let (_, names, values) = self.parts(row);
        names.iter().position(|&known| known == name).map_or(0, |at| values[at])
    }

    /// Series of each metric, values of each label, series of each pair; each list longest first
    /// and cut at `top`. Walks the whole index.
    pub fn largest(&self, tenant: TenantNumber, top: usize) -> Largest {
        let Some(tenant) = self.tenants.get(tenant as usize) else { return Largest::default() };
        let text = |symbol| self.strings.get(symbol);
        let metrics = tenant.index.values(self.metric_name);
        let pairs = tenant.index.pairs();
        Largest {
            series_by_metric: longest(
                metrics.map(|(metric, rows)| (rows.count(), metric)),
                top,
                |metric| text(metric).to_owned(),
            ),
            values_by_label: longest(
                tenant.index.names().map(|(name, values)| (values as u64, name)),
                top,
                |name| text(name).to_owned(),
            ),
            series_by_pair: longest(
                pairs.map(|(name, value, rows)| (rows.count(), (name, value))),
                top,
                |(name, value)| format!("{}={}", text(name), text(value)),
            ),
            label_name_count: tenant.index.names().count() as u64,
        }
    }
}

/// The heads of a tenant's index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Largest {
    pub series_by_metric: Vec<(String, u64)>,
    pub values_by_label: Vec<(String, u64)>,
    pub series_by_pair: Vec<(String, u64)>,
    pub label_name_count: u64,
}

fn longest<T: Copy>(
    counted: impl Iterator<Item = (u64, T)>,
    top: usize,
    text: impl Fn(T) -> String,
) -> Vec<(String, u64)> {
    let mut all: Vec<(u64, T)> = counted.collect();
    if top < all.len() {
        all.select_nth_unstable_by_key(top, |(count, _)| std::cmp::Reverse(*count));
        all.truncate(top);
    }
    let mut named: Vec<(String, u64)> = all.into_iter().map(|(n, what)| (text(what), n)).collect();
    named.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    named
}

/// The rows left while matchers are applied; `None` = all of the tenant.
struct Selection<'a> {
    registry: &'a Registry,
    index: &'a TenantIndex,
    rows: Option<RoaringBitmap>,
}

impl<'a> Selection<'a> {
    fn postings(&self, matcher: &CompiledMatcher) -> Vec<&'a Posting> {
        let Test::OneOf(members) = &matcher.test else { return Vec::new() };
        let Some(name) = self.registry.strings.find(matcher.name.as_bytes()) else {
            return Vec::new();
        };
        let pair = |value: &String| {
            let value = self.registry.strings.find(value.as_bytes())?;
            self.index.find(name, value)
        };
        members.iter().filter_map(pair).map(|pair| self.index.posting(pair)).collect()
    }

    fn size(&self, matcher: &CompiledMatcher) -> u64 {
        self.postings(matcher).iter().map(|rows| rows.count()).sum()
    }

    /// A series passes when it has a value that passes, or has none and the empty value passes.
    fn apply(&mut self, matcher: &CompiledMatcher) {
        let absent_passes = matcher.matches("");
        if self.rows.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return;
        }
        let name = self.registry.strings.find(matcher.name.as_bytes());
        match &matcher.test {
            Test::OneOf(_) if absent_passes == matcher.negated => {
                // The values are those that pass (and absence does not), or the other way round.
                let postings = self.postings(matcher);
                match (absent_passes, postings.as_slice(), &mut self.rows) {
                    (false, [one], Some(rows)) => one.retain_in(rows),
                    (false, many, _) => self.retain(union(many.iter().copied())),
                    (true, many, _) => self.remove(&union(many.iter().copied())),
                }
            }
            Test::OneOf(_) => {
                let mut others = self.with_name(name);
                others -= union(self.postings(matcher));
                if absent_passes { self.remove(&others) } else { self.retain(others) }
            }
            Test::Anything if !matcher.negated => {}
            Test::Anything => self.rows = Some(RoaringBitmap::new()),
            Test::Something if matcher.negated => self.remove(&self.with_name(name)),
            Test::Something => self.retain(self.with_name(name)),
            _ => self.scan(matcher, name, absent_passes),
        }
    }

    fn scan(&mut self, matcher: &CompiledMatcher, name: Option<Symbol>, absent_passes: bool) {
        let strings = &self.registry.strings;
        let Some(name) = name else {
            return if absent_passes {
            } else {
                self.rows = Some(RoaringBitmap::new())
            };
        };
        let values = self.index.values(name);
        match &mut self.rows {
            Some(rows) if rows.len() < values.len() as u64 => {
                let mut tested: HashMap<Symbol, bool, FxBuildHasher> = HashMap::default();
                let mut passes = |row: &SeriesRow| {
                    let value = self.registry.value(*row, name);
                    *tested.entry(value).or_insert_with(|| matcher.matches(strings.get(value)))
                };
                *rows = rows.iter().filter(|row| passes(row)).collect();
            }
            _ => {
                let wanted = values
                    .filter(|(value, _)| matcher.matches(strings.get(*value)) != absent_passes);
                let found = union(wanted.map(|(_, rows)| rows));
                if absent_passes { self.remove(&found) } else { self.retain(found) }
            }
        }
    }

    fn retain(&mut self, wanted: RoaringBitmap) {
        match &mut self.rows {
            Some(rows) => *rows &= wanted,
            None => self.rows = Some(wanted),
        }
    }

    fn remove(&mut self, unwanted: &RoaringBitmap) {
        *self.rows.get_or_insert_with(|| self.index.rows().to_bitmap()) -= unwanted;
    }

    /// All rows that have the label.
    fn with_name(&self, name: Option<Symbol>) -> RoaringBitmap {
        let Some(name) = name else { return RoaringBitmap::new() };
        let shapes = self.index.shapes();
        let wanted = shapes.filter(|(shape, _)| self.registry.shapes.get(*shape).contains(&name));
        union(wanted.map(|(_, rows)| rows))
    }
}

/// Rows of any of the postings: single rows are gathered and sorted once.
fn union<'a>(postings: impl IntoIterator<Item = &'a Posting>) -> RoaringBitmap {
    let mut rows = RoaringBitmap::new();
    let mut loose: Vec<SeriesRow> = Vec::new();
    for posting in postings {
        match posting {
            Posting::One(row) => loose.push(*row),
            Posting::Few(few) => loose.extend_from_slice(few),
            Posting::Many(many) => many.add_to(&mut rows),
        }
    }
    loose.sort_unstable();
    loose.dedup();
    if rows.is_empty() {
        return loose.into_iter().collect();
    }
    rows.extend(loose);
    rows
}
