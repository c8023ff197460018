"""Splits PromQL text into tokens.

Invariant: tokens come in order, the last is `eof` or `error`; an error's text is its message, so
that the parser reports the first thing wrong from the left.
"""

import re
from typing import NamedTuple

WORD, NUMBER, DURATION, STRING_TOKEN, EOF, ERROR = (
    "word",
    "number",
    "duration",
    "string",
    "eof",
    "error",
)


class Token(NamedTuple):
    """`kind` is one of the names above, or the punctuation itself."""

    kind: str
    text: str
    start: int


_BLANK = r"(?P<blank>[ \t\r\n]+|\#[^\n]*)"
_STRING = r"""(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)"""
_NUMERIC = (
    r"(?P<duration>\d+(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*(?![A-Za-z0-9_]))"
    r"|(?P<number>0[xX][0-9a-fA-F]+(?:_[0-9a-fA-F]+)*(?![A-Za-z0-9_])"
    r"|(?:\d+(?:_\d+)*(?:\.(?:\d+(?:_\d+)*)?)?|\.\d+(?:_\d+)*)"
    r"(?:[eE][+-]?\d+(?:_\d+)*)?(?![A-Za-z0-9_]))"
)
_OUTSIDE = re.compile(
    rf"{_BLANK}|(?P<word>[A-Za-z_:][A-Za-z0-9_:]*)|{_NUMERIC}|{_STRING}"
    r"|(?P<mark>==|!=|<=|>=|[-+*/%^=<>(){}\[\],@])"
)
_BRACES = re.compile(
    rf"{_BLANK}|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|{_STRING}|(?P<mark>=~|!~|!=|[=,}}])"
)
_BRACKETS = re.compile(
    rf"{_BLANK}|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|{_NUMERIC}|(?P<mark>[-+*/%^(),:\]])"
)


def tokenize(text: str, tokens_max: int) -> list[Token]:
    """All tokens of the text, or the first `tokens_max` + 1 of them. Linear in its length."""
    tokens: list[Token] = []
    position, length, depth = 0, len(text), 0
    pattern, bracket_open = _OUTSIDE, False
    append = tokens.append
    while position < length and len(tokens) <= tokens_max:
        found = pattern.match(text, position)
        if found is None:
            append(Token(ERROR, _complaint(text, position, pattern), position))
            return tokens
        kind = found.lastgroup
        if kind != "blank":
            word = found.group()
            if kind != "mark":
                append(Token(kind, word, position))  # type: ignore[arg-type]
            else:
                if word in "(){}[]":
                    if word == "(":
                        depth += 1
                    elif word == ")":
                        depth -= 1
                        if depth < 0:
                            append(Token(ERROR, "unexpected right parenthesis ')'", position))
                            return tokens
                    elif word == "{":
                        pattern = _BRACES
                    elif word == "}":
                        if pattern is _OUTSIDE:
                            append(Token(ERROR, "unexpected character: '}'", position))
                            return tokens
                        pattern = _OUTSIDE
                    elif word == "[":
                        pattern, bracket_open = _BRACKETS, True
                    else:
                        if not bracket_open:
                            append(Token(ERROR, "unexpected right bracket ']'", position))
                            return tokens
                        pattern, bracket_open = _OUTSIDE, False
                append(Token(word, word, position))
        position = found.end()
    if pattern is _BRACES:
        append(Token(ERROR, "unexpected end of input inside braces", length))
    elif depth:
        append(Token(ERROR, "unclosed left parenthesis", length))
    elif bracket_open:
        append(Token(ERROR, "unclosed left bracket", length))
    else:
        append(Token(EOF, "", length))
    return tokens


def _complaint(text: str, position: int, pattern: re.Pattern[str]) -> str:
    character = text[position]
    if character in "\"'":
        return "unterminated quoted string"
    if character == "`":
        return "unterminated raw string"
    quoted = f"'{character}'" if character != "'" else "'\\''"
    if character.isdigit() or (character == "." and text[position + 1 : position + 2].isdigit()):
        rest = re.compile(r"[0-9A-Za-z_.]+").match(text, position)
        shown = rest.group() if rest else character
        return f'bad number or duration syntax: "{shown}"'
    if pattern is _BRACES:
        return f"unexpected character inside braces: {quoted}"
    if pattern is _BRACKETS:
        if character == "[":
            return "unexpected left bracket '['"
        return f"unexpected character in duration expression: {quoted}"
    following = text[position + 1 : position + 2]
    if character == "!" and following:
        return f"unexpected character after '!': '{following}'"
    return f"unexpected character: {quoted}"


_ESCAPES = {
    "a": b"\a",
    "b": b"\b",
    "f": b"\f",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "v": b"\v",
    "\\": b"\\",
    "'": b"'",
    '"': b'"',
}
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)


def unquote(text: str) -> str:
    """The value of a string token. Bytes that are no UTF-8 become lone surrogates.

    Raises: ValueError (unknown escape)."""
    inside = text[1:-1]
    if text[0] == "`" or "\\" not in inside:
        return inside
    pieces: list[bytes] = []
    position = 0
    while position < len(inside):
        following = inside.find("\\", position)
        if following < 0:
            pieces.append(inside[position:].encode())
            break
        pieces.append(inside[position:following].encode())
        found = _ESCAPE.match(inside, following)
        if found is None or (found.group(1) in ("'", '"') and found.group(1) != text[0]):
            raise ValueError("invalid syntax")
        simple, octal, byte, short, long = found.groups()
        if simple:
            pieces.append(_ESCAPES[simple])
        elif octal or byte:
            code = int(octal, 8) if octal else int(byte, 16)
            if code > 255:
                raise ValueError("invalid syntax")
            pieces.append(bytes((code,)))
        else:
            code = int(short or long, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise ValueError("invalid syntax")
            pieces.append(chr(code).encode())
        position = found.end()
    return b"".join(pieces).decode("utf-8", "surrogateescape")
