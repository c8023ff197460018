//! Pieces of a file: where they stand, and reading one.

use super::columns::{broken, put, put_differences, read, read_differences, read_u32};
use super::text::{Texts, put_texts};
use crate::codec::bytes::Cursor;
use crate::disk::{DiskFile, read_full};
use crate::error::{KernelError, Result};
use std::sync::Arc;

/// Where a piece stands and what it must come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub offset: u64,
    pub length: u32,
    pub crc32: u32,
}

impl Place {
    pub fn is_inside(&self, file_bytes: u64) -> bool {
        self.offset.checked_add(u64::from(self.length)).is_some_and(|end| end <= file_bytes)
    }
}

pub fn put_places(out: &mut Vec<u8>, places: &[Place]) {
    put_differences(out, &column(places, |place| place.offset as i64));
    put(out, &column(places, |place| i64::from(place.length)));
    put(out, &column(places, |place| i64::from(place.crc32)));
}

pub fn column<T>(rows: &[T], value: impl Fn(&T) -> i64) -> Vec<i64> {
    rows.iter().map(value).collect()
}

/// `count` must be bounded by something already checked.
pub fn read_places(cursor: &mut Cursor, count: usize, file_bytes: u64) -> Result<Vec<Place>> {
    let offsets = read_differences(cursor, count)?;
    let lengths = read_u32(cursor, count)?;
    let checksums = read_u32(cursor, count)?;
    let numbers = lengths.iter().zip(&checksums);
    offsets
        .iter()
        .zip(numbers)
        .map(|(&offset, (&length, &crc32))| {
            let place = Place { offset: offset as u64, length, crc32 };
            if place.is_inside(file_bytes) {
                Ok(place)
            } else {
                Err(broken("place outside the file"))
            }
        })
        .collect()
}

/// A label name and where its index stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    pub name: String,
    pub values: u64,
    /// Value list.
    pub list: Place,
    /// Posting of all series that have the label.
    pub all: Place,
}

pub fn put_names(out: &mut Vec<u8>, names: &[NameEntry]) -> Result<()> {
    put_texts(out, names.iter().map(|name| name.name.as_bytes()))?;
    put(out, &column(names, |name| name.values as i64));
    put_places(out, &names.iter().map(|name| name.list).collect::<Vec<Place>>());
    put_places(out, &names.iter().map(|name| name.all).collect::<Vec<Place>>());
    Ok(())
}

pub fn read_names(cursor: &mut Cursor, count: usize, file_bytes: u64) -> Result<Vec<NameEntry>> {
    let texts = Texts::read(cursor, count)?;
    let values = read(cursor, count)?;
    let lists = read_places(cursor, count, file_bytes)?;
    let all = read_places(cursor, count, file_bytes)?;
    (0..count)
        .map(|at| {
            Ok(NameEntry {
                name: texts.string(at)?.to_owned(),
                values: values[at] as u64,
                list: lists[at],
                all: all[at],
            })
        })
        .collect()
}

/// The part of a file that its places count from: all of a warm file, the index of a cold object.
pub struct Pieces {
    /// Named in errors; empty where whoever opened the file names it.
    pub path: String,
    pub file: Arc<dyn DiskFile>,
    pub offset: u64,
    pub bytes: u64,
}

impl Pieces {
    /// Read and check a piece.
    pub fn read(&self, place: Place) -> Result<Vec<u8>> {
        let mut bytes = vec![0; place.length as usize];
        let offset = self.offset + place.offset;
        let read = read_exact(&*self.file, offset, &mut bytes).and_then(|()| {
            if crc32fast::hash(&bytes) == place.crc32 { Ok(()) } else { Err(broken("checksum")) }
        });
        read.map_err(|error| self.named(error))?;
        Ok(bytes)
    }

    /// An error with the file's name.
    pub fn named(&self, error: KernelError) -> KernelError {
        match error {
            KernelError::Corruption(what) if !self.path.is_empty() => {
                KernelError::Corruption(format!("{}: {what}", self.path))
            }
            other => other,
        }
    }
}

pub fn read_exact(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let read = read_full(file, offset, buffer)?;
    if read == buffer.len() { Ok(()) } else { Err(broken("ends early")) }
}
