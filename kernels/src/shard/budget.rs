//! Compiled policies: budgets as a flat table, and which meters a series is counted by.
//!
//! A meter is one budget of one tenant. Invariant: the set of a series' meters depends on the table,
//! its tenant and its labels alone, so it is found once, when the series gets its row, and comes out
//! the same when a table that comes into force is counted from the rows. docs/formats/policy.md.

use super::registry::Registry;
use crate::error::{KernelError, Result};
use crate::labels::{METRIC_NAME, canonical};
use crate::model::{SeriesRow, TenantNumber};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

const FORMAT: u32 = 1;
/// Metrics of which the meters are remembered per tenant; then it begins anew.
const METRICS_CACHED_MAX: usize = 1 << 16;
/// No meters at all: most series of most installations.
pub const NO_METERS: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Observe,
    Warn,
    Enforce,
}

/// What happens to a new series past a hard limit. Codes are those of dead letters
/// (docs/formats/deadletters.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Action {
    Observe = 1,
    Drop = 2,
    Strip = 3,
    Aggregate = 4,
    Overflow = 5,
}

impl Action {
    pub fn folds(self) -> bool {
        matches!(self, Action::Strip | Action::Aggregate | Action::Overflow)
    }

    /// Of several actions on one series the strongest holds.
    pub fn strength(self) -> u8 {
        match self {
            Action::Observe => 0,
            Action::Strip | Action::Aggregate | Action::Overflow => 1,
            Action::Drop => 2,
        }
    }
}

/// How a gauge's inputs become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum GaugeFunction {
    Sum = 1,
    Avg = 2,
    Max = 3,
    Min = 4,
    Last = 5,
}

/// How a budget folds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldRules {
    /// Dropped, kept, or the one that overflows, by the budget's action.
    pub labels: Vec<String>,
    pub gauge: GaugeFunction,
    pub grid_ms: i64,
    pub lateness_ms: i64,
    pub idle_ms: i64,
    pub inputs_max: u64,
    pub outputs_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    All,
    Name,
    Prefix,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub name: String,
    /// Bites whatever the table's stage is: a plan's limit.
    #[serde(default)]
    pub always: bool,
    /// Empty: each tenant has the budget for itself.
    pub tenant: String,
    #[serde(rename = "match")]
    pub kind: Match,
    pub metric: String,
    pub labels: Vec<(String, String)>,
    pub active_soft: Option<u64>,
    pub active_hard: Option<u64>,
    pub new_soft: Option<u64>,
    pub new_hard: Option<u64>,
    pub action: Action,
    /// A standing rule: it has no limits, and all its series are folded, known ones too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standing: bool,
    /// There where the action folds.
    #[serde(default)]
    pub fold: Option<FoldRules>,
}

/// One version of the policy; never changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    format: u32,
    pub version: u32,
    pub stage: Stage,
    pub letter_bytes_max: u64,
    /// Of tenants that have another.
    #[serde(default)]
    pub letter_bytes_max_of: BTreeMap<String, u64>,
    pub letter_days: u32,
    pub budgets: Vec<Budget>,
    /// Of what is judged by: tables of one digest judge alike.
    #[serde(skip)]
    pub digest: u32,
    /// What moves to warm and cold is judged there, not here.
    #[serde(default, rename = "boundary")]
    _boundary: serde::de::IgnoredAny,
    #[serde(default, rename = "sketches")]
    _sketches: serde::de::IgnoredAny,
}

impl Table {
    pub fn parse(json: &str) -> Result<Table> {
        let bad = |what: String| KernelError::corruption(format!("policy table: {what}"));
        let mut table: Table =
            serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
        let judging = serde_json::to_vec(&(table.stage, &table.budgets));
        table.digest = crc32fast::hash(&judging.map_err(|error| bad(error.to_string()))?);
        if table.format != FORMAT {
            return Err(bad(format!("format {}; this build reads {FORMAT}", table.format)));
        }
        for budget in &table.budgets {
            let sound = match &budget.fold {
                Some(rules) => rules.grid_ms > 0 && rules.lateness_ms >= 0 && rules.idle_ms >= 0,
                None => !budget.action.folds() && !budget.standing,
            };
            if !sound {
                return Err(bad(format!("how budget {:?} folds", budget.name)));
            }
        }
        Ok(table)
    }
}

/// How often a budget bit, or would have. Counts of series, except the last three: points.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// New series accepted past a soft limit.
    pub over_soft: u64,
    /// New series accepted past a hard limit: the action, or the stage, is to observe.
    pub observed: u64,
    /// Refusals, one a series and record.
    pub refused_series: u64,
    pub dead_lettered: u64,
    pub discarded: u64,
    pub folded: u64,
}

