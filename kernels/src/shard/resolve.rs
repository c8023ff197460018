//! Resolve: a batch's series become rows. Known series always flow; new ones are judged, and what
//! is refused is rejected, folded, or framed as dead letters.
//!
//! Invariant: a refused series leaves no trace in registry, index or buffer; each of its points has
//! one outcome.

use super::apply::{Applier, NewSeries, Policy, REFUSED};
use super::fold::Target;
use super::fold_target::aim;
use super::governor::{Governor, Verdict};
use super::ledger::Refusal;
use super::letters::{Letter, LetterReason, frame};
use super::owner::Shard;
use super::registry::Registry;
use crate::error::KernelError;
use crate::journal::record::RecordHeader;
use crate::model::{Batch, HistogramPoint, SeriesRow, SeriesType, TenantNumber};
use crate::wire;
use std::ops::Range;

/// Why a new series has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Rejected(Refusal),
    Governed(Verdict),
    Folded(Verdict, Target),
}

impl Refused {
    fn verdict(&self) -> Option<&Verdict> {
        match self {
            Refused::Governed(verdict) | Refused::Folded(verdict, _) => Some(verdict),
            Refused::Rejected(_) => None,
        }
    }
}

/// One refused series of the batch; `labels` is where its canonical labels stand.
struct RefusedSeries {
    series_index: u32,
    why: Refused,
    labels: Range<usize>,
}

/// Series of one batch that were refused, ascending by their index.
#[derive(Default)]
pub struct Refusals {
    list: Vec<RefusedSeries>,
    label_bytes: Vec<u8>,
    /// (place in `list`, time, value); sorted by place.
    floats: Vec<(u32, (i64, f64))>,
    /// (place in `list`, number in the batch); sorted by place.
    histograms: Vec<(u32, usize)>,
    scratch: Vec<u8>,
    framed: Vec<u8>,
}

impl Refusals {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// The outermost rule: may any series that has no row yet have one?
fn judge(policy: &Policy, series_held: u64) -> Option<Refusal> {
    match policy.new_series {
        NewSeries::RefuseDisk => Some(Refusal::Disk),
        NewSeries::RefuseMemory => Some(Refusal::Memory),
        NewSeries::Accept if series_held >= policy.series_max => Some(Refusal::SeriesMax),
        NewSeries::Accept => None,
    }
}

impl Shard {
    /// Rows of the batch's series into `applier.rows`; new series are judged and registered.
    pub(super) fn resolve(&self, header: &RecordHeader, batch: &Batch, applier: &mut Applier) {
        applier.rows.clear();
        applier.refusals.list.clear();
        applier.refusals.label_bytes.clear();
        let policy = applier.policies.get(&header.policy_version).copied();
        let governor = &mut applier.governor;
        let mut unknown: Vec<u32> = Vec::new();
        let (tenant, rows_before) = {
            let registry = self.registry.read();
            let table = policy.map_or(0, |policy| policy.table);
            governor.explosions.begin(header.sequence, header.received_ms);
            governor.begin(&registry, header.received_ms, header.policy_version, table);
            let tenant = registry.tenant_number(&header.tenant);
            for (index, series) in batch.series.iter().enumerate() {
                let row = tenant.and_then(|tenant| registry.resolve(tenant, series.label_hash));
                let retyped = row.is_some_and(|row| {
                    series.series_type != SeriesType::Unknown
                        && registry.series_type(row) != series.series_type
                });
                if row.is_none() || retyped {
                    unknown.push(index as u32);
                }
                applier.rows.push(row.unwrap_or(REFUSED));
            }
            (tenant, registry.row_count() as SeriesRow)
        };
        if !unknown.is_empty() || !batch.metadata.is_empty() {
            self.resolve_unknown(header, batch, applier, (tenant, policy), &unknown);
        }
        // Last, so that the judge does not see which of the rows were found by their hash alone:
        // that cache is empty after a restart.
        let Applier { governor, rows, refusals, .. } = applier;
        let mut refused = refusals.list.iter();
        for &row in rows.iter() {
            if row == REFUSED {
                let verdict = refused.next().and_then(|series| series.why.verdict());
                governor.note_refused(&header.tenant, verdict);
            } else if governor.note(row) || row >= rows_before {
                governor.history.appeared(row);
            }
        }
        governor.history.end_record();
    }

