//! Resolve: a batch's series become rows. Known series flow unless a standing rule folds them; new
//! ones are judged, and what is refused is for refuse.rs.
//!
//! Invariant: a refused series leaves no trace in registry, index or buffer. The registry is held
//! for reading until a series is to be written: a flood of refused ones locks no query out.

use super::apply::{Applier, NewSeries, Policy, REFUSED};
use super::fold::{Fold, Target};
use super::fold_target::aim;
use super::governor::{Governor, Verdict};
use super::judged::Seen;
use super::ledger::Refusal;
use super::owner::Shard;
use super::registry::Registry;
use crate::error::KernelError;
use crate::journal::record::RecordHeader;
use crate::model::{Batch, SeriesRow, SeriesType, TenantNumber};
use crate::wire;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::ops::Deref;

/// Why a new series has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Rejected(Refusal),
    Governed(Verdict),
    Folded(Verdict, Target),
}

impl Refused {
    /// The verdict, if there was one, and the row that it folds into.
    fn verdict(&self) -> (Option<&Verdict>, Option<SeriesRow>) {
        match self {
            Refused::Governed(verdict) => (Some(verdict), None),
            Refused::Folded(verdict, target) => (Some(verdict), Some(target.output)),
            Refused::Rejected(_) => (None, None),
        }
    }
}

/// The registry while one record is resolved: held for reading, for writing from the first write
/// on. The applier alone writes, so nothing changes in between.
struct Access<'a> {
    lock: &'a RwLock<Registry>,
    held: Held<'a>,
    scratch: Vec<u8>,
}

enum Held<'a> {
    Read(RwLockReadGuard<'a, Registry>),
    Write(RwLockWriteGuard<'a, Registry>),
    Neither,
}

impl<'a> Access<'a> {
    fn new(lock: &'a RwLock<Registry>) -> Access<'a> {
        Access { lock, held: Held::Read(lock.read()), scratch: Vec::new() }
    }

    /// The series id of canonical labels, and their row if they have one.
    fn look_up(&mut self, new: &Newcomer) -> (u128, Option<SeriesRow>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let id = self.id_of(new.tenant, new.labels, &mut scratch);
        self.scratch = scratch;
        (id, self.find_id(new.tenant, new.labels, id))
    }

    fn write(&mut self) -> &mut Registry {
        if !matches!(self.held, Held::Write(_)) {
            self.held = Held::Neither;
            self.held = Held::Write(self.lock.write());
        }
        match &mut self.held {
            Held::Write(registry) => registry,
            _ => unreachable!("it was just taken"),
        }
    }
}

impl Deref for Access<'_> {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        match &self.held {
            Held::Read(registry) => registry,
            Held::Write(registry) => registry,
            Held::Neither => unreachable!("`write` leaves it held"),
        }
    }
}

/// The outermost rule: may any series that has no row yet have one?
pub(super) fn judge(policy: &Policy, series_held: u64) -> Option<Refusal> {
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
        applier.refusals.clear();
        // A record of another gateway may name a version that is not here yet: the one before it.
        let policies = &applier.policies;
        let policy = policies.range(..=header.policy_version).next_back();
        let policy = policy.or_else(|| policies.first_key_value()).map(|(_, policy)| *policy);
        let governor = &mut applier.governor;
        let mut unknown: Vec<u32> = Vec::new();
        let (tenant, rows_before) = {
            let registry = self.registry.read();
            let table = policy.map_or(0, |policy| policy.table);
            governor.explosions.begin(header.sequence, header.received_ms);
            governor.begin(&registry, header.received_ms, header.policy_version, table);
            applier.judged.begin(governor.meters_opened);
            let stands = governor.stands();
            let tenant = registry.tenant_number(&header.tenant);
            for (index, series) in batch.series.iter().enumerate() {
                let mut row = tenant.and_then(|tenant| registry.resolve(tenant, series.label_hash));
                if stands {
                    row = row.filter(|&row| !governor.stands_for(row));
                }
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
                let verdict = refused.next().map_or((None, None), |series| series.why.verdict());
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
        let Applier { governor, fold, judged, refusals, rows, .. } = applier;
        let mut registry = Access::new(&self.registry);
        let tenant = tenant.unwrap_or_else(|| registry.write().tenant(&header.tenant));
        let mut canonical = Vec::new();
        let before = registry.row_count();
        for &index in unknown {
            let series = &batch.series[index as usize];
            if rows[index as usize] == REFUSED {
                let known = judged.get(tenant, series.label_hash);
                let state = (&*registry, &mut *governor, &*fold);
                if let Some(seen) = known
                    && let Some(why) = refused_again(state, &seen, policy)
                {
                    refusals.add_unparsed(index, why, seen.label_bytes);
                    continue;
                }
                let labels = canonical_of(batch, index, &mut canonical);
                let series_type = series.series_type;
                let new = Newcomer { tenant, labels, series_type, received_ms: header.received_ms };
                match admit(&mut registry, governor, fold, &new, policy) {
                    Ok(row) => {
                        registry.write().remember_alias(tenant, series.label_hash, row);
                        rows[index as usize] = row;
                    }
                    Err((why, seen)) => {
                        refusals.add(index, why, labels);
                        if let Some(seen) = seen {
                            judged.remember(tenant, series.label_hash, seen);
                        }
                    }
                }
            }
            let (row, declared) = (rows[index as usize], series.series_type);
            if row != REFUSED
                && declared != SeriesType::Unknown
                && registry.series_type(row) != declared
            {
                registry.write().declare_type(row, declared);
            }
        }
        for family in &batch.metadata {
            registry.write().note_metadata(tenant, family);
        }
        let created = (registry.row_count() - before) as u64;
        applier.ledger.tenant(&header.tenant).series_created += created;
    }
}

/// A series of the batch by its canonical labels, which `made` holds where they were not sent so.
pub(super) fn canonical_of<'a>(batch: &'a Batch, index: u32, made: &'a mut Vec<u8>) -> &'a [u8] {
    let series = &batch.series[index as usize];
    let sent = &batch.label_bytes[series.label_start as usize..series.label_end as usize];
    if series.canonical {
        return sent;
    }
    made.clear();
    // Validated by the decoder; were it not, the registry refuses what comes out.
    let _ = wire::canonical_labels(sent, made);
    made
}

/// A series that may have no row yet.
pub(super) struct Newcomer<'a> {
    pub tenant: TenantNumber,
    /// Canonical.
    pub labels: &'a [u8],
    pub series_type: SeriesType,
    pub received_ms: i64,
}

