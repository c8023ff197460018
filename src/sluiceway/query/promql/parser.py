"""The PromQL parser: tokens to a checked tree, by precedence climbing.

Invariant: recursion is bounded by `nesting_max` (at most seven frames of Python a level) and work
by `tokens_max`, whatever the text. Chains of left-associative operators cost no depth. The first
error from the left is reported, in Prometheus' words.
"""

from dataclasses import dataclass

from sluiceway.query.promql import checks, selectors
from sluiceway.query.promql.durations import parse_duration
from sluiceway.query.promql.faults import ParseFault, QueryTooLarge
from sluiceway.query.promql.lexer import (
    DURATION,
    EOF,
    ERROR,
    NUMBER,
    STRING_TOKEN,
    WORD,
    Token,
    tokenize,
    unquote,
)
from sluiceway.query.promql.signatures import (
    AGGREGATIONS,
    FUNCTIONS,
    PARAMETER_AGGREGATIONS,
)
from sluiceway.query.promql.syntax import (
    Aggregate,
    Binary,
    Call,
    Expression,
    Matching,
    Number,
    Paren,
    Selector,
    String,
    Unary,
)


@dataclass(frozen=True, slots=True)
class ParserLimits:
    text_length_max: int = 64 * 1024
    tokens_max: int = 10_000
    nesting_max: int = 100
    operators_max: int = 4_000
    cached_queries_max: int = 1_000


_PRECEDENCE = {
    "or": 1,
    "and": 2,
    "unless": 2,
    "==": 3,
    "!=": 3,
    "<=": 3,
    "<": 3,
    ">=": 3,
    ">": 3,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "%": 5,
    "atan2": 5,
    "^": 6,
}
_POWER = 6
_WORD_OPERATORS = frozenset(("and", "or", "unless", "atan2"))
_KEYWORDS = frozenset(
    {"offset", "smoothed", "anchored", "by", "without", "on", "ignoring", "group_left"}
    | {"group_right", "bool", "fill", "fill_left", "fill_right"}
)
# Keywords that cannot be a metric's name where an expression is expected.
_RESERVED = frozenset(("on", "ignoring", "group_left", "group_right", "bool", "atan2"))


