//! Warm files: windows of one tenant in columns, with their own label sets and index.
//! The layout is docs/formats/warm.md.
//!
//! `times`, `values`, `folds` (sections) -> `page`; labels and index are a `dictionary`;
//! `format` (root, directory) -> `writer`, `reader`, `select`, `verify`. `strip` writes a file
//! anew without some labels (`fold`, which counts on from the `earlier` file), or some digits
//! (`round`).

mod columns;
mod earlier;
mod fold;
mod folds;
mod format;
mod page;
mod reader;
mod round;
mod select;
mod sketch_page;
mod strip;
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
