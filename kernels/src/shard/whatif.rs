//! What if another policy had judged the recorded hours: the governor itself, run over them again.
//!
//! Invariant: nothing of the live shard is changed or held: the registry is read in slices, the
//! governor and its rows are a copy of their own. The answer is what enforcement would have done,
//! series for series, up to the first hour that is told not to be exact (docs/formats/hours.md).

use super::budget::{Budget, Match, Table};
use super::freeze::read_checked;
use super::governor::{Governor, NO_HOUR, THIS_HOUR, Verdict};
use super::hours::{Entry, FOLLOWS, NO_BUDGET, Recorded, Refuser, WHOLE};
use super::hours_file::{self, StoredHour};
use super::owner::Shard;
use super::recover::HoursEntry;
use super::registry::Registry;
use super::whatif_report::Report;
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use crate::model::SeriesRow;
use parking_lot::RwLock;
use serde::Deserialize;

/// No row of the replay's.
const UNKNOWN: SeriesRow = SeriesRow::MAX;
/// Rows counted, or records judged, between two looks at who asks.
const SLICE_ROWS: usize = 16 << 10;
const SLICE_RECORDS: usize = 64;
const HOURS_MAX: i64 = 24 * 366;
const REFUSED_LIST_MAX: usize = 10_000;
/// Of one row while hours are judged again.
const ROW_BYTES: usize = 32;

#[derive(Debug, Deserialize)]
pub struct Request {
    /// The candidate, compiled.
    pub table: String,
    pub hours: i64,
    /// Refused series that are told by their labels.
    #[serde(default)]
    pub list_max: usize,
}

impl Shard {
    /// Bytes that `whatif` may hold at most, about.
    pub fn whatif_bytes(&self) -> usize {
        let files: u64 = self.points.read().hours.iter().map(|file| file.bytes).max().unwrap_or(0);
        self.registry.read().row_count() * ROW_BYTES + 8 * files as usize
    }

    /// Judge the last recorded hours by a candidate. Long; `check` is asked whether to go on.
    pub fn whatif(&self, request: &Request, check: &dyn Fn() -> Result<()>) -> Result<Report> {
        let refuse = |error: KernelError| {
            KernelError::client(400, "sluiceway-policy-invalid", error.to_string())
        };
        let table = Table::parse(&request.table).map_err(refuse)?;
        let files = self.points.read().hours.clone();
        let hours = list(&*self.disk, &files)?;
        let window = window(&hours, request.hours.clamp(1, HOURS_MAX));
        let report = Report::new(request.list_max.min(REFUSED_LIST_MAX));
        let Some(first) = window else { return Ok(report) };
        let mut replay = Replay::new(&self.registry, table, report, check);
        let mut open: Option<(usize, Vec<u8>)> = None;
        for (place, hour) in hours.iter().enumerate().skip(first.saturating_sub(1)) {
            if open.as_ref().is_none_or(|(file, _)| *file != hour.file) {
                open = Some((hour.file, read(&*self.disk, &files[hour.file])?));
            }
            let Some((_, bytes)) = &open else { continue };
            let stored = &hours_file::open(bytes)?[hour.place];
            if place >= first {
                if place == first {
                    replay.begin(stored)?;
                }
                replay.hour(stored)?;
            } else if hours[first].flags & FOLLOWS != 0 {
                replay.before(stored)?;
            }
        }
        replay.finish()
    }
}

/// Where an hour stands.
struct Listed {
    file: usize,
    place: usize,
    hour: i64,
    flags: u8,
}

fn read(disk: &dyn Disk, file: &HoursEntry) -> Result<Vec<u8>> {
    read_checked(disk, &file.path, file.bytes, file.crc32)
}