class Parser(selectors.SelectorParser):
    """One text's parse. Not reused."""

    def __init__(self, text: str, limits: ParserLimits) -> None:
        if len(text) > limits.text_length_max:
            raise QueryTooLarge(
                f"query has {len(text)} characters, over text_length_max {limits.text_length_max}"
            )
        self.text = text
        self.limits = limits
        self.tokens = tokenize(text, limits.tokens_max)
        self.index = 0
        self.nesting = 0
        self.operators = 0

    def parse(self) -> Expression:
        """The whole text as one expression."""
        if len(self.tokens) > self.limits.tokens_max:
            raise QueryTooLarge(f"query has over tokens_max {self.limits.tokens_max} tokens")
        if self.tokens[0].kind == EOF:
            raise ParseFault(self.text, 0, "no expression found in input")
        root = self.expression(0)
        if self.tokens[self.index].kind != EOF:
            raise self.unexpected("", "")
        checks.check(self.text, root)
        return root

    def unexpected(self, context: str, expected: str) -> ParseFault:
        """A fault about the current token."""
        token = self.tokens[self.index]
        if token.kind == ERROR:
            return ParseFault(self.text, token.start, token.text)
        message = f"unexpected {_describe(token)}"
        if context:
            message += f" in {context}"
        if expected:
            message += f", expected {expected}"
        return ParseFault(self.text, token.start, message)

    def descend(self) -> None:
        """Count one level of nesting; the caller counts it off again."""
        self.nesting += 1
        if self.nesting > self.limits.nesting_max:
            raise QueryTooLarge(f"query is nested over nesting_max {self.limits.nesting_max}")

    def expression(self, lowest: int) -> Expression:
        """Operators that bind stronger than `lowest`, left to right."""
        self.descend()
        left = self.unary()
        while True:
            token = self.tokens[self.index]
            operator = token.kind
            if operator == WORD:
                operator = token.text.lower()
            precedence = _PRECEDENCE.get(operator, 0)
            if precedence <= lowest:
                self.nesting -= 1
                return left
            self.index += 1
            self.operators += 1
            if self.operators > self.limits.operators_max:
                raise QueryTooLarge(
                    f"query has over operators_max {self.limits.operators_max} operators"
                )
            return_bool, matching = self.modifiers()
            # Only the power operator groups to the right.
            right = self.expression(precedence - 1 if precedence == _POWER else precedence)
            left = Binary(
                left.start, right.end, operator, left, right, return_bool, matching, token.start
            )

    def unary(self) -> Expression:
        """Signs bind weaker than `^` and stronger than `*`."""
        token = self.tokens[self.index]
        if token.kind not in ("+", "-"):
            return self.postfix(self.primary())
        self.index += 1
        self.descend()
        following = self.tokens[self.index].kind
        operand = self.unary() if following in ("+", "-") else self.expression(_POWER - 1)
        self.nesting -= 1
        if isinstance(operand, Number):
            value = -operand.value if token.kind == "-" else operand.value
            return Number(token.start, operand.end, value, operand.is_duration)
        return Unary(token.start, operand.end, token.kind, operand)

    def primary(self) -> Expression:
        token = self.tokens[self.index]
        kind = token.kind
        if kind == WORD:
            return self.word(token)
        if kind in (NUMBER, DURATION):
            self.index += 1
            end = token.start + len(token.text)
            return Number(token.start, end, self.seconds(token), kind == DURATION)
        if kind == "{":
            return self.selector("", token.start)
        if kind == "(":
            self.index += 1
            inner = self.expression(0)
            closing = self.expect(")", "", "")
            return Paren(token.start, closing.start + 1, inner)
        if kind == STRING_TOKEN:
            self.index += 1
            return String(token.start, token.start + len(token.text), self.unquoted(token))
        raise self.unexpected("", "")

    def word(self, token: Token) -> Expression:
        """An identifier: number, aggregation, call, or metric."""
        name = token.text
        lower = name.lower()
        following = self.tokens[self.index + 1].kind
        if lower in ("inf", "nan"):
            self.index += 1
            return Number(token.start, token.start + len(name), float(lower))
        if lower in AGGREGATIONS and following != "{":
            modifier = self.tokens[self.index + 1].text.lower()
            if following == "(" or (following == WORD and modifier in ("by", "without")):
                return self.aggregate(token)
            if following == WORD and modifier not in _WORD_OPERATORS | _KEYWORDS:
                self.index += 1
                raise self.unexpected("aggregation", "")
        if lower in _RESERVED:
            raise self.unexpected("", "")
        if following == "(" and lower not in _WORD_OPERATORS:
            return self.call(token)
        self.index += 1
        return self.selector(name, token.start)

    def call(self, token: Token) -> Expression:
        name = token.text
        signature = FUNCTIONS.get(name) or FUNCTIONS.get(
            name.lower() if name.lower() in ("start", "end", "step", "range") else ""
        )
        if signature is None:
            raise ParseFault(self.text, token.start, f'unknown function with name "{name}"')
        self.index += 1
        arguments, end = self.call_arguments()
        return Call(token.start, end, signature, arguments)

    def call_arguments(self) -> tuple[list[Expression], int]:
        """What stands between the parentheses, and where they end."""
        self.expect("(", "", "")
        arguments: list[Expression] = []
        while self.tokens[self.index].kind != ")":
            arguments.append(self.expression(0))
            token = self.tokens[self.index]
            if token.kind != ",":
                break
            self.index += 1
            if self.tokens[self.index].kind == ")":
                raise ParseFault(
                    self.text, token.start, "trailing commas not allowed in function call args"
                )
        closing = self.expect(")", "", "")
        return arguments, closing.start + 1

    def aggregate(self, token: Token) -> Expression:
        operator = token.text.lower()
        self.index += 1
        grouping, without, found = self.grouping_clause()
        arguments, end = self.call_arguments()
        if not found:
            grouping, without, found = self.grouping_clause()
            if found:
                previous = self.tokens[self.index - 1]
                end = previous.start + len(previous.text)
        if not arguments:
            raise ParseFault(
                self.text, token.start, "no arguments for aggregate expression provided"
            )
        desired = 2 if operator in PARAMETER_AGGREGATIONS else 1
        if len(arguments) != desired:
            raise ParseFault(
                self.text,
                token.start,
                "wrong number of arguments for aggregate expression provided,"
                f" expected {desired}, got {len(arguments)}",
            )
        parameter = arguments[0] if desired == 2 else None
        return Aggregate(token.start, end, operator, arguments[-1], parameter, grouping, without)

    def grouping_clause(self) -> tuple[list[str], bool, bool]:
        """`by (...)` or `without (...)`: labels, whether without, whether there was one."""
        token = self.tokens[self.index]
        word = token.text.lower() if token.kind == WORD else ""
        if word not in ("by", "without"):
            return [], False, False
        self.index += 1
        return self.grouping_labels(), word == "without", True

    def modifiers(self) -> tuple[bool, Matching]:
        """`bool`, `on`/`ignoring`, `group_left`/`group_right` and `fill` after an operator."""
        matching = Matching()
        return_bool = False
        if self.keyword("bool"):
            return_bool = True
        if self.keyword("on"):
            matching.on, matching.explicit, matching.labels = True, True, self.grouping_labels()
        elif self.keyword("ignoring"):
            matching.explicit, matching.labels = True, self.grouping_labels()
        if matching.explicit:
            for side in ("left", "right"):
                if self.keyword(f"group_{side}"):
                    matching.group = side
                    if self.tokens[self.index].kind == "(":
                        matching.include = self.grouping_labels()
                    break
        # `fill` may also be a metric's name: only with a parenthesis it is the modifier.
        while (
            self.tokens[self.index].kind == WORD
            and self.tokens[self.index].text.lower() in ("fill", "fill_left", "fill_right")
            and self.tokens[self.index + 1].kind == "("
        ):
            self.fill(matching)
        return return_bool, matching

    def fill(self, matching: Matching) -> None:
        word = self.tokens[self.index].text.lower()
        self.index += 1
        self.expect("(", "fill modifier", '"("')
        value = self.signed_number("fill modifier", "number")
        self.expect(")", "fill modifier", '")"')
        if word != "fill_right":
            matching.fill_left = value
        if word != "fill_left":
            matching.fill_right = value

    def seconds(self, token: Token) -> float:
        """A number or duration literal as a number."""
        try:
            if token.kind == DURATION:
                return parse_duration(token.text) / 1000
            return _number(token.text)
        except (ValueError, OverflowError) as error:
            raise ParseFault(self.text, token.start, str(error)) from error

    def unquoted(self, token: Token) -> str:
        try:
            return unquote(token.text)
        except ValueError as error:
            raise ParseFault(
                self.text, token.start, f"error unquoting string {token.text}: {error}"
            ) from error


