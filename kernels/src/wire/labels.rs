//! Label sets on the wire: which are accepted, and their canonical form.
//!
//! Canonical = for each label, sorted by name, `varint(name length) name varint(value length)
//! value`; empty values dropped (an empty label is an absent one). Two label sets are the same
//! series if and only if their canonical bytes are equal.

use super::limits::{LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, RESERVED_LABELS};
use super::proto::{Cursor, Malformed, Read};
use crate::labels::canonical::push_label;
use crate::model::RejectReason;

pub const METRIC_NAME: &[u8] = b"__name__";

/// One label: name, value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// Why a row is not taken, in words that name what to change.
#[derive(Clone, Debug)]
pub struct Refused {
    pub reason: RejectReason,
    pub message: String,
}

impl Refused {
    #[cold]
    pub fn new(reason: RejectReason, message: impl Into<String>) -> Refused {
        Refused { reason, message: message.into() }
    }
}

pub type Judged<T> = Result<T, Refused>;

/// What `judge_raw` found: not protobuf at all, or labels that break a rule.
pub enum Fault {
    Malformed,
    Refused(Refused),
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Fault {
        Fault::Malformed
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        Fault::Refused(refused)
    }
}

/// Read one label of RW 1.0's `repeated Label labels = 1`, tag included.
#[inline]
fn raw_label<'a>(cursor: &mut Cursor<'a>) -> Read<Pair<'a>> {
    if cursor.varint()? != 0x0a {
        return Err(Malformed);
    }
    let mut label = cursor.message()?;
    let (mut name, mut value) = (&[][..], &[][..]);
    while let Some(tag) = label.next_tag()? {
        match tag {
            0x0a => name = label.slice()?,
            0x12 => value = label.slice()?,
            _ => label.skip(tag)?,
        }
    }
    Ok((name, value))
}

