//! The governor as bytes: section 5 of a state file (docs/formats/policy.md).
//!
//! Invariant: what is taken at a freeze stands at the freeze's record, whatever is applied while it
//! is written; meters are not written, they follow from the rows.

use super::governor::{Governor, LAST_HOUR, LetterBytes, THIS_HOUR, Tallies};
use super::hours::OpenHour;
use super::registry::Registry;
use super::registry_bytes::{Input, Output, corrupt};
use crate::error::Result;
use crate::model::SeriesRow;
use roaring::RoaringBitmap;

const VERSION: u8 = 1;

/// A governor's state as of one record.
pub struct GovernorState {
    version: u32,
    named: u32,
    hour: i64,
    hour_first_row: SeriesRow,
    activity: Vec<u8>,
    tallies: Tallies,
    letter_bytes: LetterBytes,
    open_hour: OpenHour,
}

impl GovernorState {
    pub fn named(&self) -> u32 {
        self.named
    }

    /// Section 9 of the state file (docs/formats/hours.md).
    pub fn encode_open_hour(&self) -> Vec<u8> {
        self.open_hour.encode(&self.activity)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Output(vec![VERSION]);
        out.number(u64::from(self.version));
        out.number(u64::from(self.named));
        out.signed(self.hour);
        out.number(u64::from(self.hour_first_row));
        for wanted in [THIS_HOUR, LAST_HOUR] {
            let rows = self.activity.iter().enumerate().filter(|&(_, &a)| a == wanted);
            let mut rows: RoaringBitmap = rows.map(|(row, _)| row as SeriesRow).collect();
            rows.optimize();
            let mut bytes = Vec::with_capacity(rows.serialized_size());
            rows.serialize_into(&mut bytes).expect("a vector takes all bytes");
            out.sized(&bytes);
        }
        out.sized(&serde_json::to_vec(&self.tallies).expect("maps of numbers are JSON"));
        out.sized(&serde_json::to_vec(&self.letter_bytes).expect("maps of numbers are JSON"));
        out.0
    }
}

impl Governor {
    /// The state as it stands now: a copy, so that it can be written while records are applied.
    pub fn state(&self, registry: &Registry) -> GovernorState {
        GovernorState {
            version: self.version,
            named: self.named,
            hour: self.hour,
            hour_first_row: self.hour_first_row,
            activity: self.activity.clone(),
            tallies: self.tallies(registry),
            letter_bytes: self.letter_bytes.clone(),
            open_hour: self.history.open_hour(),
        }
    }

    /// Take over what `GovernorState::encode` wrote; the registry of the same file is loaded.
    pub fn load(&mut self, bytes: &[u8], rows: usize) -> Result<()> {
        let Some(rest) = bytes.strip_prefix(&[VERSION]) else {
            return Err(corrupt("not a governance section of version 1"));
        };
        let mut input = Input(rest);
        let small = |number: u64| u32::try_from(number).map_err(|_| corrupt("a number beyond u32"));
        let (version, named) = (small(input.number()?)?, small(input.number()?)?);
        let hour = input.signed()?;
        let hour_first_row = input.below(rows + 1)?;
        let mut activity = vec![0; rows];
        for value in [THIS_HOUR, LAST_HOUR] {
            let found = RoaringBitmap::deserialize_from(input.sized()?)?;
            for row in found {
                *activity.get_mut(row as usize).ok_or_else(|| corrupt("a row beyond"))? = value;
            }
        }
        let json = |_| corrupt("not JSON");
        let tallies = serde_json::from_slice(input.sized()?).map_err(json)?;
        let letter_bytes = serde_json::from_slice(input.sized()?).map_err(json)?;
        if !input.0.is_empty() {
            return Err(corrupt("bytes after the governance section"));
        }
        (self.version, self.named) = (version, named);
        (self.hour, self.hour_first_row, self.activity) = (hour, hour_first_row, activity);
        (self.tallies, self.letter_bytes) = (tallies, letter_bytes);
        self.history.begun_without();
        self.loaded();
        Ok(())
    }

    /// Take over what `encode_open_hour` wrote; the section before it is loaded.
    pub fn load_open_hour(&mut self, bytes: &[u8]) -> Result<()> {
        self.history.load(bytes, &self.activity)
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Table, Tally};
    use super::*;
    use crate::labels::canonical::push_label;
    use crate::model::SeriesType;

    const HOUR_MS: i64 = 3_600_000;

    fn registry_of(rows: usize) -> Registry {
        let mut registry = Registry::new(1);
        let tenant = registry.tenant("a");
        for row in 0..rows {
            let mut labels = Vec::new();
            push_label(&mut labels, b"__name__", b"up");
            push_label(&mut labels, b"id", row.to_string().as_bytes());
            assert!(registry.register(tenant, &labels, SeriesType::Unknown, 0).is_ok());
        }
        registry
    }

    fn table() -> Vec<Table> {
        let json = r#"{"format":1,"version":3,"stage":"enforce","letter_bytes_max":9,"letter_days":1,
            "budgets":[{"name":"x","tenant":"a","match":"name","metric":"up","labels":[],
            "active_soft":1,"active_hard":100,"new_soft":null,"new_hard":null,"action":"drop"}]}"#;
        Table::parse(json).into_iter().collect()
    }

    #[test]
    fn what_is_loaded_counts_on_and_what_is_damaged_is_refused() {
        let registry = registry_of(9);
        let mut governor = Governor::default();
        governor.set_tables(table());
        governor.begin(&registry, 5 * HOUR_MS, 8, 3);
        assert!((0..4).all(|row| governor.note(row)));
        governor.begin(&registry, 6 * HOUR_MS, 8, 3);
        assert!((2..7).all(|row| governor.note(row)));
        governor.tallies.entry("b".to_owned()).or_default().insert("y".into(), Tally::default());
        assert!(governor.charge("a", 6 * HOUR_MS, 9) && !governor.charge("a", 6 * HOUR_MS, 1));
        let bytes = governor.state(&registry).encode();

        let mut again = Governor::default();
        again.set_tables(table());
        assert!(again.load(&bytes, 9).is_ok());
        again.begin(&registry, 6 * HOUR_MS, 8, 3);
        assert_eq!(again.readings(&registry), [("a".to_owned(), 0, 7, 0)]);
        assert_eq!(again.readings(&registry), governor.readings(&registry));
        assert!(!again.charge("a", 6 * HOUR_MS, 1) && again.charge("a", 30 * HOUR_MS, 9));

        assert!(Governor::default().load(&bytes, 5).is_err(), "rows that are not there");
        for cut in 0..bytes.len() {
            assert!(Governor::default().load(&bytes[..cut], 9).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            // The state file's CRC notices it; here it must only not panic.
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = Governor::default().load(&damaged, 9);
        }
    }

    #[test]
    fn the_hour_follows_the_records_but_not_a_late_one() {
        let registry = registry_of(3);
        let mut governor = Governor::default();
        governor.set_tables(table());
        let mut at = |hour: i64| {
            governor.begin(&registry, hour * HOUR_MS, 1, 3);
            let active = governor.readings(&registry)[0].2;
            governor.note(0);
            active
        };
        let seen: Vec<u64> = [10, 10, 9, 11, 10, 12, 14, 3, 4].map(&mut at).to_vec();
        assert_eq!(seen, [0, 1, 1, 1, 1, 1, 0, 0, 1]);
    }
}
