//! The governor: how many series are active and new, and what becomes of one more.
//!
//! Decide, then apply: `judge` reads meters and changes nothing. Invariant: everything here is a
//! function of the records applied so far and of the tables they name, never of a clock or of when
//! a seal came; so a replay judges as the first time. docs/formats/policy.md.

use super::budget::{Action, Budget, Meter, Meters, NO_METERS, Stage, Table, Tally};
use super::explosions::{Explosions, Past};
use super::hour_sketches::Closing;
use super::hours::{History, NO_BUDGET, Refuser};
use super::letters::LetterReason;
use super::registry::Registry;
use crate::model::{SeriesRow, TenantNumber};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;
/// No record yet.
pub(super) const NO_HOUR: i64 = i64::MIN;
/// A row's activity: an hour's end shifts each of them right.
pub(super) const THIS_HOUR: u8 = 2;
pub(super) const LAST_HOUR: u8 = 1;

/// By tenant, then by budget.
pub type Tallies = BTreeMap<String, BTreeMap<String, Tally>>;
/// By tenant: letter bytes framed on each UTC day.
pub type LetterBytes = BTreeMap<String, BTreeMap<i64, u64>>;

/// Why a new series may not have a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub meter: u32,
    pub reason: LetterReason,
    pub action: Action,
}

pub struct Governor {
    tables: BTreeMap<u32, Arc<Table>>,
    /// Of the table in force; 0 is none.
    pub version: u32,
    /// The highest policy version that a record named.
    pub named: u32,
    pub(super) hour: i64,
    pub(super) hour_first_row: SeriesRow,
    /// By row: `THIS_HOUR`, `LAST_HOUR` or 0.
    pub(super) activity: Vec<u8>,
    meters: Option<Meters>,
    /// How often meters were opened: numbers of others mean nothing in these.
    pub(super) meters_opened: u64,
    /// Meters and activity do not stand for what was loaded, or for `version`.
    stale: bool,
    /// Of budgets and tenants that no meter stands for now.
    pub(super) tallies: Tallies,
    pub(super) letter_bytes: LetterBytes,
    pub(super) explosions: Explosions,
    /// Hours that the next seal records.
    pub(super) closing: Closing,
    /// What is needed to judge the hours again.
    pub history: History,
}

impl Default for Governor {
    fn default() -> Governor {
        Governor {
            tables: BTreeMap::new(),
            version: 0,
            named: 0,
            hour: NO_HOUR,
            hour_first_row: 0,
            activity: Vec::new(),
            meters: None,
            meters_opened: 0,
            stale: true,
            tallies: BTreeMap::new(),
            letter_bytes: BTreeMap::new(),
            explosions: Explosions::default(),
            closing: Closing::default(),
            history: History::default(),
        }
    }
}

impl Governor {
    /// Tables that policies may name, in the place of those before.
    pub fn set_tables(&mut self, tables: Vec<Table>) {
        self.tables = tables.into_iter().map(|table| (table.version, Arc::new(table))).collect();
    }

    /// One table alone, in force.
    pub(super) fn set_table(&mut self, table: Arc<Table>) {
        self.version = table.version;
        self.tables = std::iter::once((table.version, table)).collect();
    }

    /// State was loaded: count anew before the next record.
    pub(super) fn loaded(&mut self) {
        (self.meters, self.stale) = (None, true);
    }

    /// A record that is no duplicate comes: its hour, and the table that its policy names.
    pub fn begin(&mut self, registry: &Registry, received_ms: i64, policy: u32, table: u32) {
        self.named = self.named.max(policy);
        self.roll(received_ms.div_euclid(HOUR_MS), registry.row_count() as SeriesRow);
        if table > self.version && self.tables.contains_key(&table) {
            self.keep_tallies(registry);
            (self.version, self.stale) = (table, true);
        }
        if self.stale {
            self.activity.resize(registry.row_count(), 0);
            self.open_meters();
            self.count_rows(registry, 0..registry.row_count());
        }
    }

