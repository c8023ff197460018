//! A disk of which some files are elsewhere: they are read by position, through whoever has them.
//!
//! Invariant: a file of that name that is here goes first; one that is elsewhere is never written,
//! and what is read of it is checked by the reader (page and directory checksums), as on any disk.

use super::{Disk, DiskFile, parent};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Hands over (path, offset, length) of a file that is elsewhere: short only at its end.
pub type Fetch = dyn Fn(&str, u64, usize) -> io::Result<Vec<u8>> + Send + Sync;

pub struct ElsewhereDisk {
    inner: Arc<dyn Disk>,
    /// Bytes by path.
    files: Mutex<BTreeMap<String, u64>>,
    fetch: Arc<Fetch>,
}

impl ElsewhereDisk {
    pub fn new(
        inner: Arc<dyn Disk>,
        files: BTreeMap<String, u64>,
        fetch: Arc<Fetch>,
    ) -> ElsewhereDisk {
        ElsewhereDisk { inner, files: Mutex::new(files), fetch }
    }
}

impl Disk for ElsewhereDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.create(path)
    }
    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        match self.inner.open(path, write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !write => {
                let Some(bytes) = self.files.lock().get(path).copied() else { return Err(error) };
                let (path, fetch) = (path.to_owned(), self.fetch.clone());
                Ok(Arc::new(ElsewhereFile { path, bytes, fetch }))
            }
            other => other,
        }
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        let known = self.files.lock().remove(path).is_some();
        match self.inner.remove(path) {
            Err(error) if known && error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = self.inner.list(directory)?;
        let files = self.files.lock();
        let here = files.keys().filter(|path| parent(path) == directory);
        names.extend(here.filter_map(|path| Some(path.rsplit_once('/')?.1.to_owned())));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
    fn create_directory(&self, path: &str) -> io::Result<()> {
        self.inner.create_directory(path)
    }
    fn sync_directory(&self, path: &str) -> io::Result<()> {
        self.inner.sync_directory(path)
    }
    fn lock(&self) -> io::Result<()> {
        self.inner.lock()
    }
    fn used_bytes(&self) -> io::Result<u64> {
        self.inner.used_bytes()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

struct ElsewhereFile {
    path: String,
    bytes: u64,
    fetch: Arc<Fetch>,
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a file that is elsewhere is only read")
}

impl DiskFile for ElsewhereFile {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(read_only())
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        if left == 0 {
            return Ok(0);
        }
        let found = (self.fetch)(&self.path, offset, left)?;
        let length = found.len().min(left);
        buffer[..length].copy_from_slice(&found[..length]);
        Ok(length)
    }
    fn byte_size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
    fn set_byte_size(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn what_is_here_goes_first_and_the_rest_is_fetched_by_position() {
        let here = MemoryDisk::new();
        here.create_directory("b").unwrap();
        here.write_new("b/one", b"here").unwrap();
        let fetch: Arc<Fetch> = Arc::new(|path: &str, offset: u64, length: usize| {
            assert_eq!(path, "b/two");
            Ok(b"elsewhere"[offset as usize..][..length].to_vec())
        });
        let files = BTreeMap::from([("b/one".to_owned(), 9), ("b/two".to_owned(), 9)]);
        let disk = ElsewhereDisk::new(Arc::new(here), files, fetch);
        assert_eq!(disk.read_all("b/one").unwrap(), b"here");
        assert_eq!(disk.read_all("b/two").unwrap(), b"elsewhere");
        assert_eq!(disk.list("b").unwrap(), ["one", "two"]);
        let mut buffer = [0; 20];
        let file = disk.open("b/two", false).unwrap();
        assert_eq!(file.read_at(4, &mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"where");
        assert_eq!(file.read_at(9, &mut buffer).unwrap(), 0);
        assert!(file.write_at(0, b"x").is_err());
        assert!(disk.open("b/two", true).is_err());
        disk.remove("b/two").unwrap();
        assert!(disk.open("b/two", false).is_err());
        assert!(disk.remove("b/two").is_err());
        assert!(disk.open("b/three", false).is_err());
    }
}
