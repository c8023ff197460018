//! A record's bytes: header and payload, a CRC over each (docs/formats/record.md).
//!
//! Invariant: no length of a header is believed, and nothing of its size allocated, before the
//! header's CRC was checked.

use crate::model::REJECT_REASON_COUNT;

pub const MAGIC: [u8; 4] = [0xf5, b'S', b'W', b'R'];
/// The segment's version rises with it, and is what refuses a newer format by name.
const VERSION: u8 = 1;
pub const TENANT_BYTES_MAX: usize = 150;
/// As large as a body may be after it is decompressed.
pub const PAYLOAD_BYTES_MAX: usize = 32 << 20;
const REASONS_AT: usize = 76;
const REASONS_MAX: usize = 32;
/// Of a header with no reason and no tenant.
pub const HEADER_BYTES_MIN: usize = REASONS_AT + 4;
pub const HEADER_BYTES_MAX: usize = HEADER_BYTES_MIN + 4 * REASONS_MAX + TENANT_BYTES_MAX;

/// What the journal knows about a request. `sequence`, `fence` and `place_in_group` are given by
/// the committer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    pub sequence: u64,
    pub fence: u64,
    pub place_in_group: u32,
    pub partition: u16,
    pub signal: u8,
    pub format: u8,
    pub encoding: u8,
    pub decoder_version: u8,
    pub policy_version: u32,
    /// Days that points may lie behind `received_ms`; 0: any.
    pub age_days: u8,
    pub received_ms: i64,
    pub dedup_key: u128,
    pub points_received: u32,
    pub points_rejected: [u32; REJECT_REASON_COUNT],
    pub tenant: String,
}

/// A header read back, with what is needed to find and check its payload.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub header: RecordHeader,
    pub header_bytes: usize,
    pub payload_bytes: usize,
    pub payload_crc: u32,
}

pub fn header_crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

impl RecordHeader {
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES_MIN + 4 * REJECT_REASON_COUNT + self.tenant.len()
    }

    /// Append the header's bytes; tenant and payload are within their caps (checked at append).
    pub fn encode(&self, salt: u32, payload_bytes: usize, payload_crc: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(MAGIC);
        out.extend((self.encoded_bytes() as u16).to_le_bytes());
        out.extend([VERSION, self.tenant.len() as u8]);
        out.extend((payload_bytes as u32).to_le_bytes());
        out.extend(payload_crc.to_le_bytes());
        out.extend(self.sequence.to_le_bytes());
        out.extend(self.fence.to_le_bytes());
        out.extend(self.partition.to_le_bytes());
        out.extend([self.signal, self.format, self.encoding, self.decoder_version]);
        out.extend([REJECT_REASON_COUNT as u8, self.age_days]);
        out.extend(self.policy_version.to_le_bytes());
        out.extend(self.points_received.to_le_bytes());
        out.extend(self.received_ms.to_le_bytes());
        out.extend(self.dedup_key.to_le_bytes());
        out.extend(self.place_in_group.to_le_bytes());
        for count in self.points_rejected {
            out.extend(count.to_le_bytes());
        }
        out.extend(self.tenant.as_bytes());
        let crc = header_crc(salt, &out[start..]);
        out.extend(crc.to_le_bytes());
        debug_assert_eq!(out.len() - start, self.encoded_bytes());
    }

    /// The header at the start of `bytes`, which holds at least all of it or the segment's rest.
    pub fn parse(salt: u32, bytes: &[u8]) -> Option<Parsed> {
        if bytes.len() < HEADER_BYTES_MIN || bytes[..4] != MAGIC {
            return None;
        }
        let header_bytes = usize::from(u16::from_le_bytes(array(bytes, 4)));
        if !(HEADER_BYTES_MIN..=HEADER_BYTES_MAX).contains(&header_bytes)
            || header_bytes > bytes.len()
        {
            return None;
        }
        let body = &bytes[..header_bytes - 4];
        let crc = u32::from_le_bytes(array(bytes, body.len()));
        if header_crc(salt, body) != crc && !crate::mutants::on("no_crc") {
            return None;
        }
        let (tenant_bytes, reasons) = (usize::from(body[7]), usize::from(body[38]));
        let payload_bytes = u32::from_le_bytes(array(body, 8)) as usize;
        let tenant_at = REASONS_AT + 4 * reasons;
        if body[6] != VERSION
            || tenant_bytes > TENANT_BYTES_MAX
            || payload_bytes > PAYLOAD_BYTES_MAX
            || tenant_at + tenant_bytes != body.len()
        {
            return None;
        }
        let tenant = std::str::from_utf8(&body[tenant_at..]).ok()?;
        let mut points_rejected = [0; REJECT_REASON_COUNT];
        for (index, count) in points_rejected.iter_mut().enumerate().take(reasons) {
            *count = u32::from_le_bytes(array(body, REASONS_AT + 4 * index));
        }
        let header = RecordHeader {
            sequence: u64::from_le_bytes(array(body, 16)),
            fence: u64::from_le_bytes(array(body, 24)),
            partition: u16::from_le_bytes(array(body, 32)),
            signal: body[34],
            format: body[35],
            encoding: body[36],
            decoder_version: body[37],
            age_days: body[39],
            policy_version: u32::from_le_bytes(array(body, 40)),
            points_received: u32::from_le_bytes(array(body, 44)),
            received_ms: i64::from_le_bytes(array(body, 48)),
            dedup_key: u128::from_le_bytes(array(body, 56)),
            place_in_group: u32::from_le_bytes(array(body, 72)),
            points_rejected,
            tenant: tenant.to_owned(),
        };
        let payload_crc = u32::from_le_bytes(array(body, 12));
        Some(Parsed { header, header_bytes, payload_bytes, payload_crc })
    }
}

pub fn payload_is_sound(payload: &[u8], crc: u32) -> bool {
    crate::mutants::on("no_crc") || crc32fast::hash(payload) == crc
}

/// `N` bytes at `at`; the caller has checked that they are there.
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back_and_any_flip_is_seen(
            numbers in any::<(u64, u64, u32, u16, u8, u32, i64, u128)>(),
            rejected in any::<[u32; REJECT_REASON_COUNT]>(),
            tenant in "[a-zà-ü0-9]{0,60}",
            flip in any::<prop::sample::Index>(),
            salt in any::<u32>(),
        ) {
            let (sequence, fence, place, partition, code, count, received_ms, key) = numbers;
            let header = RecordHeader {
                sequence, fence, place_in_group: place, partition, signal: code, format: 2,
                encoding: 1, decoder_version: 3, policy_version: count, age_days: code, received_ms,
                dedup_key: key, points_received: count, points_rejected: rejected, tenant,
            };
            let mut bytes = Vec::new();
            header.encode(salt, 5, 77, &mut bytes);
            let parsed = RecordHeader::parse(salt, &bytes);
            let header_bytes = bytes.len();
            prop_assert_eq!(parsed, Some(Parsed { header, header_bytes, payload_bytes: 5, payload_crc: 77 }));
            prop_assert_eq!(RecordHeader::parse(salt ^ 1, &bytes), None);
            prop_assert_eq!(RecordHeader::parse(salt, &bytes[..header_bytes - 1]), None);
            let bit = flip.index(header_bytes * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(RecordHeader::parse(salt, &bytes), None);
        }
    }
}
