//! Cardinality: which metrics and tags a tenant's series are made of, exact, from rows and postings.
//!
//! Invariant: the registry's lock is held for one slice at a time and the applier's for one copy of
//! a byte a row, so that a walk of all series never holds up a write. Rows that come while it goes on
//! are not looked at: the answer stands at the moment of the copy. Active is what governance calls
//! active (docs/formats/policy.md): named by a record of this journal hour or the one before.

use super::governor::{LAST_HOUR, NO_HOUR};
use super::owner::Shard;
use super::registry::Registry;
use crate::error::{KernelError, Result};
use crate::model::{SeriesRow, Symbol, TenantNumber};
use hashbrown::HashMap;
use roaring::RoaringBitmap;
use rustc_hash::FxBuildHasher;
use serde::Serialize;
use std::cmp::Reverse;

/// Rows or pairs that are looked at before others get the lock, and the asker is looked at.
pub(super) const SLICE: usize = 1 << 15;
/// Series of one metric that its tags are counted over: the newest.
pub const EXAMINED_MAX: usize = 1 << 20;
/// Tags of one metric that are counted; further ones are left off and said to be.
const TAGS_MAX: usize = 128;
/// Entries of one list, whoever asks for more.
pub const TOP_MAX: usize = 1_000;

/// Looked at between slices: an error ends the walk.
pub type Check<'a> = &'a dyn Fn() -> Result<()>;

/// Series of a metric. `gone`: named in the last journal hour, and not yet in this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetricFigures {
    pub metric: String,
    pub active: u64,
    pub new: u64,
    pub gone: u64,
}

/// Distinct values of a tag over all active series; `new_values` no series had before this hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TagFigures {
    pub tag: String,
    pub values: u64,
    pub new_values: u64,
}

/// A tag of one metric. Without it the metric would have `series_without` series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetricTag {
    pub tag: String,
    pub values: u64,
    pub series: u64,
    pub series_without: u64,
    /// Its value on the newest series that has it.
    pub example: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OneMetric {
    #[serde(flatten)]
    pub figures: MetricFigures,
    /// Fewer than `figures.active` where there are more than can be looked at.
    pub examined: u64,
    /// The one that multiplies the series most comes first.
    pub tags: Vec<MetricTag>,
    pub tags_left_off: u64,
}

/// Lists are the longest first and cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cardinality {
    /// Start of the journal hour; None before the first record.
    pub hour_ms: Option<i64>,
    pub known: u64,
    pub active: u64,
    pub new: u64,
    pub gone: u64,
    pub metric_count: u64,
    pub tag_count: u64,
    pub metrics: Vec<MetricFigures>,
    pub metrics_by_new: Vec<MetricFigures>,
    pub tags: Vec<TagFigures>,
    pub metric: Option<OneMetric>,
}

#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    cardinality: Cardinality,
    /// None where no time was named, or no hour is recorded.
    since: Option<super::past::Past>,
    policy_version: u32,
    /// The newest first.
    explosions: Vec<super::explosions::Told>,
    budgets: Vec<serde_json::Value>,
}

/// The rows of one tenant at one moment.
struct Activity {
    tenant: TenantNumber,
    hour: i64,
    active: RoaringBitmap,
    gone: RoaringBitmap,
    first_new: SeriesRow,
}

impl Shard {
    /// The cardinality of a tenant and, where one is named, of one of its metrics.
    pub fn cardinality_of(
        &self,
        tenant: &str,
        metric: Option<&str>,
        top: usize,
        check: Check<'_>,
    ) -> Result<Cardinality> {
        let top = top.min(TOP_MAX);
        let Some((activity, known)) = self.activity_of(tenant, check)? else {
            return Ok(Cardinality::default());
        };
        let new = activity.active.len() - activity.active.rank(activity.first_new)
            + u64::from(activity.active.contains(activity.first_new));
        let mut told = Cardinality {
            hour_ms: (activity.hour != NO_HOUR).then_some(activity.hour.saturating_mul(3_600_000)),
            known,
            active: activity.active.len(),
            new,
            gone: activity.gone.len(),
            ..Cardinality::default()
        };
        match metric {
            Some(metric) => told.metric = Some(self.one_metric(&activity, metric, check)?),
            None => self.walk_pairs(&activity, top, check, &mut told)?,
        }
        Ok(told)
    }

    /// As `cardinality_of`, with the tenant's budgets, in JSON.
    pub fn explain_json(
        &self,
        tenant: &str,
        metric: Option<&str>,
        top: usize,
        since_ms: Option<i64>,
        check: Check<'_>,
    ) -> Result<String> {
        let since = since_ms.map(|since_ms| self.past_of(tenant, metric, since_ms, check));
        let since = since.transpose()?.flatten();
        let cardinality = self.cardinality_of(tenant, metric, top, check)?;
        let (policy_version, budgets, explosions) = {
            let applier = self.applier.lock();
            let governor = &applier.governor;
            let registry = self.registry.read();
            let budgets = governor.standings(&registry, tenant);
            (governor.version, budgets, governor.explosions.told(Some(tenant)))
        };
        let explained = Explained { cardinality, since, policy_version, explosions, budgets };
        serde_json::to_string(&explained).map_err(|error| KernelError::Backend(error.to_string()))
    }

