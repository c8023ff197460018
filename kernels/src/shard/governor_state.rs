//! The governor as bytes: section 5 of a state file (docs/formats/policy.md).
//!
//! Invariant: what is taken at a freeze stands at the freeze's record, whatever is applied while it
//! is written; meters are not written, they follow from the rows.

use super::governor::{Governor, LAST_HOUR, LetterBytes, THIS_HOUR, Tallies};
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
}

impl GovernorState {
    pub fn named(&self) -> u32 {
        self.named
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
        self.loaded();
        Ok(())
    }
}
