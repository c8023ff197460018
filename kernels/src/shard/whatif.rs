//! What if another policy had judged the recorded hours: the governor itself, run over them again.
//!
//! Invariant: nothing of the live shard is changed or held: the registry is read in slices, the
//! governor and its rows are a copy of their own. The answer is what enforcement would have done,
//! series for series, up to the first hour that is told not to be exact (docs/formats/hours.md).

use super::budget::Table;
use super::freeze::read_checked;
use super::hours::{FOLLOWS, WHOLE};
use super::hours_file;
use super::owner::Shard;
use super::recover::HoursEntry;
use super::whatif_replay::Replay;
use super::whatif_report::Report;
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use serde::Deserialize;

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
        let policies = &self.applier.lock().policies;
        let series_max =
            policies.last_key_value().map_or(u64::MAX, |(_, policy)| policy.series_max);
        let mut replay = Replay::new(&self.registry, table, series_max, report, check);
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