    /// Rows of a tenant that are active, and how many there are in all.
    fn activity_of(&self, tenant: &str, check: Check<'_>) -> Result<Option<(Activity, u64)>> {
        let (bytes, hour, first_new) = {
            let applier = self.applier.lock();
            let governor = &applier.governor;
            (governor.activity.clone(), governor.hour, governor.hour_first_row)
        };
        let (tenant, known) = {
            let registry = self.registry.read();
            let Some(tenant) = registry.tenant_number(tenant) else { return Ok(None) };
            (tenant, registry.series_count(tenant))
        };
        let (mut active, mut gone) = (RoaringBitmap::new(), RoaringBitmap::new());
        for (slice, bytes) in bytes.chunks(SLICE).enumerate() {
            check()?;
            let registry = self.registry.read();
            let rows = bytes.iter().zip((slice * SLICE) as SeriesRow..);
            let own =
                |&(&byte, row): &(&u8, SeriesRow)| byte != 0 && registry.key(row).tenant == tenant;
            let rows: Vec<(u8, SeriesRow)> = rows.filter(own).map(|(&b, row)| (b, row)).collect();
            drop(registry);
            active.extend(rows.iter().map(|&(_, row)| row));
            gone.extend(rows.iter().filter(|&&(byte, _)| byte == LAST_HOUR).map(|&(_, row)| row));
        }
        Ok(Some((Activity { tenant, hour, active, gone, first_new }, known)))
    }

    /// All metrics and tags of the tenant, by its pairs.
    fn walk_pairs(
        &self,
        activity: &Activity,
        top: usize,
        check: Check<'_>,
        told: &mut Cardinality,
    ) -> Result<()> {
        let mut by_active = Top::new(top);
        let mut by_new = Top::new(top);
        let mut tags: HashMap<Symbol, (u64, u64), FxBuildHasher> = HashMap::default();
        let mut from = 0;
        loop {
            check()?;
            let registry = self.registry.read();
            let index = &registry.tenants[activity.tenant as usize].index;
            let until = (from + SLICE).min(index.pair_count());
            for (name, value, rows) in index.pairs_between(from..until) {
                if name == registry.metric_name {
                    let active = rows.count_in(&activity.active);
                    if active > 0 {
                        told.metric_count += 1;
                        let new = rows.count_from(activity.first_new, &activity.active);
                        let gone = rows.count_in(&activity.gone);
                        by_active.push((active, new, gone, value));
                        by_new.push((new, active, gone, value));
                    }
                } else if rows.meets(&activity.active) {
                    let (values, new_values) = tags.entry(name).or_default();
                    *values += 1;
                    *new_values += u64::from(rows.first() >= activity.first_new);
                }
            }
            from = until;
            if from == index.pair_count() {
                break;
            }
        }
        told.tag_count = tags.len() as u64;
        let mut longest = Top::new(top);
        tags.into_iter().for_each(|(name, (values, new))| longest.push((values, new, 0, name)));
        let registry = self.registry.read();
        let text = |symbol| registry.strings.get(symbol).to_owned();
        let by_active = by_active.finish().into_iter();
        told.metrics = by_active
            .map(|(active, new, gone, m)| MetricFigures { metric: text(m), active, new, gone })
            .collect();
        let by_new = by_new.finish().into_iter().filter(|&(new, ..)| new > 0);
        told.metrics_by_new = by_new
            .map(|(new, active, gone, m)| MetricFigures { metric: text(m), active, new, gone })
            .collect();
        let tags = longest.finish().into_iter();
        told.tags = tags
            .map(|(values, new_values, _, name)| TagFigures { tag: text(name), values, new_values })
            .collect();
        Ok(())
    }

    /// The tags of one metric.
    fn one_metric(&self, activity: &Activity, metric: &str, check: Check<'_>) -> Result<OneMetric> {
        let rows = {
            let registry = self.registry.read();
            registry.rows_of_metric(activity.tenant, metric) & &activity.active
        };
        let figures = MetricFigures {
            metric: metric.to_owned(),
            active: rows.len(),
            new: rows.iter().rev().take_while(|&row| row >= activity.first_new).count() as u64,
            gone: rows.intersection_len(&activity.gone),
        };
        // Ascending; the newest are the last ones.
        let skipped = (rows.len() as usize).saturating_sub(EXAMINED_MAX);
        let rows: Vec<SeriesRow> = rows.iter().skip(skipped).collect();
        let (sums, names, tags_left_off) = self.sums_and_names(&rows, check)?;
        let mut tags = Vec::with_capacity(names.len());
        for name in names {
            tags.push(self.one_tag(&rows, &sums, name, check)?);
        }
        tags.sort_by(|a, b| {
            let order = a.series_without.cmp(&b.series_without).then(b.values.cmp(&a.values));
            order.then_with(|| a.tag.cmp(&b.tag))
        });
        Ok(OneMetric { figures, examined: rows.len() as u64, tags, tags_left_off })
    }

