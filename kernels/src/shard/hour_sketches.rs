//! Cardinality of past hours: what the rows of an hour that closed were, as counts and sketches.
//!
//! Invariant: an hour is a function of the records alone, so a replay writes the same; it explains,
//! and nothing depends on it. Memory: one byte a row, one metric's rows at a time, and the hour's
//! encoded sketches, of which there are at most `SKETCHES_MAX`. docs/formats/sketches.md.

use super::governor::{LAST_HOUR, THIS_HOUR};
use super::registry::Registry;
use crate::model::{SeriesRow, Symbol, TenantNumber};
use crate::sketch::HyperLogLog;
use hashbrown::HashMap;
use parking_lot::RwLock;
use rustc_hash::FxBuildHasher;
use std::cmp::Reverse;
use std::collections::BTreeMap;

pub const PRECISION: u8 = 12;
pub const TENANTS_MAX: usize = 200;
pub const METRICS_MAX: usize = 50;
pub const TAGS_MAX: usize = 16;
/// Tags that are sketched before the `TAGS_MAX` with most values are kept.
const TAGS_LOOKED_AT: usize = 64;
/// Sketches of one hour.
pub const SKETCHES_MAX: usize = 8_192;
/// Rows that are looked at before a writer gets the registry.
const SLICE: usize = 1 << 15;
/// Hours that wait for their seal; the oldest go. More than two only come in a replay of days.
const WAITING_MAX: usize = 4;

/// An hour that no record comes to any more: rows as they stood when it closed.
pub struct ClosedHour {
    pub hour: i64,
    pub first_row: SeriesRow,
    /// By row, as the governor's: `LAST_HOUR` is named in the hour before and not in this one.
    pub activity: Vec<u8>,
}

/// Hours on their way into a seal.
#[derive(Default)]
pub struct Closing(pub Vec<ClosedHour>);

impl Closing {
    pub fn close(&mut self, hour: i64, first_row: SeriesRow, activity: &[u8]) {
        if self.0.len() >= WAITING_MAX {
            self.0.remove(0);
        }
        self.0.push(ClosedHour { hour, first_row, activity: activity.to_vec() });
    }

    pub fn memory_bytes(&self) -> usize {
        self.0.iter().map(|hour| hour.activity.len()).sum()
    }
}

/// Series by what became of them in an hour; all exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub active: u64,
    pub new: u64,
    pub gone: u64,
}

impl Counts {
    fn add(&mut self, activity: u8, new: bool) {
        self.active += u64::from(activity == THIS_HOUR);
        self.new += u64::from(activity == THIS_HOUR && new);
        self.gone += u64::from(activity == LAST_HOUR);
    }

