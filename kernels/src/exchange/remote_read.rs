//! A Prometheus' answer to remote read (prometheus.ReadResponse, samples) -> remote write bodies.
//!
//! Invariant: every float sample is handed on to the bit, stale markers included; labels stay the bytes
//! that they were. Native histograms are counted and left out.

use super::bodies::{Bodies, Body, BodyLimits};
use crate::error::{KernelError, Result};
use crate::wire::Cursor;

/// Of an answer, decompressed.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// What an answer held.
#[derive(Debug, Default)]
pub struct RemoteRead {
    pub bodies: Vec<Body>,
    pub points: u64,
    pub histograms: u64,
}

/// Errors: Client 400 `sluiceway-remote-read` where the bytes are no such answer.
pub fn read_remote(answer: &[u8], limits: BodyLimits) -> Result<RemoteRead> {
    let broken = |what: String| KernelError::client(400, "sluiceway-remote-read", what);
    let bytes = snap::raw::decompress_len(answer).map_err(|error| broken(error.to_string()))?;
    if bytes > ANSWER_BYTES_MAX {
        return Err(broken(format!("an answer of {bytes} bytes, at most {ANSWER_BYTES_MAX}")));
    }
    let plain = snap::raw::Decoder::new().decompress_vec(answer);
    let plain = plain.map_err(|error| broken(error.to_string()))?;
    let mut read = RemoteRead::default();
    let mut bodies = Bodies::new(limits);
    let mut response = Cursor::new(&plain);
    while let Some(tag) = response.next_tag()? {
        if tag != 0x0a {
            response.skip(tag)?;
            continue;
        }
        let mut result = response.message()?;
        while let Some(tag) = result.next_tag()? {
            if tag == 0x0a {
                series(result.message()?, &mut bodies, &mut read)?;
            } else {
                result.skip(tag)?;
            }
        }
    }
    read.bodies = bodies.finish();
    Ok(read)
}

fn series(cursor: Cursor, bodies: &mut Bodies, read: &mut RemoteRead) -> Result<()> {
    let mut labels = cursor;
    bodies.begin();
    while let Some(tag) = labels.next_tag()? {
        if tag == 0x0a {
            bodies.raw_label(labels.slice()?);
        } else {
            labels.skip(tag)?;
        }
    }
    let mut samples = cursor;
    while let Some(tag) = samples.next_tag()? {
        match tag {
            0x12 => {
                let mut sample = samples.message()?;
                let (mut value, mut time_ms) = (0.0, 0);
                while let Some(tag) = sample.next_tag()? {
                    match tag {
                        0x09 => value = sample.double()?,
                        0x10 => time_ms = sample.varint()? as i64,
                        _ => sample.skip(tag)?,
                    }
                }
                bodies.sample(time_ms, value);
                read.points += 1;
            }
            0x22 => {
                samples.slice()?;
                read.histograms += 1;
            }
            _ => samples.skip(tag)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::bodies::{Series, remote_write};
    use super::*;
    use crate::labels::LabelTable;
    use crate::model::STALE_BITS;
    use crate::wire::put_varint;

    const LIMITS: BodyLimits = BodyLimits { points_max: 3, bytes_max: 1 << 20 };

    fn packed(bytes: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(bytes).unwrap_or_default()
    }

    #[test]
    fn an_answer_is_cut_into_bodies_of_the_same_samples() {
        let lists = [vec![("__name__", "m"), ("i", "1")], vec![("__name__", "m"), ("i", "2")]];
        let labels = LabelTable::from_lists(&lists);
        let values = [1.5, f64::from_bits(STALE_BITS), -0.0, 4.0, 5.0];
        let times_ms = [-1, 2, 3, 1 << 40, 5];
        let series =
            Series { labels: &labels, offsets: &[0, 2, 5], times_ms: &times_ms, values: &values };
        let whole = BodyLimits { points_max: 100, bytes_max: 1 << 20 };
        let result = remote_write(&series, whole).unwrap_or_default().remove(0).bytes;
        let mut answer = vec![0x0a];
        put_varint(&mut answer, result.len() as u64);
        answer.extend_from_slice(&result);
        let read = read_remote(&packed(&answer), LIMITS).unwrap_or_default();
        assert_eq!((read.points, read.histograms), (5, 0));
        assert_eq!(read.bodies, remote_write(&series, LIMITS).unwrap_or_default());
        for broken in [&answer[..answer.len() - 1], b"\x0a\x02\x0a\x05"] {
            assert!(read_remote(&packed(broken), LIMITS).is_err());
        }
        assert!(read_remote(b"\xff\xff\xff\xff\xff\xff", LIMITS).is_err());
    }
}