    /// Move on to the hour of a record. One of the hour before is late; one from further back shows
    /// that the clock was wrong before, so the hour follows it.
    pub(super) fn roll(&mut self, hour: i64, rows: SeriesRow) {
        if hour == self.hour || self.hour.checked_sub(1) == Some(hour) {
            return;
        }
        if self.hour != NO_HOUR {
            self.closing.close(self.hour, self.hour_first_row, &self.activity);
        }
        let next = self.hour.checked_add(1) == Some(hour);
        let closing = (self.hour != NO_HOUR).then_some((self.hour, self.hour_first_row));
        self.history.roll(closing, next, &self.activity);
        self.hour = hour;
        self.hour_first_row = rows;
        if next {
            self.activity.iter_mut().for_each(|activity| *activity >>= 1);
        } else {
            self.activity.fill(0);
        }
        for meter in self.meters.iter_mut().flat_map(|meters| &mut meters.meters) {
            meter.previous = if next { meter.current } else { 0 };
            (meter.current, meter.new) = (0, 0);
        }
    }

    /// Meters of the table in force, which count nothing yet.
    pub(super) fn open_meters(&mut self) {
        self.stale = false;
        self.meters_opened += 1;
        let table = self.tables.get(&self.version).filter(|table| !table.budgets.is_empty());
        self.meters = table.map(|table| Meters::new(table.clone()));
    }

    /// Count the next rows.
    pub(super) fn count_rows(&mut self, registry: &Registry, rows: Range<usize>) {
        let Some(meters) = &mut self.meters else { return };
        for row in rows {
            let activity = self.activity[row];
            let row = row as SeriesRow;
            let set = meters.set_of_row(registry, row);
            meters.add_row(set);
            if set == NO_METERS {
                continue;
            }
            let new = row >= self.hour_first_row;
            meters.each(set, |_, meter| {
                meter.current += u64::from(activity == THIS_HOUR);
                meter.previous += u64::from(activity == LAST_HOUR);
                meter.new += u64::from(new);
            });
        }
    }

    /// A record names a known row; is it the hour's first to do so?
    #[inline]
    pub fn note(&mut self, row: SeriesRow) -> bool {
        let first = self.activity[row as usize] != THIS_HOUR;
        if first {
            self.note_first(row);
        }
        first
    }

    #[cold]
    fn note_first(&mut self, row: SeriesRow) {
        let before = std::mem::replace(&mut self.activity[row as usize], THIS_HOUR);
        if let Some(meters) = &mut self.meters {
            let set = meters.row_set(row);
            meters.each(set, |_, meter| {
                meter.current += 1;
                meter.previous -= u64::from(before == LAST_HOUR);
            });
        }
    }

    /// The set of meters that a series would count for.
    #[inline]
    pub fn set_of(&mut self, registry: &Registry, tenant: TenantNumber, labels: &[u8]) -> u32 {
        let Some(meters) = &mut self.meters else { return NO_METERS };
        meters.set_of_labels(registry, tenant, labels)
    }

    /// The same of a series that has a row elsewhere.
    pub(super) fn set_of_row(&mut self, registry: &Registry, row: SeriesRow) -> u32 {
        let Some(meters) = &mut self.meters else { return NO_METERS };
        meters.set_of_row(registry, row)
    }

    pub(super) fn meters(&self) -> Option<&Meters> {
        self.meters.as_ref()
    }

    pub(super) fn meters_mut(&mut self) -> Option<&mut Meters> {
        self.meters.as_mut()
    }

    /// May a series that has no row yet have one? None: it may. Of several budgets the strongest
    /// action holds, among equals the first.
    pub fn judge(&self, set: u32) -> Option<Verdict> {
        let meters = self.meters.as_ref()?;
        let enforced = meters.table.stage == Stage::Enforce;
        let mut found: Option<Verdict> = None;
        for &number in meters.set(set) {
            let (meter, budget) = (&meters.meters[number as usize], meters.budget(number));
            let past = |hard: Option<u64>, count: u64| hard.is_some_and(|hard| count >= hard);
            let reason = if past(budget.active_hard, meter.active()) {
                LetterReason::ActiveSeries
            } else if past(budget.new_hard, meter.new) {
                LetterReason::NewSeriesPerHour
            } else {
                continue;
            };
            let action = if enforced || budget.always { budget.action } else { Action::Observe };
            if found.is_none_or(|found| found.action.strength() < action.strength()) {
                found = Some(Verdict { meter: number, reason, action });
            }
        }
        found.filter(|verdict| verdict.action != Action::Observe)
    }

    /// Are there rules in force that fold known series?
    #[inline]
    pub fn stands(&self) -> bool {
        self.meters.as_ref().is_some_and(|meters| meters.stands)
    }

