//! OTLP attributes become labels: names translated, values as text, collisions joined.
//!
//! Invariant: work and memory are bounded by the label limits, not by what the client nests: text
//! past a label's limit is not built further, nesting past `DEPTH_MAX` reads as null.

use super::names::label_name;
use crate::model::RejectReason;
use crate::wire::labels::{Judged, Pair, Refused, shown};
use crate::wire::limits::{LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use crate::wire::proto::{Cursor, Read};
use base64::Engine;
use std::borrow::Cow;

type Text<'a> = Cow<'a, [u8]>;

/// Levels of lists and maps that a value is read down to.
const DEPTH_MAX: u32 = 8;

/// Attributes as sent. More than a series may have labels are counted, not kept.
#[derive(Default)]
pub struct Attributes<'a> {
    pairs: Vec<(&'a [u8], Text<'a>)>,
    count: usize,
}

impl<'a> Attributes<'a> {
    /// Read one KeyValue.
    pub fn read(&mut self, mut cursor: Cursor<'a>) -> Read<()> {
        let (mut key, mut value) = (&[][..], Text::default());
        while let Some(tag) = cursor.next_tag()? {
            match tag {
                0x0a => key = cursor.slice()?,
                0x12 => value = any_value(cursor.message()?)?,
                _ => cursor.skip(tag)?,
            }
        }
        self.count += 1;
        if self.count <= LABELS_MAX {
            self.pairs.push((key, value));
        }
        Ok(())
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(k, _)| *k == key.as_bytes()).map(|(_, value)| &**value)
    }

    pub fn remove(&mut self, keys: &[&str]) {
        self.pairs.retain(|(key, _)| !keys.iter().any(|k| k.as_bytes() == *key));
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Labels under their Prometheus names; `identity` (job, instance) wins over attributes.
    pub fn translate(mut self, identity: &'a [(&'static str, Vec<u8>)]) -> Judged<Labels<'a>> {
        if self.count > LABELS_MAX {
            let message =
                format!("a data point has {} attributes, at most {LABELS_MAX}", self.count);
            return Err(Refused::new(RejectReason::TooManyLabels, message));
        }
        self.pairs.sort_by_key(|(key, _)| *key);
        let mut labels: Vec<(Text<'a>, Text<'a>)> = Vec::with_capacity(self.pairs.len() + 2);
        for (key, value) in self.pairs {
            let name = match std::str::from_utf8(key).map(label_name) {
                Ok(Cow::Borrowed(name)) => Cow::Borrowed(name.as_bytes()),
                Ok(Cow::Owned(name)) => Cow::Owned(name.into_bytes()),
                Err(_) => {
                    let message = format!("attribute {} is not valid UTF-8", shown(key));
                    return Err(Refused::new(RejectReason::InvalidUtf8, message));
                }
            };
            if key.is_empty() {
                let message = "an attribute has an empty name";
                return Err(Refused::new(RejectReason::InvalidLabels, message));
            }
            if identity.iter().any(|(own, _)| own.as_bytes() == &*name) {
                continue;
            }
            match labels.iter_mut().find(|(have, _)| *have == name) {
                Some((_, have)) => {
                    have.to_mut().push(b';');
                    have.to_mut().extend_from_slice(&value);
                }
                None => labels.push((name, value)),
            }
        }
        for (name, value) in identity {
            labels.push((Cow::Borrowed(name.as_bytes()), Cow::Borrowed(value)));
        }
        Ok(Labels { labels })
    }
}

/// Translated labels of a data point; each series made of it adds its own.
pub struct Labels<'a> {
    labels: Vec<(Text<'a>, Text<'a>)>,
}

impl Labels<'_> {
    /// All labels of a series: `own` (its name, `le`, `quantile`) win over attributes. Not sorted.
    pub fn with<'s>(&'s self, own: &[Pair<'s>]) -> Vec<Pair<'s>> {
        let mut pairs = own.to_vec();
        let attributes = self.labels.iter().map(|(name, value)| (&**name, &**value));
        pairs.extend(attributes.filter(|(name, _)| own.iter().all(|(mine, _)| mine != name)));
        pairs
    }
}

