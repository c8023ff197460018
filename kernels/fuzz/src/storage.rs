//! What is read from blocks and state files, as if the checksums were right.

use _kernels::codec::page::read_page;
use _kernels::disk::{Disk, MemoryDisk};
use _kernels::shard::block::Directory;
use _kernels::shard::block_reader::BlockReader;
use _kernels::shard::dedup::DedupWindow;
use _kernels::shard::governor::Governor;
use _kernels::shard::ledger::Ledger;
use _kernels::shard::page_cache::PageCache;
use _kernels::shard::registry::Registry;
use _kernels::shard::registry_state::Mark;
use _kernels::shard::state_file;

pub fn block(input: &[u8]) {
    let [kind, low, high, body @ ..] = input else { return };
    match kind % 4 {
        2 => drop(Directory::read(body, 1 << 16)),
        3 => whole_block(body),
        histograms => {
            let points = usize::from(*low) + (usize::from(*high) << 8);
            let Ok(page) = read_page(body, 0, points, histograms == 1) else { return };
            let held: usize = (0..page.series_count()).map(|series| page.times(series).len()).sum();
            assert_eq!(held, points);
        }
    }
}

fn whole_block(body: &[u8]) {
    let disk = MemoryDisk::new();
    disk.write_new("block", body).expect("a memory disk takes it");
    let Ok(reader) = BlockReader::open(&disk, "block", &PageCache::new(1 << 20)) else {
        return;
    };
    drop(reader.scan(&mut |_, times, values| {
        assert_eq!(times.len(), values.len());
        Ok(())
    }));
    drop(reader.scan_histograms(&mut |_, _, _| Ok(())));
}

pub fn state(input: &[u8]) {
    let [kind, body @ ..] = input else { return };
    match kind % 5 {
        0 => drop(state_file::decode(body)),
        1 => registry(body),
        2 => {
            let mut window = DedupWindow::new(1000);
            if window.apply(body) {
                assert!(DedupWindow::new(1000).apply(&window.encode(true)));
            }
        }
        3 => drop(Ledger::from_json(body)),
        _ => drop(Governor::default().load(body, 64)),
    }
}

/// What is taken over can be written again, and read again.
fn registry(body: &[u8]) {
    let mut registry = Registry::new(1);
    if registry.apply_delta(body).is_ok() {
        let mut again = Registry::new(2);
        assert!(again.apply_delta(&registry.encode_delta(&Mark::default())).is_ok());
        assert_eq!(again.row_count(), registry.row_count());
        for row in 0..registry.row_count() as u32 {
            assert_eq!(again.labels(row), registry.labels(row));
        }
    }
}
