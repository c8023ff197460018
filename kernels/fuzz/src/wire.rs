//! Every decoder behind every compression: the first two bytes choose, the rest is the body.

use _kernels::model::{PayloadEncoding, PayloadFormat};
use _kernels::wire::{Decoder, canonical_labels, decode};
use std::sync::LazyLock;

pub const NOW_MS: i64 = 1_700_000_000_000;
static DECODER: LazyLock<Decoder> = LazyLock::new(|| Decoder::new(1));

pub fn decode_any(input: &[u8]) {
    let [format, encoding, body @ ..] = input else { return };
    let (Some(format), Some(encoding)) =
        (PayloadFormat::from_u8(format % 4 + 1), PayloadEncoding::from_u8(encoding % 4))
    else {
        return;
    };
    let Ok(batch) = decode(body, format, encoding, NOW_MS, &DECODER) else { return };
    let rejected: u32 = batch.points_rejected.iter().sum();
    assert_eq!(batch.points_received as usize, batch.points_good() + rejected as usize);
    for series in batch.series.iter().filter(|series| !series.canonical) {
        let range = series.label_start as usize..series.label_end as usize;
        assert!(canonical_labels(&batch.label_bytes[range], &mut Vec::new()).is_ok());
    }
    DECODER.recycle(batch);
}