/// The labels of raw bytes that are not empty; a set past the limit is refused, not collected.
fn raw_pairs(raw: &[u8]) -> Result<Vec<Pair<'_>>, Fault> {
    let mut cursor = Cursor::new(raw);
    let mut pairs = Vec::with_capacity(16);
    while !cursor.done() {
        let pair = raw_label(&mut cursor)?;
        if !pair.1.is_empty() {
            if pairs.len() >= LABELS_MAX {
                return Err(too_many_labels().into());
            }
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// Are these raw labels (RW 1.0) acceptable? Sorted ones are judged in one pass.
pub fn judge_raw(raw: &[u8]) -> Result<(), Fault> {
    let ascii = raw.is_ascii();
    let mut cursor = Cursor::new(raw);
    let (mut previous, mut count, mut named) = (&[][..], 0, false);
    while !cursor.done() {
        let (name, value) = raw_label(&mut cursor)?;
        if value.is_empty() || name <= previous {
            // Absent, out of order or twice: the slow way sorts and says which.
            let mut pairs = raw_pairs(raw)?;
            return Ok(judge(&mut pairs)?);
        }
        judge_label(name, value, ascii)?;
        named |= name == METRIC_NAME;
        count += 1;
        previous = name;
    }
    Ok(judge_whole(count, named)?)
}

/// Are these labels, canonical but for duplicates, acceptable?
pub fn judge_canonical(canonical: &[u8]) -> Result<(), Fault> {
    let labels = crate::labels::canonical::labels(canonical);
    let mut pairs = Vec::with_capacity(16);
    for label in labels {
        let (name, value, _) = label.map_err(|_| Fault::Malformed)?;
        pairs.push((name, value));
    }
    Ok(judge(&mut pairs)?)
}

/// Sort labels, drop the empty ones, and judge the set.
pub fn judge(pairs: &mut Vec<Pair<'_>>) -> Judged<()> {
    pairs.retain(|(_, value)| !value.is_empty());
    if !pairs.is_sorted() {
        pairs.sort_unstable();
    }
    for &(name, value) in pairs.iter() {
        judge_label(name, value, false)?;
    }
    if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let message = format!("label {} is sent twice", shown(twice[0].0));
        return Err(Refused::new(RejectReason::DuplicateLabel, message));
    }
    judge_whole(pairs.len(), pairs.iter().any(|(name, _)| *name == METRIC_NAME))
}

#[inline]
pub fn judge_label(name: &[u8], value: &[u8], ascii: bool) -> Judged<()> {
    if name.is_empty() || value.len() > LABEL_VALUE_BYTES_MAX || name.len() > LABEL_NAME_BYTES_MAX {
        return Err(refuse_size(name, value));
    }
    if !(ascii || name.is_ascii() && value.is_ascii()) {
        let text = |bytes| std::str::from_utf8(bytes);
        if text(name).is_err() || text(value).is_err() {
            let message = format!("label {} is not valid UTF-8", shown(name));
            return Err(Refused::new(RejectReason::InvalidUtf8, message));
        }
    }
    if name.iter().any(|&byte| byte < 0x20 || byte == 0x7f) {
        let message = format!("label name {} holds a control character", shown(name));
        return Err(Refused::new(RejectReason::InvalidLabels, message));
    }
    if name.starts_with(b"__") {
        if name == METRIC_NAME {
            if value.len() > LABEL_NAME_BYTES_MAX {
                return Err(refuse_size(value, name));
            }
            if value.iter().any(|&byte| byte < 0x20 || byte == 0x7f) {
                let message = format!("metric name {} holds a control character", shown(value));
                return Err(Refused::new(RejectReason::InvalidLabels, message));
            }
        } else if RESERVED_LABELS.contains(&name) {
            let message = format!("label {} is reserved", shown(name));
            return Err(Refused::new(RejectReason::InvalidLabels, message));
        }
    }
    Ok(())
}

fn judge_whole(count: usize, named: bool) -> Judged<()> {
    if !named {
        return Err(Refused::new(RejectReason::MissingName, "a series has no __name__"));
    }
    if count > LABELS_MAX {
        return Err(too_many_labels());
    }
    Ok(())
}

pub fn too_many_labels() -> Refused {
    let message = format!("a series has more than {LABELS_MAX} labels");
    Refused::new(RejectReason::TooManyLabels, message)
}

#[cold]
fn refuse_size(name: &[u8], value: &[u8]) -> Refused {
    if name.is_empty() {
        return Refused::new(RejectReason::InvalidLabels, "a label has an empty name");
    }
    let (what, bytes, max) = match name.len() > LABEL_NAME_BYTES_MAX {
        true => ("name", name.len(), LABEL_NAME_BYTES_MAX),
        false => ("value", value.len(), LABEL_VALUE_BYTES_MAX),
    };
    let message = format!("label {}: its {what} has {bytes} bytes, at most {max}", shown(name));
    Refused::new(RejectReason::LabelTooLong, message)
}

/// A name for an error message: escaped and short.
pub fn shown(name: &[u8]) -> String {
    format!("\"{}\"", name[..name.len().min(64)].escape_ascii())
}

/// From RW 1.0's raw label bytes, to canonical; only repeated names are left to `judge`. Appends to `out`.
pub fn canonical_labels(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    let mut cursor = Cursor::new(raw);
    let mut previous = &[][..];
    while !cursor.done() {
        let (name, value) = raw_label(&mut cursor)?;
        if value.is_empty() {
            continue;
        }
        if name < previous {
            let mut pairs = raw_pairs(raw)?;
            pairs.sort_unstable();
            out.truncate(start);
            pairs.iter().for_each(|(name, value)| push_label(out, name, value));
            return Ok(());
        }
        push_label(out, name, value);
        previous = name;
    }
    Ok(())
}

/// The value of `__name__`; empty where there is none.
pub fn metric_name(labels: &[u8], canonical: bool) -> Result<&[u8], Malformed> {
    if canonical {
        for label in crate::labels::canonical::labels(labels) {
            let (name, value, _) = label.map_err(|_| Malformed)?;
            if name == METRIC_NAME {
                return Ok(value);
            }
        }
        return Ok(&[]);
    }
    let mut cursor = Cursor::new(labels);
    while !cursor.done() {
        let (name, value) = raw_label(&mut cursor)?;
        // An empty label is an absent one.
        if name == METRIC_NAME && !value.is_empty() {
            return Ok(value);
        }
    }
    Ok(&[])
}
