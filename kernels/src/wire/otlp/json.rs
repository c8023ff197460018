//! OTLP's JSON encoding, turned into OTLP protobuf: one decoder then has all the rules.
//!
//! The tables below are the schema: JSON name, protobuf field, how the value is written. Unknown
//! names are skipped without being kept, as OTLP demands; 64-bit numbers may be text; enums may be
//! numbers or names; identifiers are not read. Nesting is bounded by serde_json (128 levels).

use crate::error::{KernelError, Result};
use crate::wire::limits::{DECODED_BYTES_MAX, HELP_BYTES_MAX};
use crate::wire::proto::{put_varint, unzigzag};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Base64,
    Bool,
    Double,
    /// 64-bit little endian, of a signed or an unsigned integer.
    Fixed64,
    Integer,
    Zigzag,
    /// A number, or one of these names standing for its position.
    Enum(&'static [&'static str]),
    Message(&'static [Field]),
}

struct Field {
    name: &'static str,
    number: u32,
    shape: Shape,
}

const fn field(name: &'static str, number: u32, shape: Shape) -> Field {
    Field { name, number, shape }
}

static REQUEST: [Field; 1] = [field("resourceMetrics", 1, Shape::Message(&RESOURCE_METRICS))];
static RESOURCE_METRICS: [Field; 2] = [
    field("resource", 1, Shape::Message(&RESOURCE)),
    field("scopeMetrics", 2, Shape::Message(&SCOPE_METRICS)),
];
static RESOURCE: [Field; 1] = [field("attributes", 1, Shape::Message(&KEY_VALUE))];
static SCOPE_METRICS: [Field; 1] = [field("metrics", 2, Shape::Message(&METRIC))];
static METRIC: [Field; 8] = [
    field("name", 1, Shape::Text),
    field("description", 2, Shape::Text),
    field("unit", 3, Shape::Text),
    field("gauge", 5, Shape::Message(&[field("dataPoints", 1, Shape::Message(&NUMBER))])),
    field("sum", 7, Shape::Message(&SUM)),
    field("histogram", 9, Shape::Message(&HISTOGRAM)),
    field("exponentialHistogram", 10, Shape::Message(&EXPONENTIAL)),
    field("summary", 11, Shape::Message(&[field("dataPoints", 1, Shape::Message(&SUMMARY))])),
];
const TEMPORALITY: Field = field(
    "aggregationTemporality",
    2,
    Shape::Enum(&[
        "AGGREGATION_TEMPORALITY_UNSPECIFIED",
        "AGGREGATION_TEMPORALITY_DELTA",
        "AGGREGATION_TEMPORALITY_CUMULATIVE",
    ]),
);
static SUM: [Field; 3] = [
    field("dataPoints", 1, Shape::Message(&NUMBER)),
    TEMPORALITY,
    field("isMonotonic", 3, Shape::Bool),
];
static HISTOGRAM: [Field; 2] =
    [field("dataPoints", 1, Shape::Message(&HISTOGRAM_POINT)), TEMPORALITY];
static EXPONENTIAL: [Field; 2] =
    [field("dataPoints", 1, Shape::Message(&EXPONENTIAL_POINT)), TEMPORALITY];
static NUMBER: [Field; 6] = [
    field("attributes", 7, Shape::Message(&KEY_VALUE)),
    field("timeUnixNano", 3, Shape::Fixed64),
    field("asDouble", 4, Shape::Double),
    field("asInt", 6, Shape::Fixed64),
    field("exemplars", 5, Shape::Message(&[])),
    field("flags", 8, Shape::Integer),
];
static HISTOGRAM_POINT: [Field; 8] = [
    field("attributes", 9, Shape::Message(&KEY_VALUE)),
    field("timeUnixNano", 3, Shape::Fixed64),
    field("count", 4, Shape::Fixed64),
    field("sum", 5, Shape::Double),
    field("bucketCounts", 6, Shape::Fixed64),
    field("explicitBounds", 7, Shape::Double),
    field("exemplars", 8, Shape::Message(&[])),
    field("flags", 10, Shape::Integer),
];
static EXPONENTIAL_POINT: [Field; 11] = [
    field("attributes", 1, Shape::Message(&KEY_VALUE)),
    field("timeUnixNano", 3, Shape::Fixed64),
    field("count", 4, Shape::Fixed64),
    field("sum", 5, Shape::Double),
    field("scale", 6, Shape::Zigzag),
    field("zeroCount", 7, Shape::Fixed64),
    field("positive", 8, Shape::Message(&BUCKETS)),
    field("negative", 9, Shape::Message(&BUCKETS)),
    field("flags", 10, Shape::Integer),
    field("exemplars", 11, Shape::Message(&[])),
    field("zeroThreshold", 14, Shape::Double),
];
static BUCKETS: [Field; 2] =
    [field("offset", 1, Shape::Zigzag), field("bucketCounts", 2, Shape::Integer)];