/// All hours that can be read, in the order in which they closed: from behind the last file that
/// is damaged, or has expired meanwhile.
fn list(disk: &dyn Disk, files: &[HoursEntry]) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for (file, entry) in files.iter().enumerate() {
        let Ok(bytes) = read(disk, entry) else {
            listed.clear();
            continue;
        };
        for (place, hour) in hours_file::open(&bytes)?.iter().enumerate() {
            listed.push(Listed { file, place, hour: hour.hour, flags: hour.flags });
        }
    }
    Ok(listed)
}

/// The first of the last `count` hours from which on all can be judged.
fn window(hours: &[Listed], count: i64) -> Option<usize> {
    let newest = hours.iter().map(|hour| hour.hour).max()?;
    let damaged = hours.iter().rposition(|hour| hour.flags & WHOLE == 0);
    let earliest = damaged.map_or(0, |place| place + 1);
    let recent = |place: &usize| hours[*place].hour > newest.saturating_sub(count);
    let sound = |place: &usize| hours[*place].flags & FOLLOWS == 0 || *place > earliest;
    (earliest..hours.len()).filter(recent).find(sound)
}

struct Replay<'a> {
    registry: &'a RwLock<Registry>,
    check: &'a dyn Fn() -> Result<()>,
    governor: Governor,
    /// By row of the registry: the replay's row.
    rows: Vec<SeriesRow>,
    rows_made: SeriesRow,
    /// Rows that the hour before the first one named.
    active_before: Vec<SeriesRow>,
    /// Refused in the current hour: (row, meter).
    refused: Vec<(SeriesRow, u32)>,
    report: Report,
}

