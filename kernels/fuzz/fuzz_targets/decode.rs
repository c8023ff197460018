//! Every decoder over any bytes: the first two choose format and encoding, the rest is the body.
//! A crash, a leak past the limits or a batch that does not add up is a finding.
#![no_main]

use _kernels::model::{PayloadEncoding, PayloadFormat};
use _kernels::wire::{Decoder, canonical_labels, decode};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static DECODER: LazyLock<Decoder> = LazyLock::new(|| Decoder::new(1));

fuzz_target!(|input: &[u8]| {
    let [format, encoding, body @ ..] = input else { return };
    let (Some(format), Some(encoding)) =
        (PayloadFormat::from_u8(format % 4 + 1), PayloadEncoding::from_u8(encoding % 4))
    else {
        return;
    };
    let Ok(batch) = decode(body, format, encoding, 1_700_000_000_000, &DECODER) else { return };
    let rejected: u32 = batch.points_rejected.iter().sum();
    assert_eq!(batch.points_received as usize, batch.points_good() + rejected as usize);
    for series in batch.series.iter().filter(|series| !series.canonical) {
        let range = series.label_start as usize..series.label_end as usize;
        assert!(canonical_labels(&batch.label_bytes[range], &mut Vec::new()).is_ok());
    }
});