    /// Of an hour that closed twice.
    pub fn merge(&mut self, other: Counts) {
        self.active = self.active.max(other.active);
        self.new = self.new.max(other.new);
        self.gone = self.gone.max(other.gone);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricHour {
    pub counts: Counts,
    pub series: HyperLogLog,
    pub tags: BTreeMap<String, HyperLogLog>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantHour {
    pub counts: Counts,
    /// Metrics with an active series in the hour; `metrics` has the largest.
    pub metric_count: u64,
    pub metrics: BTreeMap<String, MetricHour>,
}

/// One hour of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HourSketches {
    pub hour: i64,
    pub tenants: BTreeMap<String, TenantHour>,
}

/// A tenant of an hour, and which of its metrics are sketched.
#[derive(Default)]
struct Chosen {
    tenant: TenantNumber,
    counts: Counts,
    metric_count: u64,
    metrics: Vec<(Symbol, Counts)>,
}

impl HourSketches {
    /// The largest tenants, metrics and tags of an hour. Takes the registry slice by slice.
    pub fn of(closed: &ClosedHour, registry: &RwLock<Registry>) -> HourSketches {
        let mut told = HourSketches { hour: closed.hour, tenants: BTreeMap::new() };
        let mut sketches = 0;
        for Chosen { tenant, counts, metric_count, metrics } in chosen(closed, registry) {
            let mut of_tenant = TenantHour { counts, metric_count, metrics: BTreeMap::new() };
            for (metric, counts) in metrics {
                if sketches >= SKETCHES_MAX {
                    break;
                }
                let (name, metric) = sketched(closed, registry, tenant, metric, counts);
                sketches += 1 + metric.tags.len();
                of_tenant.metrics.insert(name, metric);
            }
            let name = registry.read().tenant_name(tenant).to_owned();
            told.tenants.insert(name, of_tenant);
        }
        told
    }

    /// Take in the same hour once more.
    pub fn merge(&mut self, other: HourSketches) {
        for (name, tenant) in other.tenants {
            let own = self.tenants.entry(name).or_default();
            own.counts.merge(tenant.counts);
            own.metric_count = own.metric_count.max(tenant.metric_count);
            for (name, metric) in tenant.metrics {
                match own.metrics.get_mut(&name) {
                    Some(own) => own.merge(metric),
                    None => drop(own.metrics.insert(name, metric)),
                }
            }
        }
    }
}

impl MetricHour {
    pub fn merge(&mut self, other: MetricHour) {
        self.counts.merge(other.counts);
        self.series.merge(&other.series);
        for (name, sketch) in other.tags {
            match self.tags.get_mut(&name) {
                Some(own) => drop(own.merge(&sketch)),
                None => drop(self.tags.insert(name, sketch)),
            }
        }
    }
}

/// The tenants and metrics with most series, the largest first.
fn chosen(closed: &ClosedHour, registry: &RwLock<Registry>) -> Vec<Chosen> {
    let mut counted: HashMap<(TenantNumber, Symbol), Counts, FxBuildHasher> = HashMap::default();
    for (slice, activity) in closed.activity.chunks(SLICE).enumerate() {
        let registry = registry.read();
        for (&activity, row) in activity.iter().zip((slice * SLICE) as SeriesRow..) {
            let key = registry.key(row);
            if activity != 0 && !registry.is_retired(key.tenant) {
                let counts = counted.entry((key.tenant, key.metric)).or_default();
                counts.add(activity, row >= closed.first_row);
            }
        }
    }
    let mut tenants: BTreeMap<TenantNumber, Chosen> = BTreeMap::new();
    for ((tenant, metric), counts) in counted {
        let own = tenants.entry(tenant).or_default();
        own.tenant = tenant;
        own.counts.active += counts.active;
        own.counts.new += counts.new;
        own.counts.gone += counts.gone;
        own.metric_count += u64::from(counts.active > 0);
        own.metrics.push((metric, counts));
    }
    let mut chosen: Vec<Chosen> = tenants.into_values().collect();
    chosen.sort_by_key(|own| (Reverse(own.counts.active), own.tenant));
    chosen.truncate(TENANTS_MAX);
    for own in &mut chosen {
        own.metrics.sort_by_key(|(metric, c)| (Reverse((c.active, c.gone)), *metric));
        own.metrics.truncate(METRICS_MAX);
    }
    chosen
}

/// The sketches of one metric, and its name.
fn sketched(
    closed: &ClosedHour,
    registry: &RwLock<Registry>,
    tenant: TenantNumber,
    metric: Symbol,
    counts: Counts,
) -> (String, MetricHour) {
    let named = |row: &SeriesRow| closed.activity.get(*row as usize) == Some(&THIS_HOUR);
    let rows: Vec<SeriesRow> = {
        let registry = registry.read();
        registry.rows_of(tenant, metric).iter().filter(named).collect()
    };
    let mut series = HyperLogLog::new(PRECISION);
    let mut tags: Vec<(Symbol, HyperLogLog)> = Vec::new();
    for slice in rows.chunks(SLICE) {
        let registry = registry.read();
        for &row in slice {
            series.add_hash(registry.ids[row as usize][0]);
            for (name, value) in registry.symbols(row).filter(|&(n, _)| n != registry.metric_name) {
                let value = registry.strings.bytes(value);
                match tags.iter().position(|(known, _)| *known == name) {
                    Some(at) => tags[at].1.add(value),
                    None if tags.len() < TAGS_LOOKED_AT => {
                        let mut sketch = HyperLogLog::new(PRECISION);
                        sketch.add(value);
                        tags.push((name, sketch));
                    }
                    None => {}
                }
            }
        }
    }
    let registry = registry.read();
    let text = |symbol| registry.strings.get(symbol).to_owned();
    let mut tags: Vec<(u64, String, HyperLogLog)> = tags
        .into_iter()
        .map(|(name, sketch)| (sketch.estimate().round() as u64, text(name), sketch))
        .collect();
    tags.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    tags.truncate(TAGS_MAX);
    let tags = tags.into_iter().map(|(_, name, sketch)| (name, sketch)).collect();
    (text(metric), MetricHour { counts, series, tags })
}
