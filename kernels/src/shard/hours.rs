//! The journal's hours as they are recorded, so that they can be judged again by another policy.
//!
//! Invariant: what is recorded is a function of the records alone; an hour is `whole` only where
//! each first appearance in it is here, in order. docs/formats/hours.md has the bytes, and why the
//! first appearances are enough.

use super::budget::Budget;
use super::governor::THIS_HOUR;
use super::registry_bytes::{Input, Output, corrupt};
use crate::error::Result;
use crate::model::{SeriesRow, TenantNumber};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

const SECTION_VERSION: u8 = 1;
pub(super) const WHOLE: u8 = 1;
pub(super) const FOLLOWS: u8 = 2;
/// Refusers that fold name their outputs.
pub(super) const OUTPUTS: u8 = 4;
/// Of one hour; past them it is closed as not whole.
const EVENT_BYTES_MAX: usize = 64 << 20;
const REFUSERS_MAX: usize = 10_000;
/// Refused, and by no budget.
pub const NO_BUDGET: u32 = 0;

/// A budget of a tenant that refused a series, or folded it into an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuser {
    pub tenant: String,
    pub version: u32,
    /// Of the version's table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<u32>,
    pub budget: Budget,
    /// None where it was not folded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<SeriesRow>,
    /// The most inputs that the output had at once, of those folded in the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<u64>,
}

/// (tenant, policy version, place of the budget, output).
pub type RefuserKey = (TenantNumber, u32, u32, Option<SeriesRow>);

/// An hour that no record comes to any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedHour {
    pub hour: i64,
    pub first_row: SeriesRow,
    pub flags: u8,
    pub body: Vec<u8>,
}

/// Events as they come, a record after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Events {
    bytes: Vec<u8>,
    /// One more than the last row named; 0 is none.
    next_row: u32,
}

/// Recorder of the open hour.
#[derive(Default)]
pub struct History {
    flags: u8,
    events: Events,
    refusers: Vec<Refuser>,
    refuser_numbers: HashMap<RefuserKey, u32, FxBuildHasher>,
    /// By row: points in the open hour.
    pub(super) points: Vec<u32>,
    /// The record that is being applied.
    record: Vec<u8>,
    record_entries: u64,
    /// A run of refused series that the record's last entries are: (refuser, series).
    run: (u32, u64),
    pub closed: Vec<ClosedHour>,
}

/// The open hour as of one record.
pub struct OpenHour {
    flags: u8,
    events: Events,
    refusers: Vec<Refuser>,
    points: Vec<u32>,
}

impl History {
    /// The hour ends: `closing` is its number and first row, None where there was none. The next
    /// one `follows` it, or stands alone.
    pub fn roll(&mut self, closing: Option<(i64, SeriesRow)>, follows: bool, activity: &[u8]) {
        if let Some((hour, first_row)) = closing {
            let mut body = Output(Vec::with_capacity(self.events.bytes.len() + activity.len()));
            body.sized(&json(&self.refusers));
            body.sized(&self.events.bytes);
            let named = activity.iter().filter(|&&a| a == THIS_HOUR).count();
            body.number(named as u64);
            push_points(activity, &self.points, &mut body);
            self.closed.push(ClosedHour { hour, first_row, flags: self.flags, body: body.0 });
        }
        self.points.fill(0);
        self.events = Events::default();
        self.refusers.clear();
        self.refuser_numbers.clear();
        self.flags = WHOLE | OUTPUTS | if follows { FOLLOWS } else { 0 };
    }

    /// A record names a row for the first time in the hour.
    pub fn appeared(&mut self, row: SeriesRow) {
        self.end_run();
        let step = i64::from(row) - i64::from(self.events.next_row);
        let mut out = Output(std::mem::take(&mut self.record));
        out.number(1 + (((step << 1) ^ (step >> 63)) as u64));
        self.record = out.0;
        self.record_entries += 1;
        self.events.next_row = row + 1;
    }

    /// A series of the record has no row.
    pub fn refused(&mut self, refuser: u32) {
        if self.run.0 != refuser {
            self.end_run();
        }
        self.run = (refuser, self.run.1 + 1);
    }