/// An AnyValue as text: strings as they are, the rest as pdata's AsString prints it.
fn any_value(mut cursor: Cursor<'_>) -> Read<Text<'_>> {
    let whole = cursor;
    let mut text = Text::default();
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x0a => text = Cow::Borrowed(cursor.slice()?),
            0x3a => text = Cow::Owned(base64_text(cursor.slice()?).into_bytes()),
            0x10 | 0x18 | 0x21 | 0x2a | 0x32 => {
                cursor.skip(tag)?;
                let mut out = String::new();
                write_json(whole, 0, &mut out)?;
                text = Cow::Owned(out.into_bytes());
            }
            _ => cursor.skip(tag)?,
        }
    }
    Ok(text)
}

fn base64_text(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD
        .encode(&bytes[..bytes.len().min(LABEL_VALUE_BYTES_MAX)])
}

/// Append a value as JSON. Depth and length are bounded, so recursion is.
fn write_json(mut cursor: Cursor, depth: u32, out: &mut String) -> Read<()> {
    let start = out.len();
    while let Some(tag) = cursor.next_tag()? {
        if out.len() > LABEL_VALUE_BYTES_MAX {
            return Ok(());
        }
        out.truncate(start);
        match tag {
            0x0a => write_string(cursor.slice()?, out),
            0x10 => out.push_str(if cursor.varint()? != 0 { "true" } else { "false" }),
            0x18 => out.push_str(&(cursor.varint()? as i64).to_string()),
            0x21 => out.push_str(&double_text(cursor.double()?)),
            0x2a if depth < DEPTH_MAX => write_list(cursor.message()?, depth, out)?,
            0x32 if depth < DEPTH_MAX => write_map(cursor.message()?, depth, out)?,
            0x3a => write_string(base64_text(cursor.slice()?).as_bytes(), out),
            _ => cursor.skip(tag)?,
        }
    }
    if out.len() == start {
        out.push_str("null");
    }
    Ok(())
}

fn write_list(mut cursor: Cursor, depth: u32, out: &mut String) -> Read<()> {
    let mut separator = '[';
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            0x0a if out.len() <= LABEL_VALUE_BYTES_MAX => {
                out.push(separator);
                separator = ',';
                write_json(cursor.message()?, depth + 1, out)?;
            }
            _ => cursor.skip(tag)?,
        }
    }
    out.push_str(if separator == '[' { "[]" } else { "]" });
    Ok(())
}

fn write_map(mut cursor: Cursor, depth: u32, out: &mut String) -> Read<()> {
    let mut entries = Vec::new();
    while let Some(tag) = cursor.next_tag()? {
        match tag {
            // An entry takes five characters or more: past this many the text is too long anyway.
            0x0a if entries.len() <= LABEL_VALUE_BYTES_MAX / 4 => {
                let mut entry = cursor.message()?;
                let (mut key, mut value) = (&[][..], Cursor::new(&[]));
                while let Some(tag) = entry.next_tag()? {
                    match tag {
                        0x0a => key = entry.slice()?,
                        0x12 => value = entry.message()?,
                        _ => entry.skip(tag)?,
                    }
                }
                entries.push((key, value));
            }
            _ => cursor.skip(tag)?,
        }
    }
    entries.sort_by_key(|(key, _)| *key);
    let mut separator = '{';
    for (key, value) in entries {
        if out.len() > LABEL_VALUE_BYTES_MAX {
            break;
        }
        out.push(separator);
        separator = ',';
        write_string(key, out);
        out.push(':');
        write_json(value, depth + 1, out)?;
    }
    out.push_str(if separator == '{' { "{}" } else { "}" });
    Ok(())
}

fn write_string(bytes: &[u8], out: &mut String) {
    // One byte past the limit is enough for the label to be refused.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LABEL_VALUE_BYTES_MAX + 1)]);
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// As Go's encoding/json prints a float: no exponent between 1e-6 and 1e21.
fn double_text(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        let text = if value.is_nan() { "NaN" } else { "+Inf" };
        return if value == f64::NEG_INFINITY { "-Inf".to_owned() } else { text.to_owned() };
    }
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return if size < 1.0 { text } else { text.replace('e', "e+") };
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_go_prints_them() {
        for (value, want) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (2.5e-7, "2.5e-7"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(double_text(value), want);
        }
    }
}
