//! Folding in a what-if: which outputs there would be, and which series go into which. What they
//! would hold is not worked out.
//!
//! Invariant: where enforcement may do otherwise, since what hours record does not decide it (an
//! output that may have been forgotten, inputs that may have been too many), `unsure` says so.

use super::budget::{Budget, FoldRules, Table};
use super::fold::INPUTS_MAX;
use super::fold_target::{
    FOLDED_BY, OVERFLOW, ROWS_LOOKED_AT, metric_of, output_labels, rows_of_metric, worst_of,
};
use super::registry::Registry;
use super::whatif_replay::UNKNOWN;
use crate::labels::canonical;
use crate::model::{SeriesRow, TenantNumber};
use hashbrown::HashMap;
use roaring::RoaringBitmap;
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const HOUR_MS: i64 = 3_600_000;
/// No hour: before what is recorded.
const LONG_AGO: i64 = i64::MIN;
/// An output is forgotten a day after its last point. The fold's clock may be two hours behind the
/// journal hour, and an hour's first point is all that is known.
const SURELY_KEPT_HOURS: i64 = 21;
const SURELY_GONE_HOURS: i64 = 27;
/// Hours that an input may outlive its idle time, by the same clock, and by points ahead of it.
const INPUT_HOURS: i64 = 4;

/// A series that others are folded into.
pub(super) struct Output {
    pub tenant: TenantNumber,
    /// Its budget's place in the table.
    pub budget: u32,
    pub labels: Vec<u8>,
    /// Its row in the replay, once something was folded into it ...
    pub row: Option<SeriesRow>,
    /// ... and in the registry, if it has one there.
    pub recorded: Option<SeriesRow>,
    fed_hour: i64,
    /// In which it was made, where it is new.
    pub made_hour: Option<i64>,
    pub hours_fed: u64,
    /// Rows of the registry that were folded into it.
    pub series: RoaringBitmap,
}

/// Inputs of one hour: rows of the registry, and by recorded output how many had no row.
#[derive(Default)]
struct Inputs {
    hour: i64,
    rows: RoaringBitmap,
    without_row: HashMap<SeriesRow, u64, FxBuildHasher>,
}

/// One budget of a tenant that folds.
#[derive(Default)]
struct Folder {
    outputs: Vec<u32>,
    /// In this hour no output more may begin.
    full: bool,
    hours: VecDeque<Inputs>,
    /// What was folded otherwise when it was recorded may be an input for longer now.
    longer: bool,
}

/// The label that was chosen to overflow, and the outputs that hold it.
type Chosen = (String, Vec<u32>);

/// What the replay stands on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub registry: &'a Registry,
    pub table: &'a Table,
    /// By row of the registry: the replay's row.
    pub rows: &'a [SeriesRow],
}

#[derive(Default)]
pub(super) struct Outputs {
    pub list: Vec<Output>,
    by_labels: HashMap<(TenantNumber, Vec<u8>), u32, FxBuildHasher>,
    folders: BTreeMap<(TenantNumber, u32), Folder>,
    /// By tenant, budget and metric.
    chosen: HashMap<(TenantNumber, u32, String), Chosen, FxBuildHasher>,
    hour: i64,
    unsure: bool,
}

impl Outputs {
    /// Since it was last asked: may enforcement do otherwise?
    pub fn take_unsure(&mut self) -> bool {
        std::mem::take(&mut self.unsure)
    }

    pub fn begin_hour(&mut self, hour: i64) {
        self.hour = hour;
        self.folders.values_mut().for_each(|folder| folder.full = false);
    }

    /// Outputs that were there before the first hour may still be; those in `active` are.
    pub fn known_before(&mut self, ground: Ground, known: SeriesRow, active: &RoaringBitmap) {
        let registry = ground.registry;
        for (place, budget) in ground.table.budgets.iter().enumerate() {
            let name = registry.strings.find(FOLDED_BY.as_bytes());
            let value = registry.strings.find(budget.name.as_bytes());
            let (Some(name), Some(value)) = (name, value) else { continue };
            for tenant in 0..registry.tenant_count() as TenantNumber {
                let mine =
                    budget.tenant.is_empty() || budget.tenant == registry.tenant_name(tenant);
                let index = &registry.tenants[tenant as usize].index;
                let Some(pair) = index.find(name, value).filter(|_| mine) else { continue };
                for row in index.posting(pair).to_bitmap().iter().take_while(|&row| row < known) {
                    let number =
                        self.open(ground, (tenant, place as u32), labels_of(registry, row));
                    let fed = if active.contains(row) { self.hour - 1 } else { LONG_AGO };
                    self.list[number as usize].fed_hour = fed;
                    self.choose_known(ground, number);
                }
            }
        }
    }

    /// An output of before names the label that its budget chose.
    fn choose_known(&mut self, ground: Ground, number: u32) {
        let output = &self.list[number as usize];
        let rules = ground.table.budgets[output.budget as usize].fold.as_ref();
        let mut labels = canonical::labels(&output.labels).filter_map(Result::ok);
        let found = labels.find(|(_, value, _)| *value == OVERFLOW.as_bytes());
        let name = found.and_then(|(name, ..)| std::str::from_utf8(name).ok()).map(str::to_owned);
        if let Some(name) = name.filter(|_| rules.is_some_and(|rules| rules.labels.is_empty())) {
            self.choose(number, name);
        }
    }