impl Tally {
    pub fn add(&mut self, more: &Tally) {
        self.over_soft += more.over_soft;
        self.observed += more.observed;
        self.refused_series += more.refused_series;
        self.dead_lettered += more.dead_lettered;
        self.discarded += more.discarded;
        self.folded += more.folded;
    }
}

/// One budget of one tenant.
#[derive(Clone, Debug)]
pub struct Meter {
    pub budget: u32,
    pub tenant: TenantNumber,
    /// Rows named in the current journal hour ...
    pub current: u64,
    /// ... and those named in the previous one only.
    pub previous: u64,
    pub new: u64,
    pub tally: Tally,
}

impl Meter {
    pub fn active(&self) -> u64 {
        self.current + self.previous
    }
}

/// Meters that the series of one metric of a tenant may count for.
#[derive(Clone, Default)]
struct Candidates {
    /// The set, where no budget among them looks at labels.
    set: u32,
    labelled: Option<Arc<Labelled>>,
}

/// Candidates of which some look at labels.
struct Labelled {
    /// All of them, ascending, with the places of their conditions.
    meters: Vec<(u32, Vec<usize>)>,
    /// (label, value), each once: budgets often share them.
    conditions: Vec<(String, String)>,
}

#[derive(Default)]
struct TenantMeters {
    /// Ascending, so in the document's order.
    meters: Vec<u32>,
    by_metric: HashMap<Box<[u8]>, Candidates, FxBuildHasher>,
    /// The last one asked for: series of a metric come together.
    last_metric: Vec<u8>,
    last: Option<Candidates>,
}

/// The meters of one table, and which of them each row counts for.
pub struct Meters {
    pub table: Arc<Table>,
    pub meters: Vec<Meter>,
    tenants: Vec<TenantMeters>,
    sets: Vec<Box<[u32]>>,
    /// By set: the first of its meters that is a standing rule's.
    standing: Vec<Option<u32>>,
    /// There are standing rules, and they are in force.
    pub stands: bool,
    set_numbers: HashMap<Box<[u32]>, u32, FxBuildHasher>,
    /// By row; a number of `sets`.
    row_sets: Vec<u32>,
    scratch: (Vec<u32>, Vec<bool>),
}

impl Meters {
    pub fn new(table: Arc<Table>) -> Meters {
        let rules = table.budgets.iter().any(|budget| budget.standing);
        Meters {
            stands: rules && table.stage == Stage::Enforce,
            standing: vec![None],
            table,
            meters: Vec::new(),
            tenants: Vec::new(),
            sets: vec![Box::default()],
            set_numbers: std::iter::once((Box::default(), NO_METERS)).collect(),
            row_sets: Vec::new(),
            scratch: Default::default(),
        }
    }

    pub fn budget(&self, meter: u32) -> &Budget {
        &self.table.budgets[self.meters[meter as usize].budget as usize]
    }

    /// The meters of a tenant, in the document's order.
    pub(super) fn of_tenant(&mut self, registry: &Registry, tenant: TenantNumber) -> Vec<u32> {
        self.meters_of_tenant(registry, tenant).meters.clone()
    }

    /// The meters of a set, ascending.
    pub fn set(&self, set: u32) -> &[u32] {
        &self.sets[set as usize]
    }

    /// The meter of the standing rule that folds a set's series.
    #[inline]
    pub fn standing(&self, set: u32) -> Option<u32> {
        self.standing[set as usize]
    }

    /// The set of a row.
    pub fn row_set(&self, row: SeriesRow) -> u32 {
        self.row_sets[row as usize]
    }

    /// The next row's set.
    pub fn add_row(&mut self, set: u32) {
        self.row_sets.push(set);
    }

    /// Do something with each meter of a set, in the document's order.
    #[inline]
    pub fn each(&mut self, set: u32, mut with: impl FnMut(&Budget, &mut Meter)) {
        for &number in &self.sets[set as usize] {
            let meter = &mut self.meters[number as usize];
            with(&self.table.budgets[meter.budget as usize], meter);
        }
    }

    /// The set that a series of canonical labels counts for.
    pub fn set_of_labels(
        &mut self,
        registry: &Registry,
        tenant: TenantNumber,
        labels: &[u8],
    ) -> u32 {
        if self.meters_of_tenant(registry, tenant).meters.is_empty() {
            return NO_METERS;
        }
        let value = |wanted: &str| {
            let mut known = canonical::labels(labels).filter_map(std::result::Result::ok);
            known.find(|(name, ..)| *name == wanted.as_bytes()).map_or(&[][..], |(_, v, _)| v)
        };
        self.set_of(tenant, value(METRIC_NAME), value)
    }

    /// The set that a row's labels give.
    pub fn set_of_row(&mut self, registry: &Registry, row: SeriesRow) -> u32 {
        let key = registry.key(row);
        if self.meters_of_tenant(registry, key.tenant).meters.is_empty() {
            return NO_METERS;
        }
        let metric = registry.strings.bytes(key.metric);
        self.set_of(key.tenant, metric, |name| registry.value_of(row, name))
    }

