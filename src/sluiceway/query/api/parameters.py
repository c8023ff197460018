"""Parameters of the HTTP API: forms, times, durations, label names.

Invariant: whatever a client sends here ends in a value or in a TenantFault 400 that names the
parameter, in the words that Prometheus uses.
"""

import math
import re
from datetime import UTC, datetime
from urllib.parse import unquote

from sluiceway.errors import TenantFault
from sluiceway.query.promql.durations import TIME_MAX_MS, parse_duration

FIELDS_MAX = 1_000
TIME_MIN_MS = -TIME_MAX_MS
NAMED_TIMES = {
    "-292273086-05-16T16:47:06Z": TIME_MIN_MS,
    "+292277025-08-18T07:12:54.999999999Z": TIME_MAX_MS,
}
DURATION_MAX_S = 2**63 / 1e9
DURATION = re.compile(r"(?:[0-9]+(?:ms|[ywdhms]))+")
ESCAPED_NAME = re.compile(r"__|_([0-9a-fA-F]{1,6})_")


def bad(message: str) -> TenantFault:
    return TenantFault(400, "sluiceway-query-parameter", message)


def invalid(name: str, message: str) -> TenantFault:
    return bad(f'invalid parameter "{name}": {message}')


def plain(text: str) -> str:
    """Text out of its form in a URL. Raises: ValueError (not UTF-8)."""
    if "+" in text:
        text = text.replace("+", " ")
    return unquote(text, errors="strict") if "%" in text else text


class Parameters:
    """The fields of a form and of the URL; the form comes first."""

    def __init__(self, query: bytes, form: bytes = b"") -> None:
        """Raises: TenantFault 400."""
        self._values: dict[str, list[str]] = {}
        try:
            for part in (form, query):
                fields = part.decode("ascii").split("&", FIELDS_MAX)
                if len(fields) > FIELDS_MAX:
                    raise bad(f"more than {FIELDS_MAX} parameters")
                for field in fields:
                    if field:
                        name, _, value = field.partition("=")
                        self._values.setdefault(plain(name), []).append(plain(value))
        except ValueError:
            raise bad("the parameters are not a form") from None

    def text(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def time_ms(self, name: str, default: int | None = None) -> int:
        text = self.text(name)
        if not text and default is not None:
            return default
        return parse_time(name, text)

    def duration_ms(self, name: str, default: int | None = None) -> int:
        text = self.text(name)
        if not text and default is not None:
            return default
        try:
            seconds = float(text)
        except ValueError:
            try:
                if DURATION.fullmatch(text):
                    return parse_duration(text)
            except ValueError:
                pass
            raise invalid(name, f'cannot parse "{text}" to a valid duration') from None
        if not abs(seconds) < DURATION_MAX_S:
            raise invalid(name, f'cannot parse "{text}" to a valid duration. It overflows int64')
        return math.floor(seconds * 1000 + 0.5)

    def count(self, name: str, limit: int) -> int:
        """A number of things, 0 or absent meaning all; never over `limit`."""
        text = self.text(name)
        if not text:
            return limit
        if not text.isascii() or not text.isdigit() or len(text) > 15:
            raise invalid(name, "must be a number that is not negative")
        return min(int(text) or limit, limit)


def parse_time(name: str, text: str) -> int:
    """Milliseconds of Unix seconds or of RFC 3339. Raises: TenantFault 400."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if abs(seconds) * 1000 <= TIME_MAX_MS:
            return math.floor(seconds * 1000 + 0.5)
        if not math.isnan(seconds):
            return TIME_MAX_MS if seconds > 0 else TIME_MIN_MS
    if text in NAMED_TIMES:
        return NAMED_TIMES[text]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(name, f'cannot parse "{text}" to a valid timestamp') from None
    if moment.tzinfo is None or len(text) < 20:
        raise invalid(name, f'cannot parse "{text}" to a valid timestamp')
    passed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return passed.days * 86_400_000 + passed.seconds * 1000 + passed.microseconds // 1000


def unescape_name(name: str) -> str:
    """A label name out of the `U__` form that Grafana puts into paths."""
    if not name.startswith("U__"):
        return name
    body = name[3:]

    def original(match: re.Match[str]) -> str:
        if match[1] is None:
            return "_"
        code = int(match[1], 16)
        return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else match[0]

    return ESCAPED_NAME.sub(original, body)
