//! Warm files: windows of one tenant in columns, with their own label sets and index.
//! The layout is docs/formats/warm.md.
//!
//! `times`, `values`, `folds` (sections) -> `page`; `text`, `label_page`, `index` (the dictionary);
//! `format` (places, root, directory) -> `writer`, `reader`, `select`, `verify`. `strip` writes a file
//! anew without some labels (`fold`), or some digits (`round`).

mod columns;
mod fold;
mod folds;
mod format;
mod index;
mod label_page;
mod page;
mod reader;
mod round;
mod select;
mod strip;
mod text;
mod times;
mod usage;
mod values;
mod verify;
mod writer;

pub use format::WarmReport;
pub use reader::WarmFile;
pub use strip::{StripReport, StripRequest, StripRule, strip};
pub use usage::MetricUsage;
pub use writer::{WarmOptions, WarmWriter};

#[cfg(test)]
mod tests;
