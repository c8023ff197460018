//! Recorded hours judged again, record by record: the governor itself, with rows of its own.
//!
//! Invariant: what is told is what enforcement does to the same records, up to the first hour of
//! which `Report::estimated` was told (docs/formats/hours.md says when that is).

use super::budget::Table;
use super::governor::{Governor, NO_HOUR, THIS_HOUR, Verdict};
use super::hours::{Entry, FOLLOWS, NO_BUDGET, OUTPUTS, Recorded, Refuser};
use super::hours_file::StoredHour;
use super::registry::Registry;
use super::whatif_certain::{certainly, refolds};
use super::whatif_folds::{Ground, Outputs, labels_of};
use super::whatif_report::Report;
use crate::error::{KernelError, Result};
use crate::model::{SeriesRow, TenantNumber};
use hashbrown::HashMap;
use parking_lot::RwLock;
use roaring::RoaringBitmap;
use rustc_hash::FxBuildHasher;
use std::sync::Arc;

/// No row of the replay's.
pub(super) const UNKNOWN: SeriesRow = SeriesRow::MAX;
/// Rows counted, or records judged, between two looks at who asks.
const SLICE_ROWS: usize = 16 << 10;
const SLICE_RECORDS: usize = 64;

/// What became of a series in the current hour.
struct Fate {
    /// Of the registry.
    row: SeriesRow,
    meter: u32,
    folded: bool,
}

pub(super) struct Replay<'a> {
    registry: &'a RwLock<Registry>,
    check: &'a dyn Fn() -> Result<()>,
    governor: Governor,
    table: Arc<Table>,
    /// By row of the registry: the replay's row.
    rows: Vec<SeriesRow>,
    rows_made: SeriesRow,
    series_max: u64,
    /// Rows that the hour before the first one named.
    active_before: RoaringBitmap,
    outputs: Outputs,
    /// Something went otherwise than it was recorded.
    diverged: bool,
    fates: Vec<Fate>,
    /// Of sets refused in the current hour: the meter that did it first, and whether it folds.
    judged: HashMap<u32, (u32, bool), FxBuildHasher>,
    /// The same of recorded refusers, by their number in the hour.
    again: HashMap<u32, Option<(u32, bool)>, FxBuildHasher>,
    refusers: Vec<Refuser>,
    /// Outputs that the current record feeds.
    fed: Vec<u32>,
    report: Report,
}