    fn choose(&mut self, number: u32, label: String) {
        let output = &self.list[number as usize];
        let key = (output.tenant, output.budget, metric_of(&output.labels).to_owned());
        let chosen = self.chosen.entry(key).or_default();
        if chosen.0 != label {
            *chosen = (label, Vec::new());
        }
        if !chosen.1.contains(&number) {
            chosen.1.push(number);
        }
    }

    /// The number of an output by its labels.
    fn open(&mut self, ground: Ground, of: (TenantNumber, u32), labels: Vec<u8>) -> u32 {
        let (tenant, budget) = of;
        let key = (tenant, labels);
        if let Some(&number) = self.by_labels.get(&key) {
            return number;
        }
        let number = self.list.len() as u32;
        let recorded = ground.registry.find(tenant, &key.1);
        self.list.push(Output {
            tenant,
            budget,
            labels: key.1.clone(),
            row: recorded.map(|row| ground.rows[row as usize]).filter(|&row| row != UNKNOWN),
            recorded,
            fed_hour: LONG_AGO,
            made_hour: None,
            hours_fed: 0,
            series: RoaringBitmap::new(),
        });
        self.by_labels.insert(key, number);
        self.folders.entry(of).or_default().outputs.push(number);
        number
    }

    fn is_fed(&self, number: u32, hours: i64) -> bool {
        self.list[number as usize].fed_hour >= self.hour.saturating_sub(hours)
    }

    /// The output of a series that a budget folds; None where there is no room for one more.
    pub fn aim(&mut self, ground: Ground, of: (TenantNumber, u32), labels: &[u8]) -> Option<u32> {
        let budget = &ground.table.budgets[of.1 as usize];
        let rules = budget.fold.as_ref()?;
        let overflow = match chooses(budget, rules) {
            false => {
                rules.labels.first().filter(|_| overflows(budget)).cloned().unwrap_or_default()
            }
            true => self.overflow_label(ground, of, labels),
        };
        self.aim_by(ground, of, labels, overflow)
    }

    /// The same of a series that is known by another output, which it was folded into.
    pub fn aim_again(
        &mut self,
        ground: Ground,
        of: (TenantNumber, u32),
        labels: &[u8],
    ) -> Option<Option<u32>> {
        let budget = &ground.table.budgets[of.1 as usize];
        let rules = budget.fold.as_ref()?;
        if !chooses(budget, rules) {
            return Some(self.aim(ground, of, labels));
        }
        let key = (of.0, of.1, metric_of(labels).to_owned());
        let (label, outputs) = self.chosen.get(&key)?;
        let held = outputs.iter().any(|&number| self.is_fed(number, SURELY_KEPT_HOURS));
        let label = Some(label.clone()).filter(|_| held)?;
        Some(self.aim_by(ground, of, labels, label))
    }

    /// The very output that was recorded: all went then as it goes now.
    pub fn aim_at(&mut self, ground: Ground, of: (TenantNumber, u32), labels: &[u8]) -> u32 {
        let number = self.open(ground, of, labels.to_vec());
        self.choose_known(ground, number);
        number
    }

    fn aim_by(
        &mut self,
        ground: Ground,
        of: (TenantNumber, u32),
        labels: &[u8],
        overflow: String,
    ) -> Option<u32> {
        let budget = &ground.table.budgets[of.1 as usize];
        let rules = budget.fold.as_ref()?;
        let key = (of.0, output_labels(labels, budget, rules, &overflow));
        let known = self.by_labels.get(&key).copied();
        if !self.has_room(of, known, rules.outputs_max) {
            return None;
        }
        let number = self.open(ground, of, key.1);
        if chooses(budget, rules) && !overflow.is_empty() {
            self.choose(number, overflow);
        }
        Some(number)
    }

    fn has_room(&mut self, of: (TenantNumber, u32), known: Option<u32>, most: u64) -> bool {
        if known.is_some_and(|number| self.is_fed(number, SURELY_KEPT_HOURS)) {
            return true;
        }
        let folder = self.folders.entry(of).or_default();
        if folder.full {
            return false;
        }
        let within = |hours: i64| self.hour.saturating_sub(hours);
        let (mut possible, mut sure) = (0, 0);
        for &number in folder.outputs.iter().filter(|&&number| Some(number) != known) {
            let fed_hour = self.list[number as usize].fed_hour;
            possible += u64::from(fed_hour == LONG_AGO || fed_hour >= within(SURELY_GONE_HOURS));
            sure += u64::from(fed_hour >= within(SURELY_KEPT_HOURS));
        }
        folder.full = sure >= most;
        self.unsure |= possible >= most && !folder.full;
        !folder.full
    }

