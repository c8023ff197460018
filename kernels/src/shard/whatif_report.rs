//! What judging recorded hours again has found, counted as it goes and told in JSON.
//!
//! Invariant: every list is bounded by a name, and says where it ends early; sums are of all.

use super::budget::{Meters, Table};
use super::registry::Registry;
use super::whatif_folds::Output;
use crate::error::Result;
use crate::labels::canonical;
use crate::model::{SeriesRow, Symbol, TenantNumber};
use hashbrown::HashMap;
use parking_lot::RwLock;
use roaring::RoaringBitmap;
use rustc_hash::FxBuildHasher;
use serde::Serialize;
use std::collections::BTreeMap;

const BUDGETS_MAX: usize = 200;
const FIRST_HOURS_MAX: usize = 5;
const METRICS_MAX: usize = 1_000;
const OUTPUTS_MAX: usize = 1_000;
const LABELS_MAX: usize = 100;
/// Pairs of label and value that are told apart among the refused series.
const PAIRS_MAX: usize = 1 << 20;
const SLICE_ROWS: usize = 4 << 10;

/// One meter over all hours.
#[derive(Default)]
pub struct Tally {
    pub active_peak: u64,
    pub new_peak: u64,
    made: u64,
    refused: RoaringBitmap,
    folded: RoaringBitmap,
    points: u64,
    points_folded: u64,
    hours: Vec<i64>,
    hours_bitten: u64,
}

/// One budget of one tenant. Series but for the points.
#[derive(Debug, Serialize)]
pub struct BudgetReport {
    budget: String,
    tenant: String,
    /// New ones that it counted.
    series_made: u64,
    /// Distinct ones that it refused ...
    series_refused: u64,
    points_refused: u64,
    /// ... and those that it folded.
    series_folded: u64,
    points_folded: u64,
    active_peak: u64,
    new_peak: u64,
    hours_bitten: u64,
    first_hours: Vec<i64>,
}

#[derive(Debug, Serialize)]
struct MetricReport {
    tenant: String,
    metric: String,
    series_refused: u64,
    series_folded: u64,
}

/// A label of the refused and folded series: how many values it has, and the one that most of them have.
#[derive(Debug, Serialize)]
struct LabelReport {
    tenant: String,
    label: String,
    values: u64,
    top_value: String,
    top_value_series: u64,
}

#[derive(Debug, Default, Serialize)]
struct HourReport {
    hour: i64,
    series_made: u64,
    series_refused: u64,
    series_folded: u64,
    points: u64,
    points_refused: u64,
    points_folded: u64,
}

/// A series that others are folded into.
#[derive(Debug, Serialize)]
struct OutputReport {
    tenant: String,
    budget: String,
    labels: BTreeMap<String, String>,
    /// None where there was a series of these labels before.
    made_hour: Option<i64>,
    /// In which something was folded into it.
    hours: u64,
    /// Distinct series that have a row in the registry.
    series: u64,
}

#[derive(Debug, Serialize)]
struct Folded {
    /// Place in the list of outputs.
    output: u32,
    hours: Vec<i64>,
}

#[derive(Debug, Serialize)]
struct RefusedSeries {
    tenant: String,
    labels: BTreeMap<String, String>,
    /// In which it was refused.
    hours: Vec<i64>,
    /// In which it was folded.
    folded: Vec<Folded>,
    /// It was let in before or after.
    came_in: bool,
}