impl<'a> Replay<'a> {
    fn new(
        registry: &'a RwLock<Registry>,
        mut table: Table,
        report: Report,
        check: &'a dyn Fn() -> Result<()>,
    ) -> Replay<'a> {
        let mut governor = Governor::default();
        table.version = 1;
        governor.set_tables(vec![table]);
        governor.version = 1;
        let rows = vec![UNKNOWN; registry.read().row_count()];
        let (active_before, refused) = (Vec::new(), Vec::new());
        Replay { registry, check, governor, rows, rows_made: 0, active_before, refused, report }
    }

    /// The hour before the first one.
    fn before(&mut self, stored: &StoredHour) -> Result<()> {
        let body = stored.body()?;
        let mut recorded = Recorded::parse(&body)?;
        let mut entries = Vec::new();
        while recorded.next_record(self.rows.len(), &mut entries)? {
            let named = entries.iter().filter_map(|entry| match entry {
                Entry::Row(row) => Some(*row),
                Entry::Refused { .. } => None,
            });
            self.active_before.extend(named);
        }
        Ok(())
    }

    /// The first hour: what was made before it is known.
    fn begin(&mut self, stored: &StoredHour) -> Result<()> {
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
        if stored.flags & FOLLOWS != 0 {
            governor.hour = stored.hour - 1;
            for row in self.active_before.drain(..) {
                *governor.activity.get_mut(row as usize).ok_or_else(too_many)? = THIS_HOUR;
            }
        }
        governor.open_meters();
        for start in (0..known).step_by(SLICE_ROWS) {
            (self.check)()?;
            let end = known.min(start + SLICE_ROWS);
            governor.count_rows(&self.registry.read(), start..end);
        }
        Ok(())
    }

    fn hour(&mut self, stored: &StoredHour) -> Result<()> {
        self.close_hour();
        self.governor.roll(stored.hour, self.rows_made);
        self.governor.history.closed.clear();
        self.report.hour(stored.hour);
        if self.governor.stands() {
            // What standing rules take from known series is not worked out here.
            self.report.estimated();
        }
        let body = stored.body()?;
        let mut recorded = Recorded::parse(&body)?;
        let refusers = recorded.refusers.clone();
        let (mut entries, mut named) = (Vec::new(), Vec::new());
        let mut more = true;
        while more {
            (self.check)()?;
            let registry = self.registry.read();
            for _ in 0..SLICE_RECORDS {
                more = recorded.next_record(self.rows.len(), &mut entries)?;
                if !more {
                    break;
                }
                self.record(&registry, &entries, &refusers);
                named.extend(entries.iter().filter_map(|entry| match entry {
                    Entry::Row(row) => Some(*row),
                    Entry::Refused { .. } => None,
                }));
            }
        }
        self.count_points(named, &recorded.points()?)
    }

    /// Judge one record as `Shard::resolve` does: what is new in order, then note what is known.
    fn record(&mut self, registry: &Registry, entries: &[Entry], refusers: &[Refuser]) {
        for entry in entries {
            match *entry {
                Entry::Row(row) if self.rows[row as usize] == UNKNOWN => self.judge(registry, row),
                Entry::Row(_) => {}
                Entry::Refused { refuser, series } => {
                    let by = refuser.checked_sub(1).map(|place| &refusers[place as usize]);
                    self.refused_then(registry, by.filter(|_| refuser != NO_BUDGET), series);
                }
            }
        }
        for entry in entries {
            if let Entry::Row(row) = entry
                && self.rows[*row as usize] != UNKNOWN
            {
                self.governor.note(self.rows[*row as usize]);
            }
        }
    }

    fn judge(&mut self, registry: &Registry, row: SeriesRow) {
        let set = self.governor.set_of_row(registry, row);
        match self.governor.judge(set) {
            None => {
                self.governor.registered(set);
                self.rows[row as usize] = self.rows_made;
                self.rows_made += 1;
                self.report.made();
            }
            Some(Verdict { meter, action, .. }) => {
                if action.folds() {
                    // What it would be folded into is not made here.
                    self.report.estimated();
                }
                if self.report.refused(row, meter) {
                    self.refused.push((row, meter));
                }
            }
        }
    }

    /// Series that had no row then either: would they have none now?
    fn refused_then(&mut self, registry: &Registry, by: Option<&Refuser>, series: u64) {
        let again = by.is_some_and(|by| {
            let tenant = (by.tenant.as_str(), registry.tenant_number(&by.tenant));
            self.governor.refuses_any(tenant, |budget| covers(budget, &by.budget))
        });
        self.report.without_row(series, again);
    }

    fn count_points(&mut self, mut named: Vec<SeriesRow>, points: &[u64]) -> Result<()> {
        named.sort_unstable();
        named.dedup();
        self.report.points(points.iter().sum());
        if named.len() != points.len() {
            // Outputs of folding were active too, and no record names them.
            self.report.estimated();
            self.refused.clear();
            return Ok(());
        }
        for (row, meter) in self.refused.drain(..) {
            if let Ok(place) = named.binary_search(&row) {
                self.report.refused_points(meter, points[place]);
            }
        }
        Ok(())
    }

    fn close_hour(&mut self) {
        let Some(meters) = self.governor.meters() else { return };
        for (number, meter) in meters.meters.iter().enumerate() {
            self.report.meter(number as u32, meter.active(), meter.new);
        }
    }

    fn finish(mut self) -> Result<Report> {
        self.close_hour();
        if let Some(meters) = self.governor.meters() {
            self.report.name(&self.registry.read(), meters);
        }
        let came_in = |row: SeriesRow| self.rows[row as usize] != UNKNOWN;
        self.report.finish(self.registry, &came_in, self.check)?;
        Ok(self.report)
    }
}

fn too_many() -> KernelError {
    KernelError::corruption("recorded hours: more rows than the registry has")
}

/// Does `wide` count each series that `narrow` counts, of a tenant that both have?
fn covers(wide: &Budget, narrow: &Budget) -> bool {
    let metrics = match (wide.kind, narrow.kind) {
        (Match::All, _) => true,
        (Match::Name, Match::Name) => wide.metric == narrow.metric,
        (Match::Prefix, Match::Name | Match::Prefix) => narrow.metric.starts_with(&wide.metric),
        _ => false,
    };
    metrics && wide.labels.iter().all(|label| narrow.labels.contains(label))
}