    /// The label of a metric that overflows: chosen before, or now by what there is.
    fn overflow_label(&mut self, ground: Ground, of: (TenantNumber, u32), labels: &[u8]) -> String {
        let metric = metric_of(labels);
        let before = self.chosen.get(&(of.0, of.1, metric.to_owned()));
        if let Some((label, outputs)) = before
            && outputs.iter().any(|&number| self.is_fed(number, SURELY_KEPT_HOURS))
        {
            return label.clone();
        }
        let worst = self.worst_label(ground, of.0, metric, labels);
        if let Some((label, _)) = before
            && *label != worst
        {
            self.unsure = true;
        }
        worst
    }

    fn worst_label(
        &self,
        ground: Ground,
        tenant: TenantNumber,
        metric: &str,
        labels: &[u8],
    ) -> String {
        let made = |row: SeriesRow| (ground.rows[row as usize], Ok(row));
        let known = rows_of_metric(ground.registry, tenant, metric);
        let known = known.into_iter().map(made).filter(|(row, _)| *row != UNKNOWN);
        let own = self.list.iter().filter(|output| {
            output.recorded.is_none()
                && output.tenant == tenant
                && metric_of(&output.labels) == metric
        });
        let own = own.filter_map(|output| Some((output.row?, Err(output.labels.as_slice()))));
        let mut all: Vec<(SeriesRow, Result<SeriesRow, &[u8]>)> = known.chain(own).collect();
        all.sort_unstable_by_key(|(row, _)| std::cmp::Reverse(*row));
        all.truncate(ROWS_LOOKED_AT);
        worst_of(labels, |name| {
            let value = |of: &Result<SeriesRow, &'_ [u8]>| match of {
                Ok(row) => ground.registry.value_of(*row, name).to_vec(),
                Err(labels) => value_in(labels, name).to_vec(),
            };
            all.iter().map(|(_, of)| value(of)).collect::<BTreeSet<_>>().len()
        })
    }

    /// Something is folded into an output: a row of the registry, or so many inputs of a recorded
    /// output that have none there.
    pub fn feed(&mut self, number: u32, from: SeriesRow, without_row: Option<u64>) {
        let hour = self.hour;
        let output = &mut self.list[number as usize];
        output.hours_fed += u64::from(output.fed_hour != hour || output.hours_fed == 0);
        output.fed_hour = hour;
        let of = (output.tenant, output.budget);
        if without_row.is_none() {
            output.series.insert(from);
        }
        let folder = self.folders.entry(of).or_default();
        if folder.hours.back().is_none_or(|inputs| inputs.hour != hour) {
            folder.hours.push_back(Inputs { hour, ..Inputs::default() });
        }
        let Some(inputs) = folder.hours.back_mut() else { return };
        match without_row {
            None => drop(inputs.rows.insert(from)),
            Some(count) => *inputs.without_row.entry(from).or_default() += count,
        }
    }

    /// What a recorded budget folded is folded by other times now.
    pub fn fed_longer(&mut self, number: u32, before: &FoldRules, now: &FoldRules) {
        let output = &self.list[number as usize];
        let times = |rules: &FoldRules| (rules.grid_ms, rules.lateness_ms, rules.idle_ms);
        let longer = times(before) != times(now);
        self.folders.entry((output.tenant, output.budget)).or_default().longer |= longer;
    }

    /// At an hour's end: may there have been more inputs than there is room for?
    pub fn too_many_inputs(&mut self, table: &Table) -> bool {
        let (hour, mut all, mut full) = (self.hour, 0, false);
        for (&(_, budget), folder) in &mut self.folders {
            let Some(rules) = &table.budgets[budget as usize].fold else { continue };
            let lasting = rules.idle_ms + rules.grid_ms + rules.lateness_ms;
            let oldest = hour - lasting / HOUR_MS - INPUT_HOURS;
            folder.hours.retain(|inputs| inputs.hour >= oldest);
            let mut rows = RoaringBitmap::new();
            let mut without_row: HashMap<SeriesRow, u64, FxBuildHasher> = HashMap::default();
            for inputs in &folder.hours {
                rows |= &inputs.rows;
                for (&output, &count) in &inputs.without_row {
                    let sum = without_row.entry(output).or_default();
                    *sum = if folder.longer { *sum + count } else { (*sum).max(count) };
                }
            }
            let most = rows.len() + without_row.values().sum::<u64>();
            full |= most > rules.inputs_max;
            all += most;
        }
        full || all > INPUTS_MAX as u64
    }
}

fn overflows(budget: &Budget) -> bool {
    budget.action == super::budget::Action::Overflow
}

/// Is the label that overflows the shard's choice?
fn chooses(budget: &Budget, rules: &FoldRules) -> bool {
    overflows(budget) && rules.labels.is_empty()
}

/// Canonical labels of a row.
pub(super) fn labels_of(registry: &Registry, row: SeriesRow) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in registry.labels(row) {
        canonical::push_label(&mut out, name.as_bytes(), value.as_bytes());
    }
    out
}

fn value_in<'a>(labels: &'a [u8], name: &str) -> &'a [u8] {
    let mut known = canonical::labels(labels).filter_map(Result::ok);
    known.find(|(known, ..)| *known == name.as_bytes()).map_or(&[], |(_, value, _)| value)
}