def _number(text: str) -> float:
    if text[:2] in ("0x", "0X"):
        return float(int(text, 16))
    if len(text) > 1 and text[0] == "0" and text.isdigit() and not set(text) & {"8", "9"}:
        return float(int(text, 8))
    return float(text)


def _describe(token: Token) -> str:
    kind, text = token.kind, token.text
    if kind == EOF:
        return "end of input"
    if kind == WORD:
        lower = text.lower()
        if lower in _WORD_OPERATORS:
            return f"<op:{text}>"
        if lower in _KEYWORDS:
            return f"<{text}>"
        if lower in AGGREGATIONS:
            return f"<aggr:{text}>"
        return f'{"metric identifier" if ":" in text else "identifier"} "{text}"'
    if kind in (NUMBER, DURATION):
        return f'{kind} "{text}"'
    if kind == STRING_TOKEN:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'string "{escaped[:10]}"...' if len(text) > 10 else f'string "{escaped}"'
    if kind in _PRECEDENCE or kind in ("=~", "!~", "@"):
        return f"<op:{kind}>"
    return f'"{text}"'


def parse(text: str, limits: ParserLimits | None = None) -> Expression:
    """The checked tree of a text. Raises: ParseFault, QueryTooLarge."""
    return Parser(text, limits or ParserLimits()).parse()


def parse_selector(text: str, limits: ParserLimits | None = None) -> Selector:
    """The tree of a bare series selector (`match[]`). Raises: ParseFault, QueryTooLarge."""
    root = parse(text, limits)
    if not isinstance(root, Selector) or root.offset is not None or root.at_ms is not None:
        raise ParseFault(text, root.start, "expected a series selector")
    return root
