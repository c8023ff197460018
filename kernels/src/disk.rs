//! The disk, passed in. Every durable byte of the product goes through this trait: the real disk,
//! a faulty one and an in-memory one whose pages and directory entries are volatile until synced.
//!
//! Paths are relative to the data directory, `/`-separated, never empty, never with `..`.

use std::io;
use std::sync::Arc;

pub trait DiskFile: Send + Sync {
    /// Write all of `data` at `offset`. Volatile until `sync_data`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Read up to `buffer.len()` bytes; short only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    fn byte_size(&self) -> io::Result<u64>;
    fn set_byte_size(&self, bytes: u64) -> io::Result<()>;
    /// Reserve `bytes` from the start so that a later write cannot meet a full disk.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// fdatasync. After an error the file must not be synced again, nor its page cache trusted.
    fn sync_data(&self) -> io::Result<()>;
}

pub trait Disk: Send + Sync {
    /// Create a new file for reading and writing; `AlreadyExists` if it is there.
    /// The directory entry is volatile until `sync_directory`.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Names (not paths) in a directory, sorted; empty where the directory is absent.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Create a directory and its parents, durably.
    fn create_directory(&self, path: &str) -> io::Result<()>;
    fn sync_directory(&self, path: &str) -> io::Result<()>;

    fn read_all(&self, path: &str) -> io::Result<Vec<u8>> {
        let file = self.open(path, false)?;
        let mut bytes = vec![0; usize::try_from(file.byte_size()?).map_err(io::Error::other)?];
        let mut at = 0;
        while at < bytes.len() {
            let n = file.read_at(at as u64, &mut bytes[at..])?;
            if n == 0 {
                break;
            }
            at += n;
        }
        bytes.truncate(at);
        Ok(bytes)
    }
}
