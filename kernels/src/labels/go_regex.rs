//! Regular expressions as Prometheus writes them: Go's RE2 syntax, fully anchored, `.` matches a
//! newline. Linear in time, bounded in size; never Python's `re`.
//!
//! Go's and Rust's syntax differ in small ways; `to_rust` bridges them: `\d \s \w \b` are ASCII in
//! Go, `\Q..\E` quotes, `[`, `&` and `~` stand for themselves inside a class, a brace that opens
//! no repetition stands for itself.

use crate::error::{KernelError, Result};
use regex_automata::meta;
use regex_syntax::hir::{Hir, Look};
use std::fmt::Write as _;

/// Longest pattern taken: Grafana's "all" of a large variable has tens of KiB.
pub const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Compiled size of one pattern.
const COMPILED_BYTES_MAX: usize = 8 << 20;
const CACHE_BYTES_MAX: usize = 2 << 20;
const NESTING_MAX: u32 = 200;

fn invalid(pattern: &str, why: &str) -> KernelError {
    let shown: String = pattern.chars().take(100).collect();
    let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
    KernelError::client(
        400,
        "sluiceway-query-regex-invalid",
        format!("error parsing regexp: {why}: `{shown}`"),
    )
}

/// Parse a pattern (without the anchors).
pub fn parse(pattern: &str) -> Result<Hir> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(invalid(pattern, &format!("longer than {PATTERN_BYTES_MAX} bytes")));
    }
    regex_syntax::ParserBuilder::new()
        .dot_matches_new_line(true)
        .nest_limit(NESTING_MAX)
        .build()
        .parse(&to_rust(pattern))
        .map_err(|error| invalid(pattern, &error.to_string()))
}

/// Compile a parsed pattern; it must match the whole string.
pub fn compile(pattern: &str, parsed: Hir) -> Result<meta::Regex> {
    let anchored = Hir::concat(vec![Hir::look(Look::Start), parsed, Hir::look(Look::End)]);
    meta::Builder::new()
        .configure(
            meta::Config::new()
                .nfa_size_limit(Some(COMPILED_BYTES_MAX))
                .onepass_size_limit(Some(1 << 20))
                .hybrid_cache_capacity(CACHE_BYTES_MAX),
        )
        .build_from_hir(&anchored)
        .map_err(|error| invalid(pattern, &error.to_string()))
}

/// Go's syntax in Rust's.
fn to_rust(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = after;
        match c {
            '\\' => {
                let Some(escaped) = after.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &after[escaped.len_utf8()..];
                match escaped {
                    'd' => out.push_str("[0-9]"),
                    'D' => out.push_str("[^0-9]"),
                    's' => out.push_str("[\\t\\n\\f\\r ]"),
                    'S' => out.push_str("[^\\t\\n\\f\\r ]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    'b' if !in_class => out.push_str("(?-u:\\b)"),
                    'Q' if !in_class => {
                        let (quoted, left) = rest.split_once("\\E").unwrap_or((rest, ""));
                        regex_syntax::escape_into(quoted, &mut out);
                        rest = left;
                    }
                    _ => {
                        let _ = write!(out, "\\{escaped}");
                        // `\p{Greek}`, `\x{10FFFF}`: the brace belongs to the escape.
                        if let Some(end) = rest.starts_with('{').then(|| rest.find('}')).flatten() {
                            out.push_str(&rest[..=end]);
                            rest = &rest[end + 1..];
                        }
                    }
                }
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if let Some(left) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = left;
                }
                // A bracket that closes at once is a member.
                if let Some(left) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = left;
                }
            }
            '[' if rest.starts_with(':') => {
                let end = rest.find(":]").map_or(rest.len(), |at| at + 2);
                let _ = write!(out, "[{}", &rest[..end]);
                rest = &rest[end..];
            }
            '[' | '&' | '~' if in_class => {
                let _ = write!(out, "\\{c}");
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '{' if !in_class && !opens_repetition(rest) => out.push_str("\\{"),
            _ => out.push(c),
        }
    }
    out
}

/// Does what follows a `{` make it `{n}`, `{n,}` or `{n,m}`?
fn opens_repetition(rest: &str) -> bool {
    let Some((inside, _)) = rest.split_once('}') else {
        return false;
    };
    let (from, to) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    !from.is_empty() && digits(from) && digits(to)
}

/// A replacement with `$1`, `${1}`, `$name`, `${name}` and `$$` expanded as Go's `Regexp.Expand`
/// does: an unbraced name takes as many word characters as it can, what is no name stays text.
pub fn expand<'a>(template: &str, group: impl Fn(&str) -> &'a str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(left) = rest.strip_prefix('$') {
            out.push('$');
            rest = left;
            continue;
        }
        let word = |text: &str| {
            text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len())
        };
        let braced = rest.strip_prefix('{');
        let name = braced.map_or(&rest[..word(rest)], |inside| &inside[..word(inside)]);
        let closed = braced.is_none_or(|inside| inside[name.len()..].starts_with('}'));
        if name.is_empty() || !closed {
            out.push('$');
            continue;
        }
        out.push_str(group(name));
        rest = &rest[name.len() + if braced.is_some() { 2 } else { 0 }..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern, parse(pattern).unwrap()).unwrap().is_match(text)
    }

    #[test]
    fn expands_as_go_does() {
        let group = |name: &str| match name {
            "1" => "one",
            "name" => "N",
            _ => "",
        };
        for (template, expected) in [
            ("$1-x", "one-x"),
            ("$1x", ""),
            ("${1}x", "onex"),
            ("$name.$$", "N.$"),
            ("${name", "${name"),
            ("$", "$"),
            ("$-", "$-"),
            ("a$9b", "a"),
        ] {
            assert_eq!(expand(template, group), expected, "{template}");
        }
    }

    #[test]
    fn speaks_go() {
        for (pattern, text, expected) in [
            ("a|bc", "bc", true),
            ("a|bc", "abc", false),
            ("a.c", "a\nc", true),
            ("\\d+", "\u{0663}", false),
            ("[\\d_]+", "12_3", true),
            ("[[a]+", "[a", true),
            ("[^]]+", "ab", true),
            ("a{", "a{", true),
            ("a{2,3}", "aaa", true),
            ("x{a}", "x{a}", true),
            ("\\Qa.b\\E+", "a.bb", true),
            ("\\Qa.b\\E", "axb", false),
            ("[[:alpha:]]+", "ab", true),
            ("(?i)FOO", "foo", true),
            ("\\w+\\b-\\w+", "ab-cd", true),
            ("\\p{Greek}", "\u{3b1}", true),
            ("", "", true),
            ("(?s).*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} ~ {text}");
        }
        for bad in ["a)(b", "(", "*a", "\\8"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"(".repeat(20_000)).is_err());
        assert!(compile("", parse("((a{1,1000}){1,100}){1,100}").unwrap()).is_err());
    }
}