    /// (a hash of each row's labels that labels can be taken out of, the names they have, how many
    /// more names there are).
    pub(super) fn sums_and_names(
        &self,
        rows: &[SeriesRow],
        check: Check<'_>,
    ) -> Result<(Vec<u64>, Vec<Symbol>, u64)> {
        let mut sums = Vec::new();
        // Reserved, not pushed to: a walk that memory does not suffice for ends in words.
        let refused = |_| KernelError::Overloaded {
            retry_after_s: 1.0,
            message: "no memory to look at so many series".to_owned(),
        };
        sums.try_reserve_exact(rows.len()).map_err(refused)?;
        let mut names: Vec<Symbol> = Vec::new();
        let mut left_off = hashbrown::HashSet::<Symbol, FxBuildHasher>::default();
        for slice in rows.chunks(SLICE) {
            check()?;
            let registry = self.registry.read();
            for &row in slice {
                let mut sum = 0_u64;
                for (name, value) in registry.symbols(row) {
                    sum = sum.wrapping_add(mixed(name, value));
                    if name == registry.metric_name || names.contains(&name) {
                    } else if names.len() < TAGS_MAX {
                        names.push(name);
                    } else if left_off.len() < TAGS_MAX * 64 {
                        left_off.insert(name);
                    }
                }
                sums.push(sum);
            }
        }
        Ok((sums, names, left_off.len() as u64))
    }

    fn one_tag(
        &self,
        rows: &[SeriesRow],
        sums: &[u64],
        name: Symbol,
        check: Check<'_>,
    ) -> Result<MetricTag> {
        let (mut values, mut rests) = (Vec::new(), sums.to_vec());
        for (slice, rests) in rows.chunks(SLICE).zip(rests.chunks_mut(SLICE)) {
            check()?;
            let registry = self.registry.read();
            for (&row, rest) in slice.iter().zip(rests) {
                if let Some((_, value)) = registry.symbols(row).find(|&(known, _)| known == name) {
                    values.push(value);
                    *rest = rest.wrapping_sub(mixed(name, value));
                }
            }
        }
        let (series, newest) = (values.len() as u64, values.last().copied());
        let registry = self.registry.read();
        let text = |symbol| registry.strings.get(symbol).to_owned();
        let (tag, example) = (text(name), newest.map(text).unwrap_or_default());
        drop(registry);
        let (values, series_without) = (distinct(&mut values), distinct(&mut rests));
        Ok(MetricTag { tag, values, series, series_without, example })
    }
}

impl Registry {
    /// All rows of a metric.
    fn rows_of_metric(&self, tenant: TenantNumber, metric: &str) -> RoaringBitmap {
        let metric = self.strings.find(metric.as_bytes());
        metric.map_or_else(RoaringBitmap::new, |metric| self.rows_of(tenant, metric))
    }

    pub(super) fn rows_of(&self, tenant: TenantNumber, metric: Symbol) -> RoaringBitmap {
        let index = &self.tenants[tenant as usize].index;
        let pair = index.find(self.metric_name, metric);
        pair.map_or_else(RoaringBitmap::new, |pair| index.posting(pair).to_bitmap())
    }
}

fn distinct<T: Ord>(all: &mut Vec<T>) -> u64 {
    all.sort_unstable();
    all.dedup();
    all.len() as u64
}

/// One label as a number (SplitMix64, Steele et al. 2014). Sums of these tell label sets apart: of
/// a million sets two are taken for one with a chance of 3e-8.
pub(super) fn mixed(name: Symbol, value: Symbol) -> u64 {
    let mut x = (u64::from(name) << 32 | u64::from(value)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

type Counted = (u64, u64, u64, Symbol);

/// The greatest of many, in memory for a few: cut whenever four times as many are there.
struct Top {
    kept: Vec<Counted>,
    count_max: usize,
}

impl Top {
    fn new(count_max: usize) -> Top {
        Top { kept: Vec::new(), count_max }
    }

    fn push(&mut self, counted: Counted) {
        self.kept.push(counted);
        if self.kept.len() >= 4 * self.count_max + 64 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.count_max {
            self.kept
                .select_nth_unstable_by_key(self.count_max, |&(n, m, _, s)| Reverse((n, m, s)));
            self.kept.truncate(self.count_max);
        }
    }

    /// Greatest first.
    fn finish(mut self) -> Vec<Counted> {
        self.cut();
        self.kept.sort_unstable_by_key(|&(n, m, _, s)| Reverse((n, m, s)));
        self.kept
    }
}
