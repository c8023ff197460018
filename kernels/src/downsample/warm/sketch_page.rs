//! The sketches of a window page's windows: a piece of its own, where there are any.

use super::columns::{broken, put, put_differences, read_differences, read_u32};
use crate::codec::bytes::{Cursor, put_varint};
use crate::downsample::columns::WindowColumns;
use crate::error::Result;
use crate::sketch::quantiles::points;
use std::io::Read;

const ZSTD_LEVEL: i32 = 3;
/// A sketch is never larger: every key, and a count of each.
const SKETCH_BYTES_MAX: usize = 1 << 16;

/// Append the piece. The page has sketches.
pub(super) fn encode(out: &mut Vec<u8>, page: &WindowColumns) -> Result<()> {
    let (places, lengths): (Vec<i64>, Vec<i64>) =
        page.sketches.iter().map(|(place, bytes)| (place as i64, bytes.len() as i64)).unzip();
    put_varint(out, places.len() as u64);
    put_differences(out, &places);
    put(out, &lengths);
    out.extend_from_slice(&zstd::bulk::compress(page.sketches.bytes(), ZSTD_LEVEL)?);
    Ok(())
}

/// Put the sketches of a page whose windows were read beside them. `verify`: each one counts as
/// many values as its window.
pub(super) fn decode(bytes: &[u8], page: &mut WindowColumns, verify: bool) -> Result<()> {
    let mut cursor = Cursor::new(bytes);
    let windows = page.window_count();
    let count = cursor.count(windows)?;
    let places = read_differences(&mut cursor, count)?;
    let lengths = read_u32(&mut cursor, count)?;
    if lengths.iter().any(|&length| length as usize > SKETCH_BYTES_MAX) {
        return Err(broken("length of a sketch"));
    }
    let whole: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    let frame = cursor.rest();
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::new(frame)
        .and_then(|decoder| decoder.take(whole + 1).read_to_end(&mut plain))
        .map_err(|_| broken("frame of sketches"))?;
    if plain.len() as u64 != whole {
        return Err(broken("size of sketches"));
    }
    page.sketches.clear();
    let (mut before, mut from) = (-1, 0);
    for (&place, &length) in places.iter().zip(&lengths) {
        if place <= before || place >= windows as i64 {
            return Err(broken("place of a sketch"));
        }
        let sketch = &plain[from..from + length as usize];
        if verify && points(sketch)? != u64::from(page.count[place as usize]) {
            return Err(broken("points of a sketch"));
        }
        page.sketches.push(place as usize, sketch);
        (before, from) = (place, from + length as usize);
    }
    Ok(())
}