    /// The number of a refuser, and whether this is its first time in the hour; `told` says then
    /// who it is.
    pub fn refuser(&mut self, key: RefuserKey, told: impl FnOnce() -> Refuser) -> (u32, bool) {
        if let Some(&number) = self.refuser_numbers.get(&key) {
            return (number, false);
        }
        if self.refusers.len() >= REFUSERS_MAX {
            self.flags &= !WHOLE;
            return (NO_BUDGET, false);
        }
        let told = told();
        // Numbers are not written: after a restart it may stand here already.
        let same = |known: &Refuser| {
            (known.output, known.version) == (told.output, told.version)
                && known.tenant == told.tenant
                && known.budget == told.budget
        };
        let known = self.refusers.iter().position(same);
        let place = known.unwrap_or_else(|| {
            self.refusers.push(told);
            self.refusers.len() - 1
        });
        let number = place as u32 + 1;
        self.refuser_numbers.insert(key, number);
        (number, known.is_none())
    }

    /// Points of a series went into an output, which has so many inputs now.
    pub fn folded(&mut self, key: RefuserKey, output: SeriesRow, points: u64, inputs: usize) {
        let place = output as usize;
        if self.points.len() <= place {
            self.points.resize((place + 1).next_power_of_two(), 0);
        }
        self.points[place] = self.points[place].saturating_add(points as u32);
        let number = self.refuser_numbers.get(&key).copied().unwrap_or(NO_BUDGET);
        if let Some(refuser) = self.refusers.get_mut((number as usize).wrapping_sub(1)) {
            refuser.inputs = refuser.inputs.max(Some(inputs as u64));
        }
    }

    fn end_run(&mut self) {
        let (refuser, series) = std::mem::take(&mut self.run);
        if series > 0 {
            let mut out = Output(std::mem::take(&mut self.record));
            out.number(0);
            out.number(u64::from(refuser));
            out.number(series);
            self.record = out.0;
            self.record_entries += 1;
        }
    }

    /// The record is over.
    pub fn end_record(&mut self) {
        self.end_run();
        if self.record_entries == 0 {
            return;
        }
        if self.events.bytes.len() + self.record.len() > EVENT_BYTES_MAX {
            self.flags &= !WHOLE;
        } else {
            let mut out = Output(std::mem::take(&mut self.events.bytes));
            out.number(self.record_entries);
            out.0.extend_from_slice(&self.record);
            self.events.bytes = out.0;
        }
        self.record.clear();
        self.record_entries = 0;
    }

    /// The open hour was not recorded from its beginning.
    pub fn begun_without(&mut self) {
        *self = History::default();
    }

    pub fn open_hour(&self) -> OpenHour {
        OpenHour {
            flags: self.flags,
            events: self.events.clone(),
            refusers: self.refusers.clone(),
            points: self.points.clone(),
        }
    }

    /// Take over what `OpenHour::encode` wrote beside the same `activity`.
    pub fn load(&mut self, bytes: &[u8], activity: &[u8]) -> Result<()> {
        let Some((&[version, flags], rest)) = bytes.split_first_chunk::<2>() else {
            return Err(corrupt("no section of an open hour"));
        };
        if version != SECTION_VERSION || flags > WHOLE | FOLLOWS | OUTPUTS {
            return Err(corrupt("not a section of an open hour of version 1"));
        }
        let mut input = Input(rest);
        let refusers = parse_refusers(input.sized()?)?;
        let events = input.sized()?.to_vec();
        let next_row = input.below(activity.len() + 1)?;
        let mut listed = Input(input.sized()?);
        let mut points = vec![0; activity.len()];
        for (row, _) in activity.iter().enumerate().filter(|(_, a)| **a == THIS_HOUR) {
            points[row] = u32::try_from(listed.number()?).map_err(|_| corrupt("points"))?;
        }
        if !input.0.is_empty() || !listed.0.is_empty() {
            return Err(corrupt("bytes after the open hour"));
        }
        *self = History {
            flags,
            events: Events { bytes: events, next_row },
            refusers,
            points,
            ..History::default()
        };
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        let closed: usize = self.closed.iter().map(|hour| hour.body.capacity()).sum();
        self.points.capacity() * 4 + self.events.bytes.capacity() + closed
    }
}

impl OpenHour {
    pub fn encode(&self, activity: &[u8]) -> Vec<u8> {
        let mut out = Output(vec![SECTION_VERSION, self.flags]);
        out.sized(&json(&self.refusers));
        out.sized(&self.events.bytes);
        out.number(u64::from(self.events.next_row));
        let mut points = Output(Vec::new());
        push_points(activity, &self.points, &mut points);
        out.sized(&points.0);
        out.0
    }
}

fn push_points(activity: &[u8], points: &[u32], out: &mut Output) {
    for (row, _) in activity.iter().enumerate().filter(|(_, a)| **a == THIS_HOUR) {
        out.number(u64::from(points.get(row).copied().unwrap_or_default()));
    }
}

fn json(refusers: &[Refuser]) -> Vec<u8> {
    serde_json::to_vec(refusers).expect("text and numbers are JSON")
}