impl<'a> Replay<'a> {
    pub fn new(
        registry: &'a RwLock<Registry>,
        mut table: Table,
        series_max: u64,
        report: Report,
        check: &'a dyn Fn() -> Result<()>,
    ) -> Replay<'a> {
        let mut governor = Governor::default();
        table.version = 1;
        let table = Arc::new(table);
        governor.set_table(table.clone());
        let rows = vec![UNKNOWN; registry.read().row_count()];
        Replay {
            registry,
            check,
            governor,
            table,
            rows,
            rows_made: 0,
            series_max,
            active_before: RoaringBitmap::new(),
            outputs: Outputs::default(),
            diverged: false,
            fates: Vec::new(),
            judged: HashMap::default(),
            again: HashMap::default(),
            refusers: Vec::new(),
            fed: Vec::new(),
            report,
        }
    }

    /// The hour before the first one.
    pub fn before(&mut self, stored: &StoredHour) -> Result<()> {
        let body = stored.body()?;
        let mut recorded = Recorded::parse(&body)?;
        let outputs = recorded.refusers.iter().filter_map(|refuser| refuser.output);
        self.active_before.extend(outputs);
        let mut entries = Vec::new();
        while recorded.next_record(self.rows.len(), &mut entries)? {
            self.active_before.extend(entries.iter().filter_map(Entry::row));
        }
        Ok(())
    }

    /// The first hour: what was made before it is known.
    pub fn begin(&mut self, stored: &StoredHour) -> Result<()> {
        let known = stored.first_row as usize;
        let known = self.rows.get_mut(..known).ok_or_else(too_many)?;
        known.iter_mut().enumerate().for_each(|(row, own)| *own = row as SeriesRow);
        let known = known.len();
        self.rows_made = stored.first_row;
        self.report.begin(stored.hour, known as u64);
        let governor = &mut self.governor;
        governor.activity = vec![0; known];
        governor.hour_first_row = stored.first_row;
        governor.hour = NO_HOUR;
        let mut active = std::mem::take(&mut self.active_before);
        if stored.flags & FOLLOWS == 0 {
            active.clear();
        } else {
            governor.hour = stored.hour - 1;
            for row in &active {
                *governor.activity.get_mut(row as usize).ok_or_else(too_many)? = THIS_HOUR;
            }
        }
        governor.open_meters();
        for start in (0..known).step_by(SLICE_ROWS) {
            (self.check)()?;
            let end = known.min(start + SLICE_ROWS);
            governor.count_rows(&self.registry.read(), start..end);
        }
        self.outputs.begin_hour(stored.hour);
        let registry = self.registry.read();
        let ground = Ground { registry: &registry, table: &self.table, rows: &self.rows };
        self.outputs.known_before(ground, stored.first_row, &active);
        Ok(())
    }

    pub fn hour(&mut self, stored: &StoredHour) -> Result<()> {
        self.close_hour();
        self.governor.roll(stored.hour, self.rows_made);
        self.governor.history.closed.clear();
        self.outputs.begin_hour(stored.hour);
        self.report.hour(stored.hour);
        let body = stored.body()?;
        let mut recorded = Recorded::parse(&body)?;
        self.refusers = std::mem::take(&mut recorded.refusers);
        let folded = |by: &Refuser| by.budget.action.folds();
        if stored.flags & OUTPUTS == 0 && self.refusers.iter().any(folded) {
            self.report.estimated(); // An older build's.
        }
        let mut named: Vec<SeriesRow> = self.refusers.iter().filter_map(|one| one.output).collect();
        let mut entries = Vec::new();
        let mut more = true;
        while more {
            (self.check)()?;
            let registry = self.registry.read();
            for _ in 0..SLICE_RECORDS {
                more =
                    recorded.next_record_of(self.refusers.len(), self.rows.len(), &mut entries)?;
                if !more {
                    break;
                }
                self.record(&registry, &entries);
                named.extend(entries.iter().filter_map(Entry::row));
            }
        }
        self.count_points(named, &recorded.points()?)
    }

    /// Judge one record as `Shard::resolve` does: what is new in order, then note what is known.
    fn record(&mut self, registry: &Registry, entries: &[Entry]) {
        let stands = self.governor.stands();
        for entry in entries {
            match *entry {
                Entry::Row(row) => {
                    let own = self.rows[row as usize];
                    let known = own != UNKNOWN;
                    if known && !(stands && self.governor.stands_for(own)) {
                        continue;
                    }
                    self.judge(registry, row);
                }
                Entry::Refused { refuser, series } => self.refused_then(registry, refuser, series),
            }
        }
        for row in entries.iter().filter_map(Entry::row) {
            let own = self.rows[row as usize];
            if own != UNKNOWN && !(stands && self.governor.stands_for(own)) {
                self.governor.note(own);
            }
        }
        for number in self.fed.drain(..) {
            if let Some(row) = self.outputs.list[number as usize].row {
                self.governor.note(row);
            }
        }
    }

    /// A series that has no row, or that a standing rule folds.
    fn judge(&mut self, registry: &Registry, row: SeriesRow) {
        let set = self.governor.set_of_row(registry, row);
        let standing = self.governor.standing(set);
        let Some(verdict) = standing.or_else(|| self.governor.judge(set)) else {
            self.governor.registered(set);
            self.rows[row as usize] = self.rows_made;
            self.rows_made += 1;
            self.report.made();
            return;
        };
        self.diverged = true;
        let folds = verdict.action.folds();
        self.judged.entry(set).or_insert((verdict.meter, folds));
        let mut output = None;
        if folds {
            let of = self.budget_of(&verdict);
            let labels = labels_of(registry, row);
            let ground = Ground { registry, table: &self.table, rows: &self.rows };
            output = self.outputs.aim(ground, of, &labels);
            if let Some(number) = output {
                self.feed(registry, number, row, None);
            }
        }
        if self.report.refused(row, verdict.meter, output) {
            let (meter, folded) = (verdict.meter, output.is_some());
            self.fates.push(Fate { row, meter, folded });
        }
    }

    fn budget_of(&self, verdict: &Verdict) -> (TenantNumber, u32) {
        let meters = self.governor.meters();
        let meter = meters.map(|meters| &meters.meters[verdict.meter as usize]);
        meter.map_or((0, 0), |meter| (meter.tenant, meter.budget))
    }

    /// Something goes into an output, which gets a row if it has none.
    fn feed(&mut self, registry: &Registry, number: u32, from: SeriesRow, inputs: Option<u64>) {
        self.outputs.feed(number, from, inputs);
        self.fed.push(number);
        let hour = self.governor.hour;
        let output = &mut self.outputs.list[number as usize];
        if output.row.is_some() {
            return;
        }
        let set = self.governor.set_of(registry, output.tenant, &output.labels);
        self.governor.counted(set);
        output.row = Some(self.rows_made);
        output.made_hour = Some(hour);
        if let Some(recorded) = output.recorded {
            self.rows[recorded as usize] = self.rows_made;
        }
        self.rows_made += 1;
        self.report.output_made();
        if u64::from(self.rows_made) >= self.series_max {
            self.report.estimated();
        }
    }

    /// Series that had no row then either, or were folded: what becomes of them now?
    fn refused_then(&mut self, registry: &Registry, refuser: u32, series: u64) {
        let place = (refuser != NO_BUDGET).then(|| refuser as usize - 1);
        let Some(by) = place.map(|place| self.refusers[place].clone()) else {
            self.report.without_row(series, false);
            return;
        };
        let known = registry.tenant_number(&by.tenant);
        let found = known.and_then(|tenant| Some((tenant, self.certainly(registry, tenant, &by)?)));
        let Some((tenant, meter)) = found else {
            self.again.insert(refuser, None);
            self.report.without_row(series, false);
            return;
        };
        let (place, folds) = self.governor.meters().map_or((0, false), |meters| {
            let folds = meters.budget(meter).action.folds();
            (meters.meters[meter as usize].budget, folds)
        });
        self.again.entry(refuser).or_insert(Some((meter, folds)));
        let certain = if folds {
            self.fold_again(registry, &by, (tenant, place), meter)
        } else {
            self.diverged |= by.output.is_some();
            let row = by.output;
            self.fates.extend(row.map(|row| Fate { row, meter, folded: false }));
            true
        };
        self.report.without_row(series, certain);
    }

    fn certainly(
        &mut self,
        registry: &Registry,
        tenant: TenantNumber,
        by: &Refuser,
    ) -> Option<u32> {
        let meters = self.governor.meters_mut()?;
        let mine = meters.of_tenant(registry, tenant);
        if !self.diverged && by.digest == Some(self.table.digest) {
            // The same policy on the same course: what did it then does it now.
            return mine.into_iter().find(|&meter| *meters.budget(meter) == by.budget);
        }
        certainly(meters, &mine, &by.budget)
    }

    /// Series that were refused are folded now; is it known into what?
    fn fold_again(
        &mut self,
        registry: &Registry,
        by: &Refuser,
        of: (TenantNumber, u32),
        meter: u32,
    ) -> bool {
        let table = self.table.clone();
        let now = &table.budgets[of.1 as usize];
        let same = *now == by.budget && !self.diverged;
        let Some(row) = by.output else {
            return same && now.action.folds(); // There was no room, and there is none.
        };
        let (Some(before), Some(rules)) = (&by.budget.fold, &now.fold) else { return false };
        if row as usize >= self.rows.len() {
            return false;
        }
        let labels = labels_of(registry, row);
        let ground = Ground { registry, table: &table, rows: &self.rows };
        let number = if same {
            Some(self.outputs.aim_at(ground, of, &labels))
        } else if !refolds((&by.budget, before), (now, rules)) {
            return false;
        } else if let Some(aimed) = self.outputs.aim_again(ground, of, &labels) {
            aimed
        } else {
            return false;
        };
        if let Some(number) = number {
            self.diverged |=
                *now != by.budget || self.outputs.list[number as usize].labels != labels;
            self.feed(registry, number, row, Some(by.inputs.unwrap_or_default()));
            self.outputs.fed_longer(number, before, rules);
        } else {
            self.diverged = true;
        }
        self.fates.push(Fate { row, meter, folded: number.is_some() });
        true
    }

    fn count_points(&mut self, mut named: Vec<SeriesRow>, points: &[u64]) -> Result<()> {
        named.sort_unstable();
        named.dedup();
        self.report.points(points.iter().sum());
        if named.len() != points.len() {
            // An older build's outputs were active too, and no record named them.
            self.report.estimated();
            self.fates.clear();
            return Ok(());
        }
        for Fate { row, meter, folded } in self.fates.drain(..) {
            if let Ok(place) = named.binary_search(&row) {
                self.report.refused_points(meter, points[place], folded);
            }
        }
        Ok(())
    }

    /// The hour is over: its figures, and what in it may have gone otherwise.
    fn close_hour(&mut self) {
        let Some(meters) = self.governor.meters() else { return };
        for (number, meter) in meters.meters.iter().enumerate() {
            self.report.meter(number as u32, meter.active(), meter.new);
        }
        let full = self.outputs.too_many_inputs(&self.table) || inputs_turned_away(&self.refusers);
        let mut unsure = self.outputs.take_unsure() || (full && self.diverged);
        let other = |before: (u32, bool), now: Option<(u32, bool)>| {
            now != Some(before) && (before.1 || now.is_none_or(|(_, folds)| folds))
        };
        for (set, before) in self.judged.drain() {
            // Its series may have come again after another budget was full, too.
            let now = self.governor.standing(set).or_else(|| self.governor.judge(set));
            unsure |= other(before, now.map(|verdict| (verdict.meter, verdict.action.folds())));
        }
        for (refuser, before) in self.again.drain() {
            let by = &self.refusers[refuser as usize - 1];
            let as_then = !self.diverged && by.digest == Some(self.table.digest);
            let Some(before) = before.filter(|_| !as_then) else { continue };
            let tenant = self.registry.read().tenant_number(&by.tenant);
            let Some(meters) = self.governor.meters_mut() else { continue };
            let mine = tenant.map(|tenant| meters.of_tenant(&self.registry.read(), tenant));
            let now = certainly(meters, &mine.unwrap_or_default(), &by.budget);
            unsure |= other(before, now.map(|now| (now, meters.budget(now).action.folds())));
        }
        if unsure {
            self.report.estimated();
        }
    }

    pub fn finish(mut self) -> Result<Report> {
        self.close_hour();
        if let Some(meters) = self.governor.meters() {
            self.report.name(&self.registry.read(), meters);
        }
        self.report.outputs(&self.registry.read(), &self.table, &self.outputs.list);
        let came_in = |row: SeriesRow| self.rows[row as usize] != UNKNOWN;
        self.report.finish(self.registry, &came_in, self.check)?;
        Ok(self.report)
    }
}

/// May a recorded budget have had more inputs than it took?
fn inputs_turned_away(refusers: &[Refuser]) -> bool {
    let mut inputs: HashMap<(&str, u32, &str), (u64, u64)> = HashMap::new();
    for by in refusers {
        let Some(rules) = &by.budget.fold else { continue };
        let key = (by.tenant.as_str(), by.version, by.budget.name.as_str());
        let of = inputs.entry(key).or_insert((0, rules.inputs_max));
        of.0 += by.inputs.unwrap_or_default();
    }
    inputs.values().any(|(held, most)| held >= most)
}

fn too_many() -> KernelError {
    KernelError::corruption("recorded hours: more rows than the registry has")
}
