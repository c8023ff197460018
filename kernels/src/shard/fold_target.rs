//! Which series is folded into which, and what folding emits: outputs are rows as any.
//!
//! Invariant: the output's labels are a function of the input's and of the budget (and, for
//! `overflow`, of the label that was chosen first); a row is made only where it is within
//! `outputs_max`.

use super::alive::day_of;
use super::apply::{Applier, Policy};
use super::budget::{Action, Budget, FoldRules};
use super::fold::{Emission, Fold, Kind, NewOutput, Target};
use super::governor::{Governor, Verdict};
use super::ledger::Refusal;
use super::letters::LetterReason;
use super::metadata::type_of_suffix;
use super::owner::Shard;
use super::registry::Registry;
use super::resolve::{Newcomer, Refused, judge};
use crate::error::KernelError;
use crate::labels::{METRIC_NAME, canonical};
use crate::model::{SeriesType, TenantNumber};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};

/// The label of each output: which budget folded it.
pub(super) const FOLDED_BY: &str = "folded_by";
/// The value of the label that overflows.
pub(super) const OVERFLOW: &str = "__overflow__";
/// Of a metric, to find its worst label: once a metric.
pub(super) const ROWS_LOOKED_AT: usize = 10_000;
/// Of a classic histogram or summary: without it, values that mean different things would be added.
const ALWAYS_KEPT: [&str; 3] = [METRIC_NAME, "le", "quantile"];

/// Where a series that a budget refuses is folded to; its output is registered if it is new.
pub(super) fn aim(
    (registry, governor, fold): (&mut Registry, &mut Governor, &mut Fold),
    new: &Newcomer,
    verdict: Verdict,
    input: u128,
    policy: Option<Policy>,
) -> Result<Target, Refused> {
    let full = Refused::Governed(Verdict { reason: LetterReason::FoldFull, ..verdict });
    let place = governor.budget_of(&verdict);
    let (Some(table), Some(place)) = (governor.table(), place) else { return Err(full) };
    let budget = &table.budgets[place];
    let Some(rules) = &budget.fold else { return Err(full) };
    let metric = metric_of(new.labels);
    let overflow_label = match budget.action {
        Action::Overflow => {
            let known = fold.overflowing(new.tenant, &budget.name, metric);
            let given = rules.labels.first().map(String::as_str).or(known);
            given.map_or_else(|| worst_label(registry, new, metric), str::to_owned)
        }
        _ => String::new(),
    };
    let labels = output_labels(new.labels, budget, rules, &overflow_label);
    let (id, known) = registry.look_up(new.tenant, &labels);
    let beginning = known.is_none_or(|row| !fold.has_output(row));
    if beginning && !fold.has_room(new.tenant, &budget.name, rules) {
        return Err(full);
    }
    let output = match known {
        Some(row) => row,
        None => {
            let rows = registry.row_count() as u64;
            if let Some(refusal) = policy.and_then(|policy| judge(&policy, rows)) {
                return Err(Refused::Rejected(refusal));
            }
            let set = governor.set_of(registry, new.tenant, &labels);
            let made =
                registry.register_new(new.tenant, &labels, id, new.series_type, new.received_ms);
            let row = made.map_err(|error| match error {
                KernelError::Overloaded { .. } => Refused::Rejected(Refusal::SeriesMax),
                _ => Refused::Rejected(Refusal::Labels),
            })?;
            governor.counted(set);
            row
        }
    };
    // One that the policy names is not chosen: another policy may name another.
    let overflow_label = if rules.labels.is_empty() { overflow_label } else { String::new() };
    let kind = kind_of(new.series_type, metric);
    let of = NewOutput { tenant: new.tenant, budget: &budget.name, metric, overflow_label, kind };
    fold.open_output(output, of, rules);
    Ok(Target { output, input })
}