static SUMMARY: [Field; 6] = [
    field("attributes", 7, Shape::Message(&KEY_VALUE)),
    field("timeUnixNano", 3, Shape::Fixed64),
    field("count", 4, Shape::Fixed64),
    field("sum", 5, Shape::Double),
    field("quantileValues", 6, Shape::Message(&QUANTILE)),
    field("flags", 8, Shape::Integer),
];
static QUANTILE: [Field; 2] =
    [field("quantile", 1, Shape::Double), field("value", 2, Shape::Double)];
static KEY_VALUE: [Field; 2] =
    [field("key", 1, Shape::Text), field("value", 2, Shape::Message(&ANY_VALUE))];
static ANY_VALUE: [Field; 7] = [
    field("stringValue", 1, Shape::Text),
    field("boolValue", 2, Shape::Bool),
    field("intValue", 3, Shape::Integer),
    field("doubleValue", 4, Shape::Double),
    field("arrayValue", 5, Shape::Message(&ARRAY)),
    field("kvlistValue", 6, Shape::Message(&KEY_VALUES)),
    field("bytesValue", 7, Shape::Base64),
];
static ARRAY: [Field; 1] = [field("values", 1, Shape::Message(&ANY_VALUE))];
static KEY_VALUES: [Field; 1] = [field("values", 1, Shape::Message(&KEY_VALUE))];

/// Bytes kept free for a sub-message's length; padded varints are legal protobuf.
const LENGTH_BYTES: usize = 4;

/// The request as protobuf. Raises: Client 400 (not JSON of this shape), 413.
pub fn to_protobuf(body: &[u8]) -> Result<Vec<u8>> {
    // Room for all that may come: untouched pages cost nothing, growing by doubling holds the
    // output twice while it is copied.
    let room = body.len().saturating_mul(9) / 2;
    let mut out = Vec::with_capacity(room.min(DECODED_BYTES_MAX + HELP_BYTES_MAX));
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = MessageSeed { fields: &REQUEST, out: &mut out }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end());
    if out.len() > DECODED_BYTES_MAX {
        let message = format!("the request holds more than {DECODED_BYTES_MAX} bytes");
        return Err(KernelError::client(413, "sluiceway-decoded-bytes-limit", message));
    }
    match read {
        Ok(()) => Ok(out),
        Err(error) => {
            let message = format!("OTLP JSON: {error}");
            Err(KernelError::client(400, "sluiceway-body-malformed", message))
        }
    }
}

struct MessageSeed<'o> {
    fields: &'static [Field],
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(KeySeed { fields: self.fields })? {
            match known {
                Some(field) => map.next_value_seed(ValueSeed { field, out: &mut *self.out })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct KeySeed {
    fields: &'static [Field],
}

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<&'static Field>;
    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Option<&'static Field>;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E: Error>(self, name: &str) -> std::result::Result<Self::Value, E> {
        Ok(self.fields.iter().find(|field| field.name == name))
    }
}