    /// Rows of series that the cache does not know, or of which the type changes.
    fn resolve_unknown(
        &self,
        header: &RecordHeader,
        batch: &Batch,
        applier: &mut Applier,
        (tenant, policy): (Option<TenantNumber>, Option<Policy>),
        unknown: &[u32],
    ) {
        let governor = &mut applier.governor;
        let mut registry = self.registry.write();
        let tenant = tenant.unwrap_or_else(|| registry.tenant(&header.tenant));
        let mut canonical = Vec::new();
        let before = registry.row_count();
        for &index in unknown {
            let series = &batch.series[index as usize];
            if applier.rows[index as usize] == REFUSED {
                let sent =
                    &batch.label_bytes[series.label_start as usize..series.label_end as usize];
                canonical.clear();
                let labels = if series.canonical {
                    sent
                } else {
                    // Validated by the decoder; were it not, `admit` refuses what comes out.
                    let _ = wire::canonical_labels(sent, &mut canonical);
                    canonical.as_slice()
                };
                let new = Newcomer { tenant, labels, series_type: series.series_type };
                match admit(&mut registry, governor, &new, policy, header.received_ms) {
                    Ok(row) => {
                        registry.remember_alias(tenant, series.label_hash, row);
                        applier.rows[index as usize] = row;
                    }
                    Err(Refused::Governed(verdict)) if verdict.action.folds() => {
                        let state = (&mut *registry, &mut *governor, &mut applier.fold);
                        let why = match aim(state, &new, verdict, header.received_ms) {
                            Ok(target) => Refused::Folded(verdict, target),
                            Err(why) => why,
                        };
                        applier.refusals.add(index, why, labels);
                    }
                    Err(why) => applier.refusals.add(index, why, labels),
                }
            }
            let row = applier.rows[index as usize];
            if row != REFUSED && series.series_type != SeriesType::Unknown {
                registry.declare_type(row, series.series_type);
            }
        }
        for family in &batch.metadata {
            registry.note_metadata(tenant, family);
        }
        let created = (registry.row_count() - before) as u64;
        applier.ledger.tenant(&header.tenant).series_created += created;
    }

    /// Points of refused series: rejected and counted, folded, or dead letters while there is room.
    pub(super) fn refuse(&self, header: &RecordHeader, batch: &Batch, applier: &mut Applier) {
        let Applier { rows, refusals, governor, fold, letters, ledger, .. } = applier;
        refusals.gather(batch, rows);
        let outcomes = ledger.tenant(&header.tenant);
        let mut floats = refusals.floats.chunk_by(|a, b| a.0 == b.0).peekable();
        let mut histograms = refusals.histograms.iter().peekable();
        let mut values: Vec<(i64, f64)> = Vec::new();
        for (place, series) in refusals.list.iter().enumerate() {
            values.clear();
            if let Some(mine) = floats.next_if(|chunk| chunk[0].0 as usize == place) {
                values.extend(mine.iter().map(|(_, point)| *point));
            }
            let mut mine: Vec<&HistogramPoint> = Vec::new();
            while let Some(&(_, number)) = histograms.next_if(|h| h.0 as usize == place) {
                mine.push(&batch.histograms[number]);
            }
            let mut points = (values.len() + mine.len()) as u64;
            let mut verdict = match series.why {
                Refused::Rejected(refusal) => {
                    outcomes.refuse(refusal, points);
                    continue;
                }
                Refused::Governed(verdict) | Refused::Folded(verdict, _) => verdict,
            };
            let Some((table, budget)) = governor.budget_of(&verdict) else { continue };
            let budget = &table.budgets[budget];
            if let (Refused::Folded(_, target), Some(rules)) = (series.why, &budget.fold) {
                let why = fold.take(target, rules, &mut values);
                let left = (values.len() + mine.len()) as u64;
                governor.folded(&verdict, points - left);
                outcomes.folded += points - left;
                points = left;
                let unfolded = (!mine.is_empty()).then_some(LetterReason::FoldHistogram);
                let Some(reason) = unfolded.or(why) else { continue };
                verdict.reason = reason;
            }
            let letter = Letter {
                received_ms: header.received_ms,
                sequence: header.sequence,
                policy_version: governor.version,
                reason: verdict.reason,
                action: verdict.action,
                budget: &budget.name,
                labels: &refusals.label_bytes[series.labels.clone()],
                floats: &values,
                histograms: &mine,
            };
            frame(&letter, batch, &mut refusals.scratch, &mut refusals.framed);
            let bytes = refusals.framed.len() as u64;
            let kept = points > 0 && governor.charge(&header.tenant, header.received_ms, bytes);
            if kept {
                letters.push(&header.tenant, &refusals.framed, points, header.received_ms);
                outcomes.dead_lettered += points;
            } else {
                outcomes.discarded += points;
            }
            governor.refused(&verdict, points, kept);
        }
    }
}

impl Refusals {
    fn add(&mut self, series_index: u32, why: Refused, labels: &[u8]) {
        let start = self.label_bytes.len();
        if !matches!(why, Refused::Rejected(_)) {
            self.label_bytes.extend_from_slice(labels);
        }
        self.list.push(RefusedSeries { series_index, why, labels: start..self.label_bytes.len() });
    }