    fn set_of<'a>(
        &mut self,
        tenant: TenantNumber,
        metric: &[u8],
        value: impl Fn(&str) -> &'a [u8],
    ) -> u32 {
        let candidates = self.candidates(tenant, metric);
        let Some(labelled) = candidates.labelled else { return candidates.set };
        let (mut set, mut held) = std::mem::take(&mut self.scratch);
        set.clear();
        held.clear();
        let holds = |(name, wanted): &(String, String)| value(name) == wanted.as_bytes();
        held.extend(labelled.conditions.iter().map(holds));
        let fitting =
            labelled.meters.iter().filter(|(_, places)| places.iter().all(|&at| held[at]));
        set.extend(fitting.map(|(meter, _)| meter));
        let number = self.number_of(&set);
        self.scratch = (set, held);
        number
    }

    fn candidates(&mut self, tenant: TenantNumber, metric: &[u8]) -> Candidates {
        let of_tenant = &self.tenants[tenant as usize];
        if let Some(last) = of_tenant.last.as_ref().filter(|_| of_tenant.last_metric == metric) {
            return last.clone();
        }
        let found = match of_tenant.by_metric.get(metric) {
            Some(found) => found.clone(),
            None => self.find_candidates(tenant, metric),
        };
        let of_tenant = &mut self.tenants[tenant as usize];
        of_tenant.last_metric.clear();
        of_tenant.last_metric.extend_from_slice(metric);
        of_tenant.last = Some(found.clone());
        found
    }

    fn find_candidates(&mut self, tenant: TenantNumber, metric: &[u8]) -> Candidates {
        let fits = |&meter: &u32| {
            let budget = self.budget(meter);
            match budget.kind {
                Match::All => true,
                Match::Name => metric == budget.metric.as_bytes(),
                Match::Prefix => metric.starts_with(budget.metric.as_bytes()),
            }
        };
        let meters = &self.tenants[tenant as usize].meters;
        let all: Vec<u32> = meters.iter().copied().filter(fits).collect();
        let found = if all.iter().any(|&meter| !self.budget(meter).labels.is_empty()) {
            Candidates { set: NO_METERS, labelled: Some(Arc::new(self.labelled(&all))) }
        } else {
            Candidates { set: self.number_of(&all), labelled: None }
        };
        let by_metric = &mut self.tenants[tenant as usize].by_metric;
        if by_metric.len() >= METRICS_CACHED_MAX {
            by_metric.clear();
        }
        by_metric.insert(metric.into(), found.clone());
        found
    }

    fn labelled(&self, meters: &[u32]) -> Labelled {
        let mut conditions: Vec<(String, String)> = Vec::new();
        let mut place_of = |label: &(String, String)| {
            conditions.iter().position(|known| known == label).unwrap_or_else(|| {
                conditions.push(label.clone());
                conditions.len() - 1
            })
        };
        let places = |&meter: &u32| {
            (meter, self.budget(meter).labels.iter().map(&mut place_of).collect::<Vec<_>>())
        };
        let meters = meters.iter().map(places).collect();
        Labelled { meters, conditions }
    }

    fn number_of(&mut self, set: &[u32]) -> u32 {
        if let Some(&number) = self.set_numbers.get(set) {
            return number;
        }
        let number = self.sets.len() as u32;
        self.sets.push(set.into());
        let rule = set.iter().copied().find(|&meter| self.budget(meter).standing);
        self.standing.push(rule.filter(|_| self.stands));
        self.set_numbers.insert(set.into(), number);
        number
    }

    /// The tenant's meters, made when it is first asked for.
    fn meters_of_tenant(&mut self, registry: &Registry, tenant: TenantNumber) -> &TenantMeters {
        for number in self.tenants.len() as TenantNumber..=tenant {
            let name = registry.tenant_name(number);
            let mut of_tenant = TenantMeters::default();
            for (budget, rule) in self.table.budgets.iter().enumerate() {
                if rule.tenant.is_empty() || rule.tenant == name {
                    of_tenant.meters.push(self.meters.len() as u32);
                    self.meters.push(Meter {
                        budget: budget as u32,
                        tenant: number,
                        current: 0,
                        previous: 0,
                        new: 0,
                        tally: Tally::default(),
                    });
                }
            }
            self.tenants.push(of_tenant);
        }
        &self.tenants[tenant as usize]
    }

    pub fn memory_bytes(&self) -> usize {
        let metrics: usize = self.tenants.iter().map(|tenant| tenant.by_metric.len()).sum();
        let sets: usize = self.sets.iter().map(|set| set.len() * 8 + 64).sum();
        self.row_sets.capacity() * 4
            + self.meters.capacity() * size_of::<Meter>()
            + metrics * 96
            + sets
    }
}