/// A field's value, or a list of them: protobuf repeats the field.
struct ValueSeed<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ValueSeed<'_> {
    fn tag(&mut self, wire: u32) {
        put_varint(self.out, u64::from(self.field.number << 3 | wire));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.tag(2);
        put_varint(self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn fixed(&mut self, bits: u64) {
        self.tag(1);
        self.out.extend_from_slice(&bits.to_le_bytes());
    }

    /// An integer as sent, in the two's complement of 64 bits.
    fn integer<E: Error>(&mut self, value: u64, negative: bool) -> std::result::Result<(), E> {
        let signed = value as i64;
        match self.field.shape {
            Shape::Fixed64 => self.fixed(value),
            Shape::Double if negative => self.fixed((signed as f64).to_bits()),
            Shape::Double => self.fixed((value as f64).to_bits()),
            Shape::Integer | Shape::Enum(_) => {
                self.tag(0);
                put_varint(self.out, value);
            }
            Shape::Zigzag => {
                self.tag(0);
                put_varint(self.out, unzigzag(signed));
            }
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }

    fn wrong<E: Error>(&self, got: &str) -> E {
        E::custom(format!("{got} is not what {:?} takes", self.field.name))
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a value of {:?}", self.field.name)
    }

    fn visit_unit<E: Error>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> std::result::Result<(), E> {
        if !matches!(self.field.shape, Shape::Bool) {
            return Err(self.wrong("a boolean"));
        }
        self.tag(0);
        self.out.push(u8::from(value));
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> std::result::Result<(), E> {
        self.integer(value, false)
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> std::result::Result<(), E> {
        self.integer(value as u64, true)
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> std::result::Result<(), E> {
        if !matches!(self.field.shape, Shape::Double) {
            return Err(self.wrong("a fraction"));
        }
        self.fixed(value.to_bits());
        Ok(())
    }

    fn visit_str<E: Error>(mut self, value: &str) -> std::result::Result<(), E> {
        match self.field.shape {
            Shape::Text => self.bytes(value.as_bytes()),
            Shape::Base64 => {
                use base64::Engine;
                let decoded = base64::engine::general_purpose::STANDARD.decode(value);
                self.bytes(&decoded.map_err(|_| self.wrong("text that is not base64"))?);
            }
            Shape::Double => {
                // Rust reads "NaN", "Infinity" and "-Infinity" as the JSON mapping writes them.
                let number = value.parse::<f64>().map_err(|_| self.wrong("text"))?;
                self.fixed(number.to_bits());
            }
            Shape::Enum(names) => {
                let position = names.iter().position(|name| *name == value);
                let position = position.ok_or_else(|| self.wrong("an unknown name"))?;
                self.integer(position as u64, false)?;
            }
            Shape::Fixed64 | Shape::Integer | Shape::Zigzag => match value.parse::<u64>() {
                Ok(number) => self.integer(number, false)?,
                Err(_) => {
                    let number = value.parse::<i64>().map_err(|_| self.wrong("text"))?;
                    self.integer(number as u64, true)?;
                }
            },
            _ => return Err(self.wrong("text")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        // A digit and a comma can become nine bytes: the cap holds inside the loop.
        while self.out.len() <= DECODED_BYTES_MAX {
            let seed = ValueSeed { field: self.field, out: &mut *self.out };
            if list.next_element_seed(seed)?.is_none() {
                return Ok(());
            }
        }
        Err(A::Error::custom("the request is too large"))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> std::result::Result<(), A::Error> {
        let Shape::Message(fields) = self.field.shape else {
            return Err(self.wrong("an object"));
        };
        self.tag(2);
        let start = self.out.len() + LENGTH_BYTES;
        self.out.resize(start, 0);
        MessageSeed { fields, out: &mut *self.out }.visit_map(map)?;
        let length = self.out.len() - start;
        // Below the largest length that fits `LENGTH_BYTES`, and the caller answers 413.
        if self.out.len() > DECODED_BYTES_MAX {
            return Err(A::Error::custom("the request is too large"));
        }
        for (i, byte) in self.out[start - LENGTH_BYTES..start].iter_mut().enumerate() {
            let more = if i + 1 < LENGTH_BYTES { 0x80 } else { 0 };
            *byte = (length >> (7 * i)) as u8 & 0x7f | more;
        }
        Ok(())
    }
}