/// A series that had no row before, judged by what its labels were found to mean. None where they
/// must be looked at: it may have a row now, or another budget refuses it.
fn refused_again(
    (registry, governor, fold): (&Registry, &mut Governor, &Fold),
    seen: &Seen,
    policy: Option<Policy>,
) -> Option<Refused> {
    let standing = governor.standing(seen.set);
    if standing.is_none() {
        if registry.has_id(seen.id) {
            return None;
        }
        let rows = registry.row_count() as u64;
        if let Some(refusal) = policy.and_then(|policy| judge(&policy, rows)) {
            return Some(Refused::Rejected(refusal));
        }
    }
    let verdict = standing.or_else(|| governor.judge(seen.set))?;
    if verdict.meter != seen.meter || (verdict.action.folds() && !fold.has_output(seen.output)) {
        return None;
    }
    if standing.is_none() && !governor.explosions.again(seen.explosion) {
        return None;
    }
    Some(if verdict.action.folds() {
        Refused::Folded(verdict, Target { output: seen.output, input: seen.id })
    } else {
        Refused::Governed(verdict)
    })
}

/// The row of a newcomer: known after all, or new if the judges let it in. Else why not, and what
/// is worth to be remembered of it.
fn admit(
    registry: &mut Access,
    governor: &mut Governor,
    fold: &mut Fold,
    new: &Newcomer,
    policy: Option<Policy>,
) -> Result<SeriesRow, (Refused, Option<Seen>)> {
    let (id, known) = registry.look_up(new);
    let mut set = None;
    if governor.stands() {
        let found = governor.set_of(registry, new.tenant, new.labels);
        if let Some(verdict) = governor.standing(found) {
            let seen = Seen { id, set: found, ..Seen::default() };
            return Err(fold_into((registry, governor, fold), new, verdict, seen, policy));
        }
        set = Some(found);
    }
    if let Some(row) = known {
        return Ok(row);
    }
    let rejected = |refusal| (Refused::Rejected(refusal), None);
    if let Some(refusal) = policy.and_then(|policy| judge(&policy, registry.row_count() as u64)) {
        return Err(rejected(refusal));
    }
    let set = set.unwrap_or_else(|| governor.set_of(registry, new.tenant, new.labels));
    if let Some(verdict) = governor.judge(set) {
        let explosion = governor.note_explosion(registry, verdict.meter, new.labels, true);
        let seen = Seen { id, set, explosion, ..Seen::default() };
        if verdict.action.folds() {
            return Err(fold_into((registry, governor, fold), new, verdict, seen, policy));
        }
        let label_bytes = new.labels.len() as u32;
        let seen = Seen { meter: verdict.meter, label_bytes, output: REFUSED, ..seen };
        return Err((Refused::Governed(verdict), Some(seen)));
    }
    let row = registry
        .write()
        .register_new(new.tenant, new.labels, id, new.series_type, new.received_ms)
        .map_err(|error| match error {
            KernelError::Overloaded { .. } => rejected(Refusal::SeriesMax),
            _ => rejected(Refusal::Labels),
        })?;
    if let Some(meter) = governor.past_soft(set) {
        governor.note_explosion(registry, meter, new.labels, false);
    }
    governor.registered(set);
    Ok(row)
}

/// A series is folded by a verdict, if there is an output for it.
fn fold_into(
    (registry, governor, fold): (&mut Access, &mut Governor, &mut Fold),
    new: &Newcomer,
    verdict: Verdict,
    seen: Seen,
    policy: Option<Policy>,
) -> (Refused, Option<Seen>) {
    match aim((registry.write(), governor, fold), new, verdict, seen.id, policy) {
        Ok(target) => {
            let label_bytes = new.labels.len() as u32;
            let (meter, output) = (verdict.meter, target.output);
            let seen = Seen { meter, output, label_bytes, ..seen };
            (Refused::Folded(verdict, target), Some(seen))
        }
        Err(why) => (why, None),
    }
}
