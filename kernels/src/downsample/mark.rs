//! What was done to a series where it moved from one tier to the next: how far its answers may be
//! believed.

/// Most digits that rounding keeps: more say every double that a sensor gives.
pub const DIGITS_MAX: u8 = 12;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// It lost labels, and may stand for several series: its answers are approximate.
    pub folded: bool,
    /// Significant digits that its values were rounded to; 0: none were, to the bit.
    pub digits: u8,
}

impl Mark {
    pub const NONE: Mark = Mark { folded: false, digits: 0 };

    pub fn is_none(self) -> bool {
        self == Mark::NONE
    }

    /// What holds of windows of both.
    pub fn merge(&mut self, other: Mark) {
        self.folded |= other.folded;
        self.digits = fewer_digits(self.digits, other.digits);
    }

    /// As files hold it: 1 for a fold, and the digits twice.
    pub fn to_u8(self) -> u8 {
        u8::from(self.folded) | self.digits << 1
    }

    pub fn from_u8(byte: u8) -> Option<Mark> {
        let mark = Mark { folded: byte & 1 == 1, digits: byte >> 1 };
        (mark.digits <= DIGITS_MAX).then_some(mark)
    }
}

/// 0 is all digits.
pub fn fewer_digits(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}

/// What the marks of a file's series come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    pub folded_series: u64,
    /// The fewest of any series; 0: none was rounded.
    pub digits: u8,
}

impl Marked {
    pub fn add(&mut self, mark: Mark) {
        self.folded_series += u64::from(mark.folded);
        self.digits = fewer_digits(self.digits, mark.digits);
    }

    pub fn is_any(&self) -> bool {
        self.folded_series > 0 || self.digits > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_what_they_were() {
        for folded in [false, true] {
            for digits in 0..=DIGITS_MAX {
                let mark = Mark { folded, digits };
                assert_eq!(Mark::from_u8(mark.to_u8()), Some(mark));
            }
        }
        assert_eq!(Mark::from_u8(13 << 1), None);
        let mut mark = Mark { folded: false, digits: 5 };
        mark.merge(Mark { folded: true, digits: 0 });
        assert_eq!(mark, Mark { folded: true, digits: 5 });
        mark.merge(Mark { folded: false, digits: 3 });
        assert_eq!(mark, Mark { folded: true, digits: 3 });
    }
}