    /// The refused points, by series; of each series in the order sent.
    fn gather(&mut self, batch: &Batch, rows: &[SeriesRow]) {
        let list = &self.list;
        let place_of = |index: u32| {
            let place = || list.binary_search_by_key(&index, |series| series.series_index).ok();
            (rows[index as usize] == REFUSED).then(place).flatten().map(|place| place as u32)
        };
        let points = batch.point_series_index.iter().zip(&batch.point_time_ms);
        let points = points.zip(&batch.point_value);
        self.floats.clear();
        self.floats.extend(points.filter_map(|((&index, &time_ms), &value)| {
            place_of(index).map(|place| (place, (time_ms, value)))
        }));
        self.floats.sort_by_key(|(place, _)| *place);
        let histograms = batch.histograms.iter().enumerate();
        self.histograms.clear();
        self.histograms.extend(histograms.filter_map(|(number, histogram)| {
            place_of(histogram.series_index).map(|place| (place, number))
        }));
        self.histograms.sort_by_key(|(place, _)| *place);
    }
}

/// A series that may have no row yet.
pub(super) struct Newcomer<'a> {
    pub tenant: TenantNumber,
    /// Canonical.
    pub labels: &'a [u8],
    pub series_type: SeriesType,
}

/// The row of a newcomer: known after all, or new if the judges let it in.
fn admit(
    registry: &mut Registry,
    governor: &mut Governor,
    new: &Newcomer,
    policy: Option<Policy>,
    received_ms: i64,
) -> Result<SeriesRow, Refused> {
    let (id, known) = registry.look_up(new.tenant, new.labels);
    if let Some(row) = known {
        return Ok(row);
    }
    if let Some(refusal) = policy.and_then(|policy| judge(&policy, registry.row_count() as u64)) {
        return Err(Refused::Rejected(refusal));
    }
    let set = governor.set_of(registry, new.tenant, new.labels);
    if let Some(verdict) = governor.judge(set) {
        governor.note_explosion(registry, verdict.meter, new.labels, true);
        return Err(Refused::Governed(verdict));
    }
    let row = registry
        .register_new(new.tenant, new.labels, id, new.series_type, received_ms)
        .map_err(|error| match error {
            KernelError::Overloaded { .. } => Refused::Rejected(Refusal::SeriesMax),
            _ => Refused::Rejected(Refusal::Labels),
        })?;
    if let Some(meter) = governor.past_soft(set) {
        governor.note_explosion(registry, meter, new.labels, false);
    }
    governor.registered(set);
    Ok(row)
}
