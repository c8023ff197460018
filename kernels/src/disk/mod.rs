//! The disk, passed in. Every durable byte of the product goes through this trait: the real disk,
//! a faulty one and an in-memory one whose pages and directory entries are volatile until synced.
//!
//! Paths are relative to the data directory, `/`-separated, never empty, never with `..`. The
//! empty path names the data directory itself, where a directory is asked for.

pub mod elsewhere;
pub mod faulty;
pub mod memory;
pub mod real;
mod volatile;

pub use elsewhere::ElsewhereDisk;
pub use faulty::{FaultPlan, FaultyDisk};
pub use memory::MemoryDisk;
pub use real::RealDisk;

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
    /// What a failed fdatasync leaves on Linux: dirty pages marked clean without being written,
    /// so that the next fdatasync succeeds and saves nothing. Only the in-memory disk acts on it.
    fn lose_unsynced(&self) {}
}

pub trait Disk: Send + Sync {
    /// Create a new file for reading and writing; `AlreadyExists` if it is there.
    /// The directory entry is volatile until `sync_directory`.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Atomic, replacing `to`; both in one directory. Volatile until `sync_directory`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Names (not paths) in a directory, sorted; empty where the directory is absent.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Create a directory and its parents, durably.
    fn create_directory(&self, path: &str) -> io::Result<()>;
    fn sync_directory(&self, path: &str) -> io::Result<()>;
    /// Hold the data directory for this disk alone until the disk is dropped; `WouldBlock` where
    /// another process has it.
    fn lock(&self) -> io::Result<()>;
    /// Bytes the data directory takes.
    fn used_bytes(&self) -> io::Result<u64>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;

    fn read_all(&self, path: &str) -> io::Result<Vec<u8>> {
        let file = self.open(path, false)?;
        let mut bytes = vec![0; usize::try_from(file.byte_size()?).map_err(io::Error::other)?];
        let length = read_full(&*file, 0, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Durable and create-only: when it returns, the file and its name survive a power cut.
    fn write_new(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.create(path)?;
        let written = file
            .write_at(0, bytes)
            .and_then(|()| if crate::mutants::on("no_fsync") { Ok(()) } else { file.sync_data() })
            .and_then(|()| sync_parent(self, path));
        if written.is_err() {
            // Best effort: a torn file of this name would stand in the way of the next try.
            let _ = self.remove(path);
        }
        written
    }
}

/// The directory part of a path; empty for the data directory itself.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Make the directory entry of `path` durable.
pub fn sync_parent<D: Disk + ?Sized>(disk: &D, path: &str) -> io::Result<()> {
    if crate::mutants::on("no_directory_fsync") {
        return Ok(());
    }
    disk.sync_directory(parent(path))
}

/// Fill `buffer` from `offset` on; returns how much there was.
pub fn read_full(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match file.read_at(offset + at as u64, &mut buffer[at..])? {
            0 => break,
            n => at += n,
        }
    }
    Ok(at)
}

/// Refuses what could leave the data directory: absolute paths, `.`, `..`, empty parts, NUL.
fn check_path(path: &str) -> io::Result<()> {
    let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.split('/').all(sound) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("not a path in the data directory: {path:?}"),
    ))
}

fn check_rename(from: &str, to: &str) -> io::Result<()> {
    check_path(from)?;
    check_path(to)?;
    if parent(from) == parent(to) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "a rename stays in its directory"))
}
