//! Reading a whole dictionary back: every checksum compared, every page decoded.

use super::Dictionary;
use super::columns::broken;
use super::index::{ValueList, ValuePage, read_posting};
use crate::error::Result;
use roaring::RoaringBitmap;

impl Dictionary {
    /// Bytes of its pieces. `Corruption` where one is not what was written.
    pub fn verify(&self) -> Result<u64> {
        Ok(self.verify_labels()? + self.verify_index()?)
    }

    fn verify_labels(&self) -> Result<u64> {
        let mut bytes = 0;
        for (number, place) in self.places.label_pages.iter().enumerate() {
            self.label_page(number)?;
            bytes += u64::from(place.length);
        }
        Ok(bytes)
    }

    /// Every value's series must exist, and those of a name be those of its values.
    fn verify_index(&self) -> Result<u64> {
        let mut bytes = 0;
        for name in &self.places.names {
            let mut read = |place| {
                let piece = self.pieces.read(place)?;
                bytes += piece.len() as u64;
                Ok(piece)
            };
            let all = read_posting(&read(name.all)?)?;
            let list = ValueList::read(&read(name.list)?, self.pieces.bytes)?;
            let mut series = RoaringBitmap::new();
            let mut values = 0;
            for &place in &list.pages {
                let page = ValuePage::read(&read(place)?, self.pieces.bytes)?;
                values += page.texts().len() as u64;
                (0..page.texts().len())
                    .try_for_each(|at| page.series(at, &mut read, &mut series))?;
            }
            let beyond = all.max().is_some_and(|last| last >= self.series);
            if series != all || beyond || values != name.values {
                return Err(self.pieces.named(broken("index of a name")));
            }
        }
        Ok(bytes)
    }
}