/// Hours are numbers of hours since 1970.
#[derive(Default, Serialize)]
pub struct Report {
    pub from_hour: Option<i64>,
    /// The first hour whose figures are an estimate; none where all are exact.
    estimate_from_hour: Option<i64>,
    /// Known when the first hour began.
    series_before: u64,
    series_made: u64,
    /// Distinct ones that were refused in any hour, those that were folded in any ...
    series_refused: u64,
    series_folded: u64,
    /// ... and those of either that never came in.
    series_lost: u64,
    outputs_made: u64,
    /// Recorded refusals, one a series and record (of those that were folded one an output and
    /// hour), of which it is known what they would be now ...
    refused_again: u64,
    /// ... and those of which that is not known.
    refused_unknown: u64,
    points: u64,
    points_refused: u64,
    points_folded: u64,
    hours: Vec<HourReport>,
    budgets: Vec<BudgetReport>,
    outputs: Vec<OutputReport>,
    metrics: Vec<MetricReport>,
    labels: Vec<LabelReport>,
    /// Lists that end early: their names.
    cut: Vec<&'static str>,
    refused: Vec<RefusedSeries>,
    #[serde(skip)]
    tallies: Vec<Tally>,
    #[serde(skip)]
    all_refused: RoaringBitmap,
    #[serde(skip)]
    all_folded: RoaringBitmap,
    #[serde(skip)]
    refused_now: RoaringBitmap,
    /// Hours of each listed series, and the output's number where it was folded.
    #[serde(skip)]
    listed: BTreeMap<SeriesRow, Vec<(Option<u32>, i64)>>,
    /// By an output's number: its place in the list.
    #[serde(skip)]
    output_places: Vec<Option<u32>>,
    #[serde(skip)]
    list_max: usize,
}

impl Report {
    pub fn new(list_max: usize) -> Report {
        Report { list_max, ..Report::default() }
    }

    pub fn begin(&mut self, hour: i64, known: u64) {
        (self.from_hour, self.series_before) = (Some(hour), known);
    }

    pub fn hour(&mut self, hour: i64) {
        self.refused_now.clear();
        self.hours.push(HourReport { hour, ..HourReport::default() });
    }

    fn now(&mut self) -> &mut HourReport {
        self.hours.last_mut().expect("an hour was begun")
    }

    fn tally(&mut self, meter: u32) -> &mut Tally {
        let meter = meter as usize;
        if self.tallies.len() <= meter {
            self.tallies.resize_with(meter + 1, Tally::default);
        }
        &mut self.tallies[meter]
    }

    /// A row was let in.
    pub fn made(&mut self) {
        self.series_made += 1;
        self.now().series_made += 1;
    }

    /// An output that is a new series.
    pub fn output_made(&mut self) {
        self.outputs_made += 1;
    }

    /// A meter refused a row, or folded it into an output; is it the hour's first time?
    pub fn refused(&mut self, row: SeriesRow, meter: u32, output: Option<u32>) -> bool {
        if !self.refused_now.insert(row) {
            return false;
        }
        let now = self.now();
        *(if output.is_some() { &mut now.series_folded } else { &mut now.series_refused }) += 1;
        let hour = now.hour;
        (if output.is_some() { &mut self.all_folded } else { &mut self.all_refused }).insert(row);
        if let Some(hours) = self.listed.get_mut(&row) {
            hours.push((output, hour));
        } else if self.listed.len() < self.list_max {
            self.listed.insert(row, vec![(output, hour)]);
        }
        let tally = self.tally(meter);
        (if output.is_some() { &mut tally.folded } else { &mut tally.refused }).insert(row);
        if tally.hours.last() != Some(&hour) {
            tally.hours_bitten += 1;
            if tally.hours.len() < FIRST_HOURS_MAX {
                tally.hours.push(hour);
            }
        }
        true
    }

    /// Series of one record had no row when it was recorded; `again`: it is known that they would
    /// have none now.
    pub fn without_row(&mut self, series: u64, again: bool) {
        if again {
            self.refused_again += series;
        } else {
            self.refused_unknown += series;
            self.estimated();
        }
    }

    /// From the current hour on figures are an estimate.
    pub fn estimated(&mut self) {
        let hour = self.now().hour;
        self.estimate_from_hour.get_or_insert(hour);
    }

    pub fn points(&mut self, points: u64) {
        self.points += points;
        self.now().points += points;
    }

    pub fn refused_points(&mut self, meter: u32, points: u64, folded: bool) {
        if folded {
            self.points_folded += points;
            self.now().points_folded += points;
            self.tally(meter).points_folded += points;
        } else {
            self.points_refused += points;
            self.now().points_refused += points;
            self.tally(meter).points += points;
        }
    }

