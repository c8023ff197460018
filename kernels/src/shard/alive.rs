//! Which rows had points on which UTC day. A selection over a time range leaves out the series
//! that were not alive in it: with churn most rows of a registry are dead on any one day.
//!
//! Invariant: a row is noted for a day before a point of that day can be asked for. What is noted
//! too much only costs time, what is missed would hide points.

use crate::model::SeriesRow;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

pub const DAY_MS: i64 = 86_400_000;

/// A range over more days than this is not narrowed: the union would cost more than it saves.
const DAYS_MAX: usize = 62;

struct Day {
    rows: RoaringBitmap,
    /// The registry's version when a row was last added.
    version: u64,
}

#[derive(Default)]
pub struct AliveDays {
    days: BTreeMap<i32, Day>,
    /// The day each row was last noted for: nearly every call ends here.
    last: Vec<i32>,
}

/// The UTC day of a time; far times share the first and the last one.
pub fn day_of(time_ms: i64) -> i32 {
    let day = time_ms.div_euclid(DAY_MS);
    day.clamp(i64::from(i32::MIN) + 1, i64::from(i32::MAX)) as i32
}

impl AliveDays {
    pub fn add_row(&mut self) {
        self.last.push(i32::MIN);
    }

    /// Returns whether anything was new; `version` then marks the day as changed.
    pub fn note(&mut self, day: i32, rows: &[SeriesRow], version: u64) -> bool {
        let mut changed = false;
        for &row in rows {
            let last = &mut self.last[row as usize];
            if *last == day {
                continue;
            }
            *last = day;
            let entry = self.days.entry(day);
            let entry = entry.or_insert_with(|| Day { rows: RoaringBitmap::new(), version });
            if entry.rows.insert(row) {
                entry.version = version;
                changed = true;
            }
        }
        changed
    }

    /// Leave in `rows` only those alive in [from_ms, until_ms).
    pub fn retain(&self, rows: &mut RoaringBitmap, from_ms: i64, until_ms: i64) {
        if until_ms <= from_ms {
            return rows.clear();
        }
        let days = day_of(from_ms)..=day_of(until_ms - 1);
        let mut days = self.days.range(days);
        if days.clone().nth(DAYS_MAX).is_some() {
            return;
        }
        let first = days.next().map(|(_, day)| &day.rows);
        match (first, days.next()) {
            (None, _) => rows.clear(),
            (Some(first), None) => *rows &= first,
            (Some(first), Some((_, second))) => {
                let mut alive = first | &second.rows;
                days.for_each(|(_, day)| alive |= &day.rows);
                *rows &= alive;
            }
        }
    }

    /// Forget days before this one: their points are gone.
    pub fn forget_before(&mut self, day: i32) {
        self.days = self.days.split_off(&day);
    }

    /// Days changed after `version`, with all their rows.
    pub fn changed(&self, version: u64) -> impl Iterator<Item = (i32, &RoaringBitmap)> {
        let changed = self.days.iter().filter(move |(_, day)| day.version > version);
        changed.map(|(&day, entry)| (day, &entry.rows))
    }

    /// Put a day back as it was written.
    pub fn restore(&mut self, day: i32, rows: RoaringBitmap, version: u64) {
        self.days.insert(day, Day { rows, version });
    }

    pub fn memory_bytes(&self) -> usize {
        let days: usize = self.days.values().map(|day| day.rows.serialized_size() + 64).sum();
        days + self.last.capacity() * 4
    }
}