    /// The standing rule that folds a set's series, whatever the meters say.
    pub fn standing(&self, set: u32) -> Option<Verdict> {
        let meters = self.meters.as_ref().filter(|meters| meters.stands)?;
        let meter = meters.standing(set)?;
        let action = meters.budget(meter).action;
        Some(Verdict { meter, reason: LetterReason::FoldFull, action })
    }

    /// Does a standing rule fold a known row's series?
    pub fn stands_for(&self, row: SeriesRow) -> bool {
        self.meters.as_ref().is_some_and(|meters| meters.standing(meters.row_set(row)).is_some())
    }

    /// The first of a series' meters that one more is past a soft limit of; a hard one stands for
    /// it where there is no other.
    #[inline]
    pub fn past_soft(&self, set: u32) -> Option<u32> {
        let meters = self.meters.as_ref()?;
        let past = |&&number: &&u32| {
            let (meter, budget) = (&meters.meters[number as usize], meters.budget(number));
            let active = budget.active_soft.or(budget.active_hard);
            let new = budget.new_soft.or(budget.new_hard);
            active.is_some_and(|soft| meter.active() >= soft)
                || new.is_some_and(|soft| meter.new >= soft)
        };
        meters.set(set).iter().find(past).copied()
    }

    /// A new series of these labels was let in, or refused, past a limit of a meter.
    #[cold]
    pub fn note_explosion(
        &mut self,
        registry: &Registry,
        meter: u32,
        labels: &[u8],
        refused: bool,
    ) -> u64 {
        let Some(meters) = &self.meters else { return 0 };
        let tenant = registry.tenant_name(meters.meters[meter as usize].tenant);
        let budget = &meters.budget(meter).name;
        self.explosions.note(&Past { tenant, budget, labels, refused })
    }

    /// A series that was judged got the next row.
    #[inline]
    pub fn registered(&mut self, set: u32) {
        self.next_row(set, |budget, meter| {
            let past = |limit: Option<u64>, count| limit.is_some_and(|limit| count >= limit);
            let over = |active, new| past(active, meter.active()) || past(new, meter.new);
            let soft = over(budget.active_soft, budget.new_soft);
            let hard = over(budget.active_hard, budget.new_hard);
            meter.tally.over_soft += u64::from(soft);
            meter.tally.observed += u64::from(hard);
        });
    }

    /// The next row counts for a set of meters.
    pub fn counted(&mut self, set: u32) {
        self.next_row(set, |_, _| {});
    }

    fn next_row(&mut self, set: u32, mut told: impl FnMut(&Budget, &mut Meter)) {
        self.activity.push(THIS_HOUR);
        let Some(meters) = &mut self.meters else { return };
        meters.add_row(set);
        if set == NO_METERS {
            return;
        }
        meters.each(set, |budget, meter| {
            told(budget, meter);
            meter.current += 1;
            meter.new += 1;
        });
    }

    /// Record that a series of a tenant has no row: by a verdict, or by none. A record that folds
    /// into an output names the output.
    pub fn note_refused(
        &mut self,
        tenant: &str,
        (verdict, output): (Option<&Verdict>, Option<SeriesRow>),
    ) {
        if let Some(row) = output {
            self.note(row);
        }
        let (Some(verdict), Some(meters)) = (verdict, &self.meters) else {
            self.history.refused(NO_BUDGET);
            return;
        };
        let meter = &meters.meters[verdict.meter as usize];
        let key = (meter.tenant, self.version, meter.budget, output);
        let (number, first) = self.history.refuser(key, || Refuser {
            tenant: tenant.to_owned(),
            version: self.version,
            digest: Some(meters.table.digest),
            budget: meters.budget(verdict.meter).clone(),
            output,
            inputs: None,
        });
        if first || output.is_none() {
            self.history.refused(number);
        }
    }

    /// The table by which is judged.
    pub fn table(&self) -> Option<Arc<Table>> {
        self.meters.as_ref().map(|meters| meters.table.clone())
    }

    /// The place in the table of a verdict's budget.
    pub fn budget_of(&self, verdict: &Verdict) -> Option<usize> {
        let meters = self.meters.as_ref()?;
        Some(meters.meters[verdict.meter as usize].budget as usize)
    }