fn parse_refusers(bytes: &[u8]) -> Result<Vec<Refuser>> {
    serde_json::from_slice(bytes).map_err(|_| corrupt("refusers: not JSON"))
}

/// One entry of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Row(SeriesRow),
    Refused { refuser: u32, series: u64 },
}

impl Entry {
    pub fn row(&self) -> Option<SeriesRow> {
        match self {
            Entry::Row(row) => Some(*row),
            Entry::Refused { .. } => None,
        }
    }
}

/// A recorded hour, decoded.
pub struct Recorded<'a> {
    pub refusers: Vec<Refuser>,
    events: Input<'a>,
    next_row: i64,
    row_count: usize,
    points: Input<'a>,
}

impl<'a> Recorded<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Recorded<'a>> {
        let mut input = Input(body);
        let refusers = parse_refusers(input.sized()?)?;
        let events = Input(input.sized()?);
        let row_count = input.count()?;
        Ok(Recorded { refusers, events, next_row: 0, row_count, points: input })
    }

    /// The entries of the next record into `entries`; false after the last one.
    pub fn next_record(&mut self, rows: usize, entries: &mut Vec<Entry>) -> Result<bool> {
        self.next_record_of(self.refusers.len(), rows, entries)
    }

    /// The same where the refusers, so many, were taken.
    pub fn next_record_of(
        &mut self,
        refusers: usize,
        rows: usize,
        entries: &mut Vec<Entry>,
    ) -> Result<bool> {
        entries.clear();
        if self.events.0.is_empty() {
            return Ok(false);
        }
        for _ in 0..self.events.count()? {
            let code = self.events.number()?;
            entries.push(if code == 0 {
                let refuser = self.events.below(refusers + 1)?;
                Entry::Refused { refuser, series: self.events.number()? }
            } else {
                let step = ((code - 1) >> 1) as i64 ^ -(((code - 1) & 1) as i64);
                let row = self.next_row.wrapping_add(step);
                if !(0..rows as i64).contains(&row) {
                    return Err(corrupt("an hour names a row beyond"));
                }
                self.next_row = row + 1;
                Entry::Row(row as SeriesRow)
            });
        }
        Ok(true)
    }

    /// Points of each row named in the hour, ascending by row; after the last record.
    pub fn points(mut self) -> Result<Vec<u64>> {
        let points = (0..self.row_count).map(|_| self.points.number()).collect::<Result<_>>()?;
        if self.points.0.is_empty() { Ok(points) } else { Err(corrupt("bytes after an hour")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_and_a_restart_goes_on() -> Result<()> {
        let activity = [THIS_HOUR, 1, THIS_HOUR, THIS_HOUR];
        let mut history = History::default();
        history.roll(None, false, &[]);
        history.points = vec![3, 0, 300, 0];
        for row in [0, 3] {
            history.appeared(row);
        }
        history.refused(NO_BUDGET);
        history.end_record();
        history.end_record();
        let bytes = history.open_hour().encode(&activity);
        let mut again = History::default();
        again.load(&bytes, &activity)?;
        for history in [&mut history, &mut again] {
            history.refused(NO_BUDGET);
            history.refused(NO_BUDGET);
            history.appeared(2);
            history.end_record();
            history.roll(Some((7, 1)), true, &activity);
        }
        assert_eq!(history.closed, again.closed);
        let closed = &history.closed[0];
        assert_eq!((closed.hour, closed.first_row, closed.flags), (7, 1, WHOLE | OUTPUTS));
        let mut recorded = Recorded::parse(&closed.body)?;
        let mut entries = Vec::new();
        assert!(recorded.next_record(4, &mut entries)?);
        let refused = |series| Entry::Refused { refuser: NO_BUDGET, series };
        assert_eq!(entries, [Entry::Row(0), Entry::Row(3), refused(1)]);
        assert!(recorded.next_record(4, &mut entries)?);
        assert_eq!(entries, [refused(2), Entry::Row(2)]);
        assert!(!recorded.next_record(4, &mut entries)?);
        assert_eq!(recorded.points()?, [3, 300, 0]);
        for cut in 0..bytes.len() {
            assert!(History::default().load(&bytes[..cut], &activity).is_err(), "cut at {cut}");
        }
        for cut in 0..closed.body.len() {
            let read = || -> Result<()> {
                let mut recorded = Recorded::parse(&closed.body[..cut])?;
                while recorded.next_record(4, &mut Vec::new())? {}
                recorded.points().map(drop)
            };
            assert!(read().is_err(), "cut at {cut}");
        }
        Ok(())
    }
}
