//! Reading a whole file back: every checksum compared, every page decoded, all counted anew.

use super::columns::broken;
use super::format::{DIRECTORY_PAGE_ENTRIES, HEADER_BYTES, TRAILER_BYTES, WarmReport};
use super::reader::WarmFile;
use crate::downsample::columns::Fields;
use crate::downsample::read_buffers::ReadBuffers;
use crate::error::Result;

impl WarmFile {
    /// What the file really holds. `Corruption` where a byte is not what was written, or where the
    /// counts of the root are not those of the pages.
    pub fn verify(&self) -> Result<WarmReport> {
        let mut seen = HEADER_BYTES as u64 + TRAILER_BYTES as u64 + self.root_bytes;
        seen += self.dictionary.verify()?;
        let mut report = self.report();
        (report.windows, report.points, report.sketches) = (0, 0, 0);
        (report.min_end_ms, report.max_end_ms) = (0, -1);
        seen += self.verify_windows(&mut report)?;
        if seen != self.bytes() || report != self.report() {
            return Err(self.named(broken("counts of the file")));
        }
        Ok(report)
    }

    fn verify_windows(&self, report: &mut WarmReport) -> Result<u64> {
        let (mut bytes, mut next_series) = (0, 0);
        let mut buffers = ReadBuffers::default();
        for (number, place) in self.root.directory_pages.iter().enumerate() {
            bytes += u64::from(place.length);
            for (place, entry) in self.directory_page(number)?.iter().enumerate() {
                let wanted = vec![true; entry.series as usize];
                let number = number * DIRECTORY_PAGE_ENTRIES + place;
                let fields = Fields::ALL.without(Fields::SKETCH);
                self.page(number, entry, fields, &wanted, &mut buffers)?;
                bytes += self.read_sketches(number, &mut buffers.columns, true)?;
                let page = &buffers.columns;
                report.sketches += page.sketches.len() as u64;
                bytes += entry.sections.iter().map(|place| u64::from(place.length)).sum::<u64>();
                let goes_on = entry.first_series + 1 == next_series;
                if entry.first_series != next_series && !goes_on {
                    return Err(self.named(broken("order of pages")));
                }
                next_series = entry.first_series + entry.series;
                let ends = page.end_ms.iter().copied();
                let (low, high) = (ends.clone().min().unwrap_or(0), ends.max().unwrap_or(-1));
                if (low, high) != (entry.min_end_ms, entry.max_end_ms) {
                    return Err(self.named(broken("times of a page")));
                }
                let empty = report.windows == 0;
                report.min_end_ms = if empty { low } else { report.min_end_ms.min(low) };
                report.max_end_ms = if empty { high } else { report.max_end_ms.max(high) };
                report.windows += page.window_count() as u64;
                report.points += page.count.iter().map(|&count| u64::from(count)).sum::<u64>();
            }
        }
        if u64::from(next_series) != self.root.series {
            return Err(self.named(broken("series of the pages")));
        }
        Ok(bytes)
    }
}