    /// Bytes of letters that a tenant has room for.
    pub fn letter_room(&mut self, tenant: &str, received_ms: i64) -> u64 {
        let Some(table) = self.meters.as_ref().map(|meters| &meters.table) else { return 0 };
        let bytes_max = table.letter_bytes_max_of.get(tenant).copied();
        let bytes_max = bytes_max.unwrap_or(table.letter_bytes_max);
        let days = i64::from(table.letter_days);
        let today = received_ms.div_euclid(DAY_MS);
        if !self.letter_bytes.contains_key(tenant) {
            self.letter_bytes.insert(tenant.to_owned(), BTreeMap::new());
        }
        let Some(by_day) = self.letter_bytes.get_mut(tenant) else { return 0 };
        // Days ahead stay: a clock that was wrong makes no room.
        while by_day.first_key_value().is_some_and(|(&day, _)| day <= today - days) {
            by_day.pop_first();
        }
        bytes_max.saturating_sub(by_day.values().sum())
    }

    /// Is there room for a letter of a tenant? Then it is taken.
    pub fn charge(&mut self, tenant: &str, received_ms: i64, bytes: u64) -> bool {
        let fits = bytes <= self.letter_room(tenant, received_ms);
        if let Some(by_day) = self.letter_bytes.get_mut(tenant).filter(|_| fits) {
            *by_day.entry(received_ms.div_euclid(DAY_MS)).or_default() += bytes;
        }
        fits
    }

    /// What became of the points of a refused series.
    pub fn refused(&mut self, verdict: &Verdict, points: u64, kept: bool) {
        let Some(meters) = &mut self.meters else { return };
        let tally = &mut meters.meters[verdict.meter as usize].tally;
        tally.refused_series += 1;
        *(if kept { &mut tally.dead_lettered } else { &mut tally.discarded }) += points;
    }

    /// Points of a series went into an output, which has so many inputs now.
    pub fn folded(&mut self, verdict: &Verdict, output: SeriesRow, points: u64, inputs: usize) {
        let Some(meters) = &mut self.meters else { return };
        let meter = &mut meters.meters[verdict.meter as usize];
        meter.tally.folded += points;
        let key = (meter.tenant, self.version, meter.budget, Some(output));
        self.history.folded(key, output, points, inputs);
    }

    /// Before meters go: what they have counted stays.
    fn keep_tallies(&mut self, registry: &Registry) {
        self.tallies = self.tallies(registry);
    }

    /// All there ever were, those of the meters among them.
    pub fn tallies(&self, registry: &Registry) -> Tallies {
        let mut all = self.tallies.clone();
        let Some(meters) = &self.meters else { return all };
        for meter in meters.meters.iter().filter(|meter| meter.tally != Tally::default()) {
            let tenant = registry.tenant_name(meter.tenant).to_owned();
            let budget = meters.table.budgets[meter.budget as usize].name.clone();
            all.entry(tenant).or_default().entry(budget).or_default().add(&meter.tally);
        }
        all
    }

    /// The meters that count, for people: (tenant, budget's place, active, new in this hour).
    pub fn readings(&self, registry: &Registry) -> Vec<(String, u32, u64, u64)> {
        let meters = self.meters.iter().flat_map(|meters| &meters.meters);
        meters
            .filter(|meter| !registry.is_retired(meter.tenant))
            .map(|m| (registry.tenant_name(m.tenant).to_owned(), m.budget, m.active(), m.new))
            .collect()
    }

    /// A tenant's meters with their limits, in the document's order.
    pub fn standings(&self, registry: &Registry, tenant: &str) -> Vec<serde_json::Value> {
        let number = registry.tenant_number(tenant);
        let meters = self.meters.iter().flat_map(|meters| {
            let mine = meters.meters.iter().filter(|meter| Some(meter.tenant) == number);
            mine.map(|meter| (meter, &meters.table.budgets[meter.budget as usize]))
        });
        let told = meters.map(|(meter, budget)| {
            serde_json::json!({
                "budget": budget.name, "metric": budget.metric, "match": budget.kind,
                "action": budget.action,
                "active_series": meter.active(), "new_series": meter.new,
                "active_limit": {"soft": budget.active_soft, "hard": budget.active_hard},
                "new_limit": {"soft": budget.new_soft, "hard": budget.new_hard},
            })
        });
        told.collect()
    }

    pub fn memory_bytes(&self) -> usize {
        self.history.memory_bytes()
            + self.explosions.memory_bytes()
            + self.closing.memory_bytes()
            + self.activity.capacity()
            + self.meters.as_ref().map_or(0, Meters::memory_bytes)
    }
}
