"""The parser's lower half: selectors, their modifiers, and durations.

Invariant: as in parser.py; every method starts at the current token and ends after what it took.
"""

import math

from sluiceway.query.promql.durations import DURATION_MAX_MS, parse_duration
from sluiceway.query.promql.faults import ParseFault
from sluiceway.query.promql.lexer import DURATION, NUMBER, STRING_TOKEN, WORD, Token
from sluiceway.query.promql.syntax import (
    Duration,
    DurationExpression,
    Expression,
    Matcher,
    RangeSelector,
    Selector,
    Subquery,
)

_DURATION_WORDS = ("step", "range", "min_of", "max_of")
_DURATION_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 3}
_EXPECTED_DURATION = "number, duration, step(), or range()"


class SelectorParser:
    """What needs no expressions. Subclassed by the parser proper."""

    text: str
    tokens: list[Token]
    index: int

    def unexpected(self, context: str, expected: str) -> ParseFault:
        raise NotImplementedError

    def descend(self) -> None:
        raise NotImplementedError

    nesting: int

    def seconds(self, token: Token) -> float:
        raise NotImplementedError

    def unquoted(self, token: Token) -> str:
        raise NotImplementedError

    def expect(self, kind: str, context: str, expected: str) -> Token:
        """Take the current token if it is of this kind, else raise."""
        token = self.tokens[self.index]
        if token.kind != kind:
            raise self.unexpected(context, expected)
        self.index += 1
        return token

    def keyword(self, word: str) -> bool:
        """Take the current token if it is this word."""
        token = self.tokens[self.index]
        if token.kind == WORD and token.text.lower() == word:
            self.index += 1
            return True
        return False

    def grouping_labels(self) -> list[str]:
        self.expect("(", "grouping opts", '"("')
        labels: list[str] = []
        while self.tokens[self.index].kind != ")":
            token = self.tokens[self.index]
            if token.kind == WORD and ":" not in token.text:
                labels.append(token.text)
            elif token.kind == STRING_TOKEN:
                name = self.unquoted(token)
                if not name or not name.isprintable():
                    raise ParseFault(
                        self.text, token.start, f'invalid label name "{token.text[1:-1]}"'
                    )
                labels.append(name)
            else:
                raise self.unexpected("grouping opts", "label")
            self.index += 1
            if self.tokens[self.index].kind == ",":
                self.index += 1
            elif self.tokens[self.index].kind != ")":
                raise self.unexpected("grouping opts", '"," or ")"')
        self.index += 1
        return labels

    def selector(self, name: str, start: int) -> Selector:
        """A metric name already taken, and the matchers in braces after it, if any."""
        previous = self.tokens[self.index - 1]
        matchers: list[Matcher] = []
        end = previous.start + len(previous.text)
        if self.tokens[self.index].kind == "{":
            self.index += 1
            while self.tokens[self.index].kind != "}":
                matchers.append(self.matcher())
                if self.tokens[self.index].kind == ",":
                    self.index += 1
                elif self.tokens[self.index].kind != "}":
                    raise self.unexpected("label matching", '"," or "}"')
            end = self.tokens[self.index].start + 1
            self.index += 1
        if name:
            matchers.append(Matcher("__name__", "=", name))
        return Selector(start, end, name, matchers)

    def matcher(self) -> Matcher:
        token = self.tokens[self.index]
        if token.kind == WORD:
            name = token.text
        elif token.kind == STRING_TOKEN:
            name = self.unquoted(token)
        else:
            raise self.unexpected("label matching", 'identifier or "}"')
        self.index += 1
        operator = self.tokens[self.index]
        if token.kind == STRING_TOKEN and operator.kind in (",", "}"):
            # A quoted metric name, as in {"my.metric", job="a"}.
            return Matcher("__name__", "=", name)
        if operator.kind not in ("=", "!=", "=~", "!~"):
            raise self.unexpected("label matching", "label matching operator")
        self.index += 1
        value = self.expect(STRING_TOKEN, "label matching", "string")
        return Matcher(name, operator.kind, self.unquoted(value))

    def postfix(self, node: Expression) -> Expression:
        """Ranges, subqueries, `offset`, `@` and extensions behind a node."""
        descents = 0
        while True:
            token = self.tokens[self.index]
            if token.kind == "[":
                self.index += 1
                self.descend()
                descents += 1
                node = self.brackets(node, token)
            elif token.kind == "@":
                self.index += 1
                self.at(node)
            elif token.kind == WORD and token.text.lower() == "offset":
                self.index += 1
                self.offset(node)
            elif token.kind == WORD and token.text.lower() in ("smoothed", "anchored"):
                self.index += 1
                self.extension(node, token.text.lower())
            else:
                self.nesting -= descents
                return node

    def brackets(self, node: Expression, opening: Token) -> Expression:
        range_ = self.duration_expression(0, "subquery or range selector")
        if self.tokens[self.index].kind == ":":
            self.index += 1
            step: Duration | None = None
            if self.tokens[self.index].kind != "]":
                step = self.fixed(self.duration_expression(0, "subquery selector"), positive=True)
            closing = self.expect("]", "subquery selector", '"]"')
            return Subquery(
                node.start, closing.start + 1, node, self.fixed(range_, positive=True), step
            )
        closing = self.expect("]", "subquery or range", '":" or "]"')
        if not isinstance(node, Selector):
            message = "ranges only allowed for vector selectors"
        elif node.offset is not None:
            message = "no offset modifiers allowed before range"
        elif node.at_ms is not None or node.at_edge:
            message = "no @ modifiers allowed before range"
        else:
            return RangeSelector(
                node.start, closing.start + 1, node, self.fixed(range_, positive=True)
            )
        raise ParseFault(self.text, opening.start, message)

    def target(self, node: Expression, words: str) -> Selector | Subquery:
        """The node that a modifier behind `node` belongs to."""
        if isinstance(node, RangeSelector):
            return node.selector
        if isinstance(node, Selector | Subquery):
            return node
        raise ParseFault(
            self.text,
            node.start,
            f"{words} modifier must be preceded by an instant vector selector or range vector"
            " selector or a subquery",
        )

    def close(self, node: Expression) -> None:
        last = self.tokens[self.index - 1]
        node.end = last.start + len(last.text)

    def offset(self, node: Expression) -> None:
        value = self.duration_operand("offset")
        target = self.target(node, "offset")
        if target.offset is not None:
            raise ParseFault(self.text, node.start, "offset may not be set multiple times")
        target.offset = self.fixed(value, positive=False)
        self.close(node)

    def at(self, node: Expression) -> None:
        token = self.tokens[self.index]
        edge = token.text.lower() if token.kind == WORD else ""
        seconds = 0.0
        if edge in ("start", "end"):
            self.index += 1
            self.expect("(", "@", "timestamp")
            self.expect(")", "@", "timestamp")
        else:
            edge = ""
            seconds = self.signed_number("@", "timestamp")
            if not abs(seconds) < 2**63:
                raise ParseFault(
                    self.text,
                    node.start,
                    f"timestamp out of bounds for @ modifier: {_go_float(seconds)}",
                )
        target = self.target(node, "@")
        if target.at_ms is not None or target.at_edge:
            raise ParseFault(self.text, node.start, "@ <timestamp> may not be set multiple times")
        if edge:
            target.at_edge = edge
        else:
            target.at_ms = round(seconds * 1000)
        self.close(node)

    def extension(self, node: Expression, word: str) -> None:
        if isinstance(node, Subquery):
            message = f"{word} modifier is not supported for subqueries"
            raise ParseFault(self.text, node.start, message)
        target = node.selector if isinstance(node, RangeSelector) else node
        if not isinstance(target, Selector):
            raise ParseFault(self.text, node.start, f"{word} modifier not implemented")
        if target.extension not in ("", word):
            message = "anchored and smoothed modifiers cannot be used together"
            raise ParseFault(self.text, node.start, message)
        target.extension = word

    def signed_number(self, context: str, expected: str) -> float:
        token = self.tokens[self.index]
        sign = 1.0
        if token.kind in ("+", "-"):
            sign = -1.0 if token.kind == "-" else 1.0
            self.index += 1
            token = self.tokens[self.index]
        if token.kind == WORD and token.text.lower() in ("inf", "nan"):
            self.index += 1
            return sign * float(token.text)
        if token.kind not in (NUMBER, DURATION):
            raise self.unexpected(context, expected)
        self.index += 1
        return sign * self.seconds(token)

    def duration_operand(self, context: str) -> DurationExpression:
        """A signed literal, a call, or a parenthesised expression."""
        token = self.tokens[self.index]
        kind, start = token.kind, token.start
        if kind in ("+", "-"):
            self.index += 1
            self.descend()
            operand = self.duration_operand(context)
            self.nesting -= 1
            return DurationExpression(kind, right=operand, start=start)
        if kind == DURATION:
            self.index += 1
            return DurationExpression("value", self.milliseconds(token) / 1000, start=start)
        if kind == NUMBER:
            self.index += 1
            return DurationExpression("value", self.seconds(token), start=start)
        if kind == "(":
            self.index += 1
            inner = self.duration_expression(0, context)
            self.expect(")", context, '")"')
            return DurationExpression("paren", right=inner, start=start)
        word = token.text.lower() if kind == WORD else ""
        if word not in _DURATION_WORDS:
            raise self.unexpected(context, _EXPECTED_DURATION)
        self.index += 1
        self.expect("(", context, '"("')
        left = right = None
        if word in ("min_of", "max_of"):
            left = self.duration_expression(0, context)
            self.expect(",", context, '","')
            right = self.duration_expression(0, context)
        self.expect(")", context, '")"')
        return DurationExpression(word, left=left, right=right, start=start)

    def duration_expression(self, lowest: int, context: str) -> DurationExpression:
        self.descend()
        token = self.tokens[self.index]
        if token.kind in ("+", "-"):
            self.index += 1
            operand = self.duration_expression(2, context)
            left = DurationExpression(token.kind, right=operand, start=token.start)
        else:
            left = self.duration_operand(context)
        while True:
            token = self.tokens[self.index]
            precedence = _DURATION_PRECEDENCE.get(token.kind, 0)
            if precedence <= lowest:
                self.nesting -= 1
                return left
            self.index += 1
            self.descend()
            right = self.duration_expression(
                precedence - 1 if precedence == 3 else precedence, context
            )
            left = DurationExpression(token.kind, left=left, right=right, start=left.start)

    def milliseconds(self, token: Token) -> int:
        try:
            return parse_duration(token.text)
        except ValueError as error:
            raise ParseFault(self.text, token.start, str(error)) from error

    def fixed(self, expression: DurationExpression, positive: bool) -> Duration:
        """Milliseconds where the expression is a literal, else the expression itself."""
        sign, node = 1, expression
        while node.operator in ("+", "-") and node.left is None and node.right is not None:
            sign = -sign if node.operator == "-" else sign
            node = node.right
        if node.operator != "value":
            return expression
        seconds = sign * node.value
        if not math.isfinite(seconds) or abs(seconds * 1000) > DURATION_MAX_MS:
            raise ParseFault(self.text, expression.start, "duration out of range")
        if positive and seconds <= 0:
            raise ParseFault(self.text, expression.start, "duration must be greater than 0")
        return round(seconds * 1000)


def _go_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:f}"