/// Canonical labels of the series that a series is folded into.
pub(super) fn output_labels(
    labels: &[u8],
    budget: &Budget,
    rules: &FoldRules,
    overflow_label: &str,
) -> Vec<u8> {
    let named = |name: &[u8]| rules.labels.iter().any(|label| label.as_bytes() == name);
    let always = |name: &[u8]| ALWAYS_KEPT.iter().any(|kept| kept.as_bytes() == name);
    let stays = |name: &[u8]| match budget.action {
        Action::Strip => !named(name),
        Action::Overflow => always(name),
        _ => always(name) || named(name),
    };
    let known = canonical::labels(labels).filter_map(Result::ok);
    let mut kept: BTreeMap<&[u8], &[u8]> =
        known.filter(|(name, ..)| stays(name)).map(|(name, value, _)| (name, value)).collect();
    if !overflow_label.is_empty() {
        kept.insert(overflow_label.as_bytes(), OVERFLOW.as_bytes());
    }
    kept.insert(FOLDED_BY.as_bytes(), budget.name.as_bytes());
    let mut out = Vec::with_capacity(labels.len() + FOLDED_BY.len() + budget.name.len() + 2);
    kept.into_iter().for_each(|(name, value)| canonical::push_label(&mut out, name, value));
    out
}

pub(super) fn metric_of(labels: &[u8]) -> &str {
    let mut known = canonical::labels(labels).filter_map(Result::ok);
    let metric = known.find(|(name, ..)| *name == METRIC_NAME.as_bytes());
    metric.and_then(|(_, value, _)| std::str::from_utf8(value).ok()).unwrap_or("")
}

/// Of a series' labels the one with the most values among its metric's last series; of equals the
/// first. Empty where it has none that may go.
fn worst_label(registry: &Registry, new: &Newcomer, metric: &str) -> String {
    let rows = rows_of_metric(registry, new.tenant, metric);
    worst_of(new.labels, |name| {
        let last = rows.iter().rev().take(ROWS_LOOKED_AT);
        last.map(|row| registry.value_of(row, name)).collect::<BTreeSet<&[u8]>>().len()
    })
}

pub(super) fn rows_of_metric(
    registry: &Registry,
    tenant: TenantNumber,
    metric: &str,
) -> RoaringBitmap {
    let metric = registry.strings.find(metric.as_bytes());
    let index = &registry.tenants[tenant as usize].index;
    let pair = metric.and_then(|metric| index.find(registry.metric_name, metric));
    pair.map(|pair| index.posting(pair).to_bitmap()).unwrap_or_default()
}

/// The same, by a count of each label's values.
pub(super) fn worst_of(labels: &[u8], values_of: impl Fn(&str) -> usize) -> String {
    let mut worst = (None, String::new());
    let known = canonical::labels(labels).filter_map(Result::ok);
    for name in known.filter_map(|(name, ..)| std::str::from_utf8(name).ok()) {
        if ALWAYS_KEPT.contains(&name) {
            continue;
        }
        let values = values_of(name);
        if worst.0.is_none_or(|most| values > most) {
            worst = (Some(values), name.to_owned());
        }
    }
    worst.1
}

/// What a series measures, by what its request declares, else by its name.
fn kind_of(declared: SeriesType, metric: &str) -> Kind {
    let counted = || metric.ends_with("_count") || metric.ends_with("_sum");
    let counter = match declared {
        SeriesType::Counter | SeriesType::Histogram => true,
        SeriesType::Summary => counted(),
        SeriesType::Unknown => {
            matches!(type_of_suffix(metric), SeriesType::Counter | SeriesType::Histogram)
        }
        _ => false,
    };
    if counter { Kind::Counter } else { Kind::Gauge }
}

impl Shard {
    /// Points that folding made come into the stock; nobody sees them before the record's own.
    pub(super) fn emit(&self, emission: &Emission, applier: &mut Applier) {
        let count = (emission.floats.len() + emission.histograms.len()) as u64;
        if count == 0 {
            return;
        }
        let mut registry = self.registry.write();
        for (row, time_ms) in emission.points() {
            registry.note_alive(day_of(time_ms), &[row]);
            let tenant = registry.tenant_name(registry.key(row).tenant);
            applier.ledger.tenant(tenant).emitted += 1;
        }
        self.mark_emitted(&registry, emission, applier.next_sequence);
        drop(registry);
        let mut points = self.points.write();
        let buffer = &mut points.buffer;
        for point in &emission.floats {
            buffer.tail_rows.push(point.row);
            buffer.tail_times_ms.push(point.time_ms);
            buffer.tail_values.push(point.value);
        }
        for point in &emission.histograms {
            buffer.push_histogram(point.row, point.time_ms, &point.value);
        }
        buffer.points_added += count;
    }
}
