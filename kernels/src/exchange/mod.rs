//! What leaves and enters as a whole: points as remote write bodies and as OpenMetrics text.
//!
//! `bodies` cuts series into bodies of bounded size · `read_text` OpenMetrics in · `write_text`
//! OpenMetrics out ·
//! `remote_read` a Prometheus' answer in · `pack` compressed bytes of an export's frames.

mod bodies;
mod pack;
mod read_text;
mod remote_read;
mod write_text;

pub use bodies::{Body, BodyLimits, Series, remote_write};
pub use pack::{pack, unpack};
pub use read_text::{TextRead, read_text};
pub use remote_read::{RemoteRead, read_remote};
pub use write_text::write_text;
