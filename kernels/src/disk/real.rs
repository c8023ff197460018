//! The real disk: a data directory held by its file descriptor.
//!
//! Invariant: every path is walked part by part from the root's descriptor with `O_NOFOLLOW`, so
//! no symbolic link, not even one put there later, leads a read or write out of the directory.

use super::{Disk, DiskFile, check_path, check_rename, parent};
use parking_lot::Mutex;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use std::io;
use std::sync::Arc;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const LOCK_FILE: &str = "lock";
/// `st_blocks` counts in this unit, whatever the file system's block is.
const STAT_BLOCK_BYTES: u64 = 512;

pub struct RealDisk {
    root: OwnedFd,
    lock: Mutex<Option<OwnedFd>>,
}

impl RealDisk {
    /// Opens the data directory and creates it (0700) where it is absent.
    pub fn new(root: &str) -> io::Result<RealDisk> {
        std::fs::create_dir_all(root)?;
        let root = fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(RealDisk { root, lock: Mutex::new(None) })
    }

    fn open_directory(&self, path: &str) -> io::Result<OwnedFd> {
        let mut at = self.root.try_clone()?;
        if path.is_empty() {
            return Ok(at);
        }
        check_path(path)?;
        for part in path.split('/') {
            at = retry_on_intr(|| fs::openat(&at, part, DIRECTORY, Mode::empty()))?;
        }
        Ok(at)
    }

    fn open_file(&self, path: &str, flags: OFlags) -> io::Result<Arc<dyn DiskFile>> {
        let (directory, name) = self.split(path)?;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = retry_on_intr(|| fs::openat(&directory, name, flags | FILE, mode))?;
        Ok(Arc::new(RealFile { fd }))
    }

    fn split<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        check_path(path)?;
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        Ok((self.open_directory(parent(path))?, name))
    }
}

fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        // Names that are not UTF-8 are not ours.
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn tree_bytes(directory: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = 0;
    for name in names(directory)? {
        let stat = match fs::statat(directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue, // removed since the listing
            Err(error) => return Err(error.into()),
        };
        bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * STAT_BLOCK_BYTES;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            match fs::openat(directory, name.as_str(), DIRECTORY, Mode::empty()) {
                Ok(child) => bytes += tree_bytes(child.as_fd())?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(bytes)
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(path, if write { OFlags::RDWR } else { OFlags::RDONLY })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_rename(from, to)?;
        let ((directory, from), (_, to)) = (self.split(from)?, self.split(to)?);
        Ok(fs::renameat(&directory, from, &directory, to)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (directory, name) = self.split(path)?;
        Ok(fs::unlinkat(&directory, name, AtFlags::empty())?)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        match self.open_directory(directory) {
            Ok(directory) => names(directory.as_fd()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn create_directory(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        let mut at = self.root.try_clone()?;
        for part in path.split('/') {
            match fs::mkdirat(&at, part, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => fs::fsync(&at)?,
                Err(error) => return Err(error.into()),
            }
            at = fs::openat(&at, part, DIRECTORY, Mode::empty())?;
        }
        Ok(())
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        Ok(retry_on_intr(|| fs::fsync(&self.open_directory(path).map_err(|e| errno(&e))?))?)
    }

    fn lock(&self) -> io::Result<()> {
        let mut held = self.lock.lock();
        if held.is_none() {
            let flags = OFlags::RDWR | OFlags::CREATE | FILE;
            let fd = fs::openat(&self.root, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)?;
            fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
            *held = Some(fd);
        }
        Ok(())
    }

    fn used_bytes(&self) -> io::Result<u64> {
        tree_bytes(self.root.as_fd())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

struct RealFile {
    fd: OwnedFd,
}

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < data.len() {
            // A short write is followed by its rest: what made it short then shows as an error.
            match retry_on_intr(|| pwrite(&self.fd, &data[at..], offset + at as u64))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => at += n,
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| pread(&self.fd, &mut *buffer, offset))?)
    }

    fn byte_size(&self) -> io::Result<u64> {
        Ok(u64::try_from(fs::fstat(&self.fd)?.st_size).unwrap_or(0))
    }

    fn set_byte_size(&self, bytes: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| fs::ftruncate(&self.fd, bytes))?)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match retry_on_intr(|| fs::fallocate(&self.fd, FallocateFlags::empty(), 0, bytes)) {
            // A file system that cannot reserve: a full disk then shows at the write instead.
            Err(Errno::OPNOTSUPP) => self.set_byte_size(bytes.max(self.byte_size()?)),
            answer => Ok(answer?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not retried, not even on EINTR: after an error the page cache is not to be trusted.
        Ok(fs::fdatasync(&self.fd)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let path =
            std::env::temp_dir().join(format!("sluiceway-disk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn stays_inside_its_directory() -> io::Result<()> {
        let (outside, root) = (scratch("outside"), scratch("inside"));
        std::fs::create_dir_all(&outside)?;
        std::fs::write(outside.join("secret"), b"secret")?;
        let disk = RealDisk::new(&root.to_string_lossy())?;
        std::os::unix::fs::symlink(&outside, root.join("link"))?;
        std::os::unix::fs::symlink(outside.join("secret"), root.join("file"))?;
        for path in ["../secret", "/etc/passwd", "a//b", "./a", "", "link/secret", "file"] {
            assert!(disk.open(path, false).is_err(), "{path}");
            assert!(disk.create(path).is_err(), "{path}");
        }
        assert!(disk.list("link").is_err());
        std::fs::remove_dir_all(outside)?;
        std::fs::remove_dir_all(root)
    }

    #[test]
    fn one_holder_of_the_lock() -> io::Result<()> {
        let root = scratch("lock");
        let (first, second) =
            (RealDisk::new(&root.to_string_lossy())?, RealDisk::new(&root.to_string_lossy())?);
        first.lock()?;
        first.lock()?;
        assert_eq!(second.lock().map_err(|e| e.kind()), Err(io::ErrorKind::WouldBlock));
        drop(first);
        second.lock()?;
        std::fs::remove_dir_all(root)
    }

    #[test]
    fn writes_lists_and_counts() -> io::Result<()> {
        let root = scratch("files");
        let disk = RealDisk::new(&root.to_string_lossy())?;
        disk.create_directory("a/b")?;
        disk.write_new("a/b/x", b"hello")?;
        assert_eq!(
            disk.write_new("a/b/x", b"again").map_err(|e| e.kind()),
            Err(io::ErrorKind::AlreadyExists)
        );
        assert_eq!(disk.read_all("a/b/x")?, b"hello");
        disk.rename("a/b/x", "a/b/y")?;
        let file = disk.open("a/b/y", true)?;
        file.allocate(1 << 20)?;
        assert!(disk.used_bytes()? >= 1 << 20);
        assert!(disk.free_bytes()? > 0);
        assert_eq!((disk.list("a/b")?, disk.list("none")?), (vec!["y".to_owned()], vec![]));
        std::fs::remove_dir_all(root)
    }
}
