//! The page and directory readers over any bytes, as if their checksums were right. A crash is a
//! finding; so is a page that does not add up.
#![no_main]

use _kernels::codec::page::read_page;
use _kernels::shard::block::Directory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [kind, low, high, body @ ..] = input else { return };
    if kind % 3 == 2 {
        let _ = Directory::read(body, 1 << 16);
        return;
    }
    let points = usize::from(*low) + (usize::from(*high) << 8);
    let Ok(page) = read_page(body, 0, points, kind % 3 == 1) else { return };
    let held: usize = (0..page.series_count()).map(|series| page.times(series).len()).sum();
    assert_eq!(held, points);
});
