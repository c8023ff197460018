//! Sketches beside windows: how the values of some windows were distributed.
//!
//! Invariant: only valued windows of three points or more have one, and it counts as many values as
//! the window has points; of fewer points the first and the last say everything.

use super::columns::{WindowColumns, window_end_ms};
use crate::error::Result;
use crate::model::STALE_BITS;
use crate::sketch::quantiles::Sketch;
use std::ops::Range;

/// Points of a window that say everything about it.
pub const PLAIN_POINTS_MAX: u32 = 2;

/// Sketches (docs/formats/quantiles.md) of some windows, ascending by the windows' places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SketchColumn {
    places: Vec<usize>,
    /// Where each one's bytes end.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl SketchColumn {
    pub fn clear(&mut self) {
        self.places.clear();
        self.ends.clear();
        self.bytes.clear();
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The sketch of the window at `place`, which is after all that have one so far.
    pub fn push(&mut self, place: usize, sketch: &[u8]) {
        self.push_with(place, |bytes| bytes.extend_from_slice(sketch));
    }

    /// As `push`; `write` appends the sketch.
    pub fn push_with(&mut self, place: usize, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.places.last().is_none_or(|&last| last < place));
        write(&mut self.bytes);
        self.places.push(place);
        self.ends.push(self.bytes.len());
    }

    pub fn get(&self, place: usize) -> Option<&[u8]> {
        self.places.binary_search(&place).ok().map(|number| self.nth(number))
    }

    /// Places and sketches, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.places.iter().enumerate().map(|(number, &place)| (place, self.nth(number)))
    }

    /// All sketches' bytes, end to end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn nth(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[start..self.ends[number]]
    }

    /// Append those of the windows `range` of `other`, the first of which is `first` here.
    pub fn append(&mut self, other: &SketchColumn, range: Range<usize>, first: usize) {
        let from = other.places.partition_point(|&place| place < range.start);
        let until = other.places.partition_point(|&place| place < range.end);
        for number in from..until {
            self.push(first + other.places[number] - range.start, other.nth(number));
        }
    }
}

/// Sketch the windows `made` of `out`, which `values` (stale markers among them) came to.
pub fn sketch_points(
    values: &[f64],
    made: Range<usize>,
    sketch: &mut Sketch,
    out: &mut WindowColumns,
) {
    let mut points = values.iter().copied().filter(|value| value.to_bits() != STALE_BITS);
    for place in made {
        let count = out.count[place];
        let own = points.by_ref().take(count as usize);
        if count <= PLAIN_POINTS_MAX {
            own.for_each(drop);
            continue;
        }
        sketch.clear();
        own.for_each(|value| sketch.add(value));
        out.sketches.push_with(place, |bytes| sketch.encode(bytes));
    }
}

/// Sketch the windows `made` of `out`, which series `series` of `from` came to. A window of which
/// some part is not known gets none. Errors: Corruption of a sketch.
pub fn sketch_longer(
    from: &WindowColumns,
    series: usize,
    window_ms: i64,
    made: Range<usize>,
    sketch: &mut Sketch,
    out: &mut WindowColumns,
) -> Result<()> {
    let mut parts = from.series(series).peekable();
    for place in made {
        let end_ms = out.end_ms[place];
        sketch.clear();
        let mut known = true;
        while let Some(at) =
            parts.next_if(|&at| window_end_ms(from.end_ms[at], window_ms) == end_ms)
        {
            known &= add_window(from, at, sketch)?;
        }
        if known && out.count[place] > PLAIN_POINTS_MAX {
            out.sketches.push_with(place, |bytes| sketch.encode(bytes));
        }
    }
    Ok(())
}

/// False where the window does not say how its values were distributed.
fn add_window(from: &WindowColumns, at: usize, sketch: &mut Sketch) -> Result<bool> {
    let count = from.count[at];
    if count > PLAIN_POINTS_MAX {
        return from.sketches.get(at).map_or(Ok(false), |bytes| sketch.merge(bytes).map(|()| true));
    }
    if count > 0 {
        sketch.add(from.first[at]);
    }
    if count > 1 {
        sketch.add(from.last[at]);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::columns::Kind;
    use super::super::window::{coarsen, downsample};
    use super::*;
    use proptest::prelude::*;

    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 3_600_000;

    /// Points as windows with sketches.
    fn sketched(times_ms: &[i64], values: &[f64], window_ms: i64) -> WindowColumns {
        let mut out = WindowColumns::default();
        downsample(times_ms, values, window_ms, Kind::Gauge, &mut out);
        sketch_points(values, 0..out.window_count(), &mut Sketch::default(), &mut out);
        out
    }

    #[test]
    fn one_minute_that_is_not_known_leaves_its_hour_without() {
        let times: Vec<i64> = (0..20).map(|i| 1 + i * 10_000).collect();
        let values = vec![1.0; 20];
        let mut minutes = sketched(&times, &values, MINUTE_MS);
        let mut hours = WindowColumns::default();
        coarsen(&minutes, 0, HOUR_MS, &mut hours);
        let mut sketch = Sketch::default();
        sketch_longer(&minutes, 0, HOUR_MS, 0..1, &mut sketch, &mut hours).expect("sound");
        assert_eq!(hours.sketches.len(), 1);
        minutes.sketches.clear();
        hours.sketches.clear();
        sketch_longer(&minutes, 0, HOUR_MS, 0..1, &mut sketch, &mut hours).expect("sound");
        assert!(hours.sketches.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Hours made of minutes have the sketches of all their points, byte for byte.
        #[test]
        fn sketches_of_minutes_merge_to_those_of_hours(
            gaps in prop::collection::vec((1i64..400_000, -1e6..1e6f64), 0..200),
            dense in 1i64..40,
            stale in prop::collection::btree_set(0usize..200, 0..10),
        ) {
            let mut at = 0;
            let (mut times, mut values) = (Vec::new(), Vec::new());
            for (place, (gap, value)) in gaps.into_iter().enumerate() {
                at += 1 + gap / dense;
                times.push(at);
                values.push(if stale.contains(&place) { f64::from_bits(STALE_BITS) } else { value });
            }
            let minutes = sketched(&times, &values, MINUTE_MS);
            let direct = sketched(&times, &values, HOUR_MS);
            let mut hours = WindowColumns::default();
            coarsen(&minutes, 0, HOUR_MS, &mut hours);
            let (all, mut sketch) = (0..hours.window_count(), Sketch::default());
            sketch_longer(&minutes, 0, HOUR_MS, all, &mut sketch, &mut hours).expect("sound");
            prop_assert_eq!(&hours.sketches, &direct.sketches);
            for (place, bytes) in direct.sketches.iter() {
                let points = crate::sketch::quantiles::points(bytes).expect("sound");
                prop_assert_eq!(points, u64::from(direct.count[place]));
            }
        }
    }
}
