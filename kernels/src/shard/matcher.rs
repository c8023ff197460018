//! Label matchers: `name = | != | =~ | !~ value`, and their compiled form.
//!
//! A regular expression that is really a list, a prefix, a suffix or a piece of text is taken
//! apart once here, so that the index looks values up instead of scanning its dictionary.

use crate::error::Result;
use crate::labels::go_regex;
use hashbrown::HashSet;
use regex_automata::meta::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchOp {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "=~")]
    Regex,
    #[serde(rename = "!~")]
    NotRegex,
}

/// One matcher as a query states it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    pub value: String,
}

impl Matcher {
    pub fn new(name: &str, op: MatchOp, value: &str) -> Matcher {
        Matcher { name: name.to_owned(), op, value: value.to_owned() }
    }

    /// Fails with a client error where the regular expression is not one, or is too large.
    pub fn compile(&self) -> Result<CompiledMatcher> {
        let test = match self.op {
            MatchOp::Equal | MatchOp::NotEqual => Test::one_of([self.value.clone()]),
            MatchOp::Regex | MatchOp::NotRegex => Test::parse(&self.value)?,
        };
        let negated = matches!(self.op, MatchOp::NotEqual | MatchOp::NotRegex);
        Ok(CompiledMatcher { name: self.name.clone(), test, negated })
    }
}

#[derive(Clone, Debug)]
pub struct CompiledMatcher {
    pub name: String,
    pub test: Test,
    pub negated: bool,
}

impl CompiledMatcher {
    /// Does a label of this value pass? An absent label has the empty value.
    pub fn matches(&self, value: &str) -> bool {
        self.test.matches(value) != self.negated
    }
}

/// Most members of a list that a regular expression is taken apart into.
const MEMBERS_MAX: usize = 20_000;

/// What a matcher asks of a value, negation aside.
#[derive(Clone, Debug)]
pub enum Test {
    /// One of these; looked up, never scanned.
    OneOf(HashSet<String>),
    /// `.*`
    Anything,
    /// `.+`
    Something,
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// The rest, with the literal text that every match starts with.
    Regex {
        prefix: String,
        regex: Regex,
    },
}

impl Test {
    fn one_of(members: impl IntoIterator<Item = String>) -> Test {
        Test::OneOf(members.into_iter().collect())
    }

    fn parse(pattern: &str) -> Result<Test> {
        let parsed = go_regex::parse(pattern)?;
        if let Some(members) = members(&parsed) {
            return Ok(Test::one_of(members));
        }
        if is_anything(&parsed, 0) {
            return Ok(Test::Anything);
        }
        if is_anything(&parsed, 1) {
            return Ok(Test::Something);
        }
        let parts = match parsed.kind() {
            HirKind::Concat(parts) => parts.as_slice(),
            _ => std::slice::from_ref(&parsed),
        };
        match parts {
            [start, text, end] if is_anything(start, 0) && is_anything(end, 0) => {
                if let Some(text) = literal(text) {
                    return Ok(Test::Contains(text));
                }
            }
            [text, end] if is_anything(end, 0) => {
                if let Some(text) = literal(text) {
                    return Ok(Test::Prefix(text));
                }
            }
            [start, text] if is_anything(start, 0) => {
                if let Some(text) = literal(text) {
                    return Ok(Test::Suffix(text));
                }
            }
            _ => {}
        }
        let prefix = parts.first().and_then(literal).unwrap_or_default();
        Ok(Test::Regex { prefix, regex: go_regex::compile(pattern, parsed)? })
    }

    pub fn matches(&self, value: &str) -> bool {
        match self {
            Test::OneOf(members) => members.contains(value),
            Test::Anything => true,
            Test::Something => !value.is_empty(),
            Test::Prefix(text) => value.starts_with(text.as_str()),
            Test::Suffix(text) => value.ends_with(text.as_str()),
            Test::Contains(text) => {
                memchr::memmem::find(value.as_bytes(), text.as_bytes()).is_some()
            }
            Test::Regex { prefix, regex } => {
                value.starts_with(prefix.as_str()) && regex.is_match(value)
            }
        }
    }
}

fn literal(hir: &Hir) -> Option<String> {
    match hir.kind() {
        HirKind::Literal(text) => String::from_utf8(text.0.to_vec()).ok(),
        HirKind::Capture(capture) => literal(&capture.sub),
        _ => None,
    }
}

/// `.*` (least 0) or `.+` (least 1), with `.` any character.
fn is_anything(hir: &Hir, least: u32) -> bool {
    match hir.kind() {
        HirKind::Capture(capture) => is_anything(&capture.sub, least),
        HirKind::Repetition(r) if r.min == least && r.max.is_none() => match r.sub.kind() {
            HirKind::Class(Class::Unicode(class)) => {
                matches!(class.ranges(), [all] if all.start() == '\0' && all.end() == char::MAX)
            }
            _ => false,
        },
        _ => false,
    }
}

/// All strings the expression matches, where they are few and finite.
fn members(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(_) => literal(hir).map(|text| vec![text]),
        HirKind::Capture(capture) => members(&capture.sub),
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.ranges();
            let count: usize =
                ranges.iter().map(|r| r.end() as usize - r.start() as usize + 1).sum();
            (count <= 16).then(|| {
                ranges.iter().flat_map(|r| r.start()..=r.end()).map(String::from).collect()
            })
        }
        HirKind::Repetition(r) if r.min == 0 && r.max == Some(1) => {
            let mut all = members(&r.sub)?;
            all.push(String::new());
            Some(all)
        }
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(members(part)?);
                if all.len() > MEMBERS_MAX {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Concat(parts) => {
            let mut all = vec![String::new()];
            for part in parts {
                let tails = members(part)?;
                // The product is what grows: bound it before building it.
                if all.len() * tails.len() > MEMBERS_MAX {
                    return None;
                }
                all = all
                    .iter()
                    .flat_map(|head| tails.iter().map(move |t| format!("{head}{t}")))
                    .collect();
            }
            Some(all)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_expressions_apart() {
        let test = |pattern: &str| Test::parse(pattern).unwrap();
        assert!(matches!(test("a|b|cd"), Test::OneOf(m) if m.len() == 3));
        assert!(matches!(test("foo(1|2)?"), Test::OneOf(m) if m.len() == 3));
        assert!(matches!(test("5.."), Test::Regex { prefix, .. } if prefix == "5"));
        assert!(matches!(test(".*"), Test::Anything));
        assert!(matches!(test(".+"), Test::Something));
        assert!(matches!(test("ab.*"), Test::Prefix(p) if p == "ab"));
        assert!(matches!(test(".*ab"), Test::Suffix(p) if p == "ab"));
        assert!(matches!(test(".*ab.*"), Test::Contains(p) if p == "ab"));
        assert!(matches!(test("[0-9]+"), Test::Regex { .. }));
        assert!(matches!(test(""), Test::OneOf(m) if m.contains("")));
        let many = vec!["instance-0001"; 1000].join("|");
        assert!(matches!(test(&many), Test::OneOf(_)));
    }

    #[test]
    fn serialises_as_promql_writes_it() {
        let matcher = Matcher::new("job", MatchOp::NotRegex, "a.*");
        let text = serde_json::to_string(&matcher).unwrap();
        assert_eq!(text, r#"{"name":"job","op":"!~","value":"a.*"}"#);
        assert_eq!(serde_json::from_str::<Matcher>(&text).unwrap(), matcher);
        assert!(matcher.compile().unwrap().matches(""));
        assert!(!matcher.compile().unwrap().matches("ab"));
    }
}