    /// A meter at an hour's end, where its counts are the hour's highest.
    pub fn meter(&mut self, meter: u32, active: u64, new: u64) {
        let tally = self.tally(meter);
        tally.active_peak = tally.active_peak.max(active);
        tally.new_peak = tally.new_peak.max(new);
        tally.made += new;
    }

    /// Budgets by name, those that refused most first.
    pub fn name(&mut self, registry: &Registry, meters: &Meters) {
        let mut named: Vec<BudgetReport> = std::mem::take(&mut self.tallies)
            .into_iter()
            .zip(&meters.meters)
            .map(|(tally, meter)| BudgetReport {
                budget: meters.table.budgets[meter.budget as usize].name.clone(),
                tenant: registry.tenant_name(meter.tenant).to_owned(),
                series_made: tally.made,
                series_refused: tally.refused.len(),
                points_refused: tally.points,
                series_folded: tally.folded.len(),
                points_folded: tally.points_folded,
                active_peak: tally.active_peak,
                new_peak: tally.new_peak,
                hours_bitten: tally.hours_bitten,
                first_hours: tally.hours,
            })
            .collect();
        let most = |one: &BudgetReport| (one.series_refused + one.series_folded, one.active_peak);
        named.sort_by_key(|one| std::cmp::Reverse(most(one)));
        self.cut_at("budgets", &mut named, BUDGETS_MAX);
        self.budgets = named;
    }

    /// Outputs that something was folded into, as they came.
    pub(super) fn outputs(&mut self, registry: &Registry, table: &Table, outputs: &[Output]) {
        let mut told = Vec::new();
        for output in outputs {
            let fed = output.hours_fed > 0 && !registry.is_retired(output.tenant);
            self.output_places.push(fed.then_some(told.len() as u32));
            if !fed {
                continue;
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let labels = canonical::labels(&output.labels).filter_map(Result::ok);
            told.push(OutputReport {
                tenant: registry.tenant_name(output.tenant).to_owned(),
                budget: table.budgets[output.budget as usize].name.clone(),
                labels: labels.map(|(name, value, _)| (text(name), text(value))).collect(),
                made_hour: output.made_hour,
                hours: output.hours_fed,
                series: output.series.len(),
            });
        }
        self.cut_at("outputs", &mut told, OUTPUTS_MAX);
        self.outputs = told;
    }

    fn cut_at<T>(&mut self, name: &'static str, list: &mut Vec<T>, most: usize) {
        if list.len() > most {
            list.truncate(most);
            self.cut.push(name);
        }
    }

    /// What the refused series are; `came_in`: a row was let in after all.
    pub fn finish(
        &mut self,
        registry: &RwLock<Registry>,
        came_in: &dyn Fn(SeriesRow) -> bool,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let refused = std::mem::take(&mut self.all_refused);
        let folded = std::mem::take(&mut self.all_folded);
        (self.series_refused, self.series_folded) = (refused.len(), folded.len());
        let either = &refused | &folded;
        self.series_lost = either.iter().filter(|&row| !came_in(row)).count() as u64;
        let mut found = Found::default();
        let rows: Vec<SeriesRow> = either.iter().collect();
        for slice in rows.chunks(SLICE_ROWS) {
            check()?;
            let registry = registry.read();
            for &row in slice {
                found.add(&registry, row, (refused.contains(row), folded.contains(row)));
            }
        }
        if found.cut {
            self.cut.push("labels");
        }
        let registry = registry.read();
        let (mut metrics, mut labels) = (found.metrics(&registry), found.labels(&registry));
        self.cut_at("metrics", &mut metrics, METRICS_MAX);
        self.cut_at("labels", &mut labels, LABELS_MAX);
        (self.metrics, self.labels) = (metrics, labels);
        let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        self.refused = std::mem::take(&mut self.listed)
            .into_iter()
            .filter(|(row, _)| !registry.is_retired(registry.key(*row).tenant))
            .map(|(row, hours)| RefusedSeries {
                tenant: registry.tenant_name(registry.key(row).tenant).to_owned(),
                labels: registry.labels(row).into_iter().map(text).collect(),
                hours: hours.iter().filter(|at| at.0.is_none()).map(|at| at.1).collect(),
                folded: self.folded(&hours),
                came_in: came_in(row),
            })
            .collect();
        if self.refused.len() as u64 != either.len() {
            self.cut.push("refused");
        }
        Ok(())
    }
}

impl Report {
    fn folded(&self, hours: &[(Option<u32>, i64)]) -> Vec<Folded> {
        let mut by_output: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
        for &(output, hour) in hours {
            let place = output.and_then(|number| *self.output_places.get(number as usize)?);
            by_output.entry(place.unwrap_or(u32::MAX)).or_default().push(hour);
        }
        by_output.remove(&u32::MAX);
        by_output.into_iter().map(|(output, hours)| Folded { output, hours }).collect()
    }
}

/// Metrics and labels of the refused and folded series.
#[derive(Default)]
struct Found {
    /// Series refused and folded.
    metrics: HashMap<(TenantNumber, Symbol), (u64, u64), FxBuildHasher>,
    pairs: HashMap<(TenantNumber, Symbol, Symbol), u64, FxBuildHasher>,
    cut: bool,
}

impl Found {
    fn add(&mut self, registry: &Registry, row: SeriesRow, (refused, folded): (bool, bool)) {
        let key = registry.key(row);
        if registry.is_retired(key.tenant) {
            return; // Of a deleted tenant nothing is told.
        }
        let counts = self.metrics.entry((key.tenant, key.metric)).or_default();
        counts.0 += u64::from(refused);
        counts.1 += u64::from(folded);
        let (_, names, values) = registry.parts(row);
        for (&name, &value) in names.iter().zip(values) {
            let pair = (key.tenant, name, value);
            if let Some(series) = self.pairs.get_mut(&pair) {
                *series += 1;
            } else if self.pairs.len() < PAIRS_MAX {
                self.pairs.insert(pair, 1);
            } else {
                self.cut = true;
            }
        }
    }

