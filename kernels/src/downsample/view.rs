//! One series' windows as evaluation sees them: borrowed columns, markers and gaps in knowledge
//! taken out.

use super::columns::{Fields, Window, WindowColumns};
use super::state::{higher, lower};
use crate::evaluate::fold::{Fold, SumFold};
use std::ops::Range;

/// Windows of one series that are of one kind: `range` of `columns`. Pieces of a series come in
/// time order and do not overlap.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    pub columns: &'a WindowColumns,
    pub range: Range<usize>,
    /// The columns that say something: kept by the kind and read.
    pub fields: Fields,
}

impl<'a> Piece<'a> {
    /// Series `i` of `columns`, of which `read` was read: no more than that is believed.
    pub fn of(columns: &'a WindowColumns, i: usize, read: Fields) -> Piece<'a> {
        let fields = read.both(columns.kinds[i].fields());
        Piece { columns, range: columns.series(i), fields }
    }
}

/// Parallel columns; raw points are windows of one point each.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub end_ms: &'a [i64],
    /// None where every window holds one point.
    pub count: Option<&'a [u32]>,
    pub first_ms: &'a [i64],
    pub first: &'a [f64],
    pub last_ms: &'a [i64],
    pub last: &'a [f64],
    /// None where nothing was dropped inside a window.
    pub dropped: Option<&'a [f64]>,
    pub sum: &'a [f64],
    pub minimum: &'a [f64],
    pub maximum: &'a [f64],
}

impl<'a> View<'a> {
    fn borrow(columns: &'a WindowColumns, range: Range<usize>) -> View<'a> {
        View {
            end_ms: &columns.end_ms[range.clone()],
            count: Some(&columns.count[range.clone()]),
            first_ms: &columns.first_ms[range.clone()],
            first: &columns.first[range.clone()],
            last_ms: &columns.last_ms[range.clone()],
            last: &columns.last[range.clone()],
            dropped: Some(&columns.dropped[range.clone()]),
            sum: &columns.sum[range.clone()],
            minimum: &columns.minimum[range.clone()],
            maximum: &columns.maximum[range],
        }
    }

    /// Raw points, no marker among them.
    pub fn of_points(times_ms: &'a [i64], values: &'a [f64]) -> View<'a> {
        View {
            end_ms: times_ms,
            count: None,
            first_ms: times_ms,
            first: values,
            last_ms: times_ms,
            last: values,
            dropped: None,
            sum: values,
            minimum: values,
            maximum: values,
        }
    }

    /// The windows of a piece that hold points, and what of `needed` is known exactly of them.
    /// What the piece does not have is put together from what it has, in `copy`.
    pub fn of_piece(
        piece: &Piece<'a>,
        needed: Fields,
        copy: &'a mut WindowColumns,
    ) -> (View<'a>, Fields) {
        let counts = &piece.columns.count[piece.range.clone()];
        let missing = needed.without(piece.fields);
        // All at once, as the compiler likes it: windows of a marker alone are rare.
        let markers = counts.iter().fold(false, |found, &count| found | (count == 0));
        if missing == Fields::NONE && !markers {
            return (View::borrow(piece.columns, piece.range.clone()), needed);
        }
        copy.clear();
        let mut known = needed;
        for at in piece.range.clone().filter(|&at| piece.columns.count[at] > 0) {
            let mut window = piece.columns.window(at);
            if missing != Fields::NONE {
                let exact = stand_in(&mut window, missing, piece.fields);
                known = if exact { known } else { known.without(missing) };
            }
            copy.push(&window);
        }
        let all = 0..copy.window_count();
        (View::borrow(copy, all), known)
    }
}

/// Fill the `missing` columns from count, first and last; true where that is exact: one or two
/// points are all that there is.
fn stand_in(window: &mut Window, missing: Fields, known: Fields) -> bool {
    if !known.has(Fields::STAND_INS) {
        (window.sum, window.minimum, window.maximum) = (f64::NAN, f64::NAN, f64::NAN);
        return false;
    }
    let (first, last) = (window.first, window.last);
    let ends = if window.count > 1 { &[first, last][..] } else { &[first][..] };
    if missing.has(Fields::SUM) {
        let mut sum = SumFold::EMPTY;
        ends.iter().for_each(|&value| sum.push(value));
        let stands_for = f64::from(window.count) / ends.len() as f64;
        window.sum = if stands_for == 1.0 { sum.exact() } else { sum.exact() * stands_for };
    }
    if missing.has(Fields::MINIMUM) {
        window.minimum = ends.iter().fold(f64::NAN, |best, &value| lower(best, value));
    }
    if missing.has(Fields::MAXIMUM) {
        window.maximum = ends.iter().fold(f64::NAN, |best, &value| higher(best, value));
    }
    if missing.has(Fields::DROPPED) {
        window.dropped = if last < first { first } else { 0.0 };
    }
    window.count <= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downsample::columns::Kind;
    use crate::downsample::window::downsample;

    #[test]
    fn what_was_not_read_is_never_known() {
        let mut minutes = WindowColumns::default();
        downsample(&[1, 2], &[5.0, 7.0], 60_000, Kind::Counter, &mut minutes);
        let asked = Fields::COUNT.with(Fields::SUM);
        let mut copy = WindowColumns::default();
        let (view, known) = View::of_piece(&Piece::of(&minutes, 0, asked), asked, &mut copy);
        assert!(view.sum[0].is_nan() && !known.has(Fields::SUM));
        let read = Kind::Counter.to_read(asked);
        let mut copy = WindowColumns::default();
        let (view, known) = View::of_piece(&Piece::of(&minutes, 0, read), asked, &mut copy);
        assert_eq!((view.sum[0], known), (12.0, asked));
    }
}
