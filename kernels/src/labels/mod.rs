//! Label sets in columns: strings interned once, the names of a series shared as a *shape*, the
//! values as symbols. The shard's registry and the query engine's `LabelTable` stand on the same
//! two tables, so grouping and matching compare integers and never strings.
//!
//! Invariants: equal strings have equal symbols, symbol 0 is the empty string and means "absent",
//! names inside a shape ascend by bytes, no stored value is empty.

mod bytes;
pub mod canonical;
mod edit;
pub mod go_regex;
mod group;
pub mod json;
pub mod number;
mod shapes;
pub mod stitch;
mod strings;
mod table;
mod union;

pub use group::Grouping;
pub use shapes::{Projection, Shapes};
pub use strings::Interner;
pub use table::{LabelTable, LabelTableBuilder};
pub use union::Union;

/// The name of a series among its labels.
pub const METRIC_NAME: &str = "__name__";