    fn metrics(&self, registry: &Registry) -> Vec<MetricReport> {
        let told = |(&(tenant, metric), &counts): (&(TenantNumber, Symbol), &(u64, u64))| {
            let tenant = registry.tenant_name(tenant).to_owned();
            let metric = registry.strings.get(metric).to_owned();
            let (series_refused, series_folded) = counts;
            MetricReport { tenant, metric, series_refused, series_folded }
        };
        let mut all: Vec<MetricReport> = self.metrics.iter().map(told).collect();
        all.sort_by(|a, b| {
            let order =
                |one: &MetricReport| std::cmp::Reverse(one.series_refused + one.series_folded);
            (order(a), &a.tenant, &a.metric).cmp(&(order(b), &b.tenant, &b.metric))
        });
        all
    }

    /// Labels with the most values first: the culprit is one of them.
    fn labels(&self, registry: &Registry) -> Vec<LabelReport> {
        let mut by_name: HashMap<(TenantNumber, Symbol), (u64, u64, Symbol)> = HashMap::new();
        for (&(tenant, name, value), &series) in &self.pairs {
            let entry = by_name.entry((tenant, name)).or_insert((0, 0, value));
            entry.0 += 1;
            let text = |symbol| registry.strings.get(symbol);
            if series > entry.1 || (series == entry.1 && text(value) < text(entry.2)) {
                (entry.1, entry.2) = (series, value);
            }
        }
        let told = |((tenant, name), (values, series, value)): (
            (TenantNumber, Symbol),
            (u64, u64, Symbol),
        )| LabelReport {
            tenant: registry.tenant_name(tenant).to_owned(),
            label: registry.strings.get(name).to_owned(),
            values,
            top_value: registry.strings.get(value).to_owned(),
            top_value_series: series,
        };
        let mut all: Vec<LabelReport> = by_name.into_iter().map(told).collect();
        all.sort_by(|a, b| {
            let order = |one: &LabelReport| std::cmp::Reverse(one.values);
            (order(a), &a.tenant, &a.label).cmp(&(order(b), &b.tenant, &b.label))
        });
        all
    }
}
