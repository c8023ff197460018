//! A window page: consecutive series' windows as seven sections, each a checksum of its own.
//!
//! Invariant: what `encode` takes, `decode` gives back to the bit, whichever sections it is given.

use super::columns::broken;
use super::folds::{FoldsEncoder, read_folds};
use super::times::{TimesEncoder, read_first_last_ms, read_windows};
use super::values::{ValuesEncoder, read_dropped, read_values};
use crate::downsample::columns::{Fields, WindowColumns};
use crate::downsample::read_buffers::Numbers;
use crate::error::{KernelError, Result};

/// No page holds more windows; a reader allocates no more whatever a page says.
pub(super) const PAGE_WINDOWS_MAX: usize = 1 << 18;

pub(super) const SECTIONS: usize = 7;
pub(super) const WINDOWS: usize = 0;
pub(super) const VALUES: usize = 1;
pub(super) const TIMES: usize = 2;
pub(super) const DROPPED: usize = 3;
pub(super) const LOW: usize = 4;
pub(super) const HIGH: usize = 5;
pub(super) const SUM: usize = 6;

/// How many of a series' windows have at least one, two, three points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub valued: usize,
    pub multi: usize,
    pub deep: usize,
}

impl Tally {
    pub fn of(counts: &[u32]) -> Tally {
        let mut tally = Tally::default();
        for &count in counts {
            tally.valued += usize::from(count > 0);
            tally.multi += usize::from(count > 1);
            tally.deep += usize::from(count > 2);
        }
        tally
    }
}

/// Which sections the columns stand in, those they are told from included.
pub(super) fn sections_of(fields: Fields) -> [bool; SECTIONS] {
    let any = |of: Fields| fields.both(of) != Fields::NONE;
    let sum = any(Fields::SUM);
    let mut needed = [false; SECTIONS];
    needed[WINDOWS] = true;
    needed[VALUES] = any(Fields::FIRST.with(Fields::LAST).with(Fields::FOLDS));
    needed[TIMES] = any(Fields::FIRST_MS.with(Fields::LAST_MS));
    needed[DROPPED] = any(Fields::DROPPED);
    needed[LOW] = sum || any(Fields::MINIMUM);
    needed[HIGH] = sum || any(Fields::MAXIMUM);
    needed[SUM] = sum;
    needed
}

/// Scratch of one writer.
#[derive(Default)]
pub(super) struct PageEncoder {
    times: TimesEncoder,
    values: ValuesEncoder,
    folds: FoldsEncoder,
}

impl PageEncoder {
    /// Append the sections of a page; answers the length of each. Every series has windows.
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        page: &WindowColumns,
        window_ms: i64,
    ) -> [usize; SECTIONS] {
        let mut ends = [0; SECTIONS];
        let start = out.len();
        self.times.put_windows(out, page);
        ends[WINDOWS] = out.len();
        self.values.prepare(page);
        let any_valued = self.values.any_valued();
        if any_valued {
            self.values.put_values(out, page);
        }
        ends[VALUES] = out.len();
        if any_valued {
            self.times.put_times(out, page, window_ms);
        }
        ends[TIMES] = out.len();
        self.values.put_dropped(out, page);
        ends[DROPPED] = out.len();
        if self.values.any_folds() {
            self.folds.put_low(out, page, &self.values);
            ends[LOW] = out.len();
            self.folds.put_high(out, page, &self.values);
            ends[HIGH] = out.len();
            self.folds.put_sum(out, page, &self.values);
            ends[SUM] = out.len();
        } else {
            ends[LOW..].fill(out.len());
        }
        let mut before = start;
        ends.map(|end| end - std::mem::replace(&mut before, end))
    }
}

/// The bytes of those sections that were read.
pub(super) type Sections<'a> = [Option<&'a [u8]>; SECTIONS];

/// What a page must hold and what is wanted of it.
pub(super) struct Asked<'a> {
    pub series: usize,
    pub windows: usize,
    pub window_ms: i64,
    pub fields: Fields,
    /// A bit a series of the page; the columns of the others may stay zero.
    pub wanted: &'a [bool],
}

/// Decode into `page`, replacing what it held; columns that `fields` do not need are left empty.
pub(super) fn decode(
    sections: &Sections,
    asked: &Asked,
    page: &mut WindowColumns,
    numbers: &mut Numbers,
) -> Result<()> {
    let needed = sections_of(asked.fields);
    let section = |number: usize| -> Result<Option<&[u8]>> {
        match sections[number] {
            _ if !needed[number] => Ok(None),
            Some(bytes) => Ok(Some(bytes).filter(|bytes| !bytes.is_empty())),
            None => Err(KernelError::Backend(format!("warm: section {number} was not read"))),
        }
    };
    let windows = section(WINDOWS)?.ok_or_else(|| broken("page without windows"))?;
    if asked.windows > PAGE_WINDOWS_MAX || asked.wanted.len() != asked.series {
        return Err(broken("size of a page"));
    }
    let tallies = read_windows(windows, (asked.series, asked.windows), &needed, page)?;
    let any_valued = tallies.iter().any(|tally| tally.valued > 0);
    if let Some(bytes) = section(TIMES)? {
        read_first_last_ms(bytes, asked.window_ms, &tallies, page)?;
    } else if needed[TIMES] && any_valued {
        return Err(broken("page without times"));
    }
    if let Some(bytes) = section(DROPPED)? {
        read_dropped(bytes, page)?;
    }
    let Some(values) = section(VALUES)? else {
        let lacks = needed[VALUES] && any_valued;
        return if lacks { Err(broken("page without values")) } else { Ok(()) };
    };
    let scaled = read_values(values, &tallies, asked, page, numbers)?;
    let folds = [section(LOW)?, section(HIGH)?, section(SUM)?];
    read_folds(folds, &tallies, &scaled, asked, page, numbers)?;
    scaled.give(numbers);
    Ok(())
}
