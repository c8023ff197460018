"""Limits as people write them: `write.points_per_s=100k`, `retention.raw_ms=15d`, `+50%`.

Invariant: what is read here is what the API takes: whole numbers, null for no limit.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
DAY_MS = 86_400_000
TIMES_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": DAY_MS,
    "w": 7 * DAY_MS,
    "y": 365 * DAY_MS,
}
LIFTED = {"unlimited", "none", "null"}
INHERITED = "inherit"
NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
Patch = dict[str, dict[str, Any]]


def duration_ms(text: str) -> int:
    """`24h`, `15d`, `1h30m` or plain milliseconds. Raises: ValueError."""
    if text.isascii() and text.isdigit():
        return int(text)
    parts = re.findall(r"([0-9]+)(ms|[smhdwy])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r} (as 24h, 15d)")
    return sum(int(number) * TIMES_MS[unit] for number, unit in parts)


def amount(name: str, text: str) -> Any:
    """The value of the limit `slice.limit`. Raises: ValueError."""
    text = text.strip()
    if text.lower() in LIFTED:
        return None
    if name == "write.over_rate":
        return text
    if "_ms" in name:
        return duration_ms(text)
    match = NUMBER.fullmatch(text.lower().replace("_", "").replace(",", ""))
    units = {**SIZES, **BINARY, "b": 1, **{f"{unit}b": size for unit, size in BINARY.items()}}
    if match is None or match[2] not in units:
        raise ValueError(f"{name}: not a number: {text!r} (as 100k, 16MiB, unlimited)")
    return round(float(match[1]) * units[match[2]])


def assignments(texts: Iterable[str]) -> tuple[Patch, list[str], dict[str, float]]:
    """(limits set, names to inherit again, factors) out of `slice.limit=value` each.

    Raises: ValueError.
    """
    patch: Patch = {}
    inherited, scale = [], {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        part, dot, limit = name.partition(".")
        if not (equals and dot):
            raise ValueError(f"not SLICE.LIMIT=VALUE: {text!r} (as write.points_per_s=100k)")
        if value.lower() == INHERITED:
            inherited.append(name)
        elif re.fullmatch(r"[+-][0-9.]+%", value):
            scale[name] = 1 + float(value[:-1]) / 100
        else:
            patch.setdefault(part, {})[limit] = amount(name, value)
    return patch, inherited, scale


def limits_of(document: Mapping[str, Any]) -> Patch:
    """Limits of a YAML document, whose values may be written as people do. Raises: ValueError."""
    patch: Patch = {}
    for part, limits in document.items():
        if not isinstance(limits, Mapping):
            raise ValueError(f"limits.{part} is not a mapping")
        patch[part] = {
            limit: amount(f"{part}.{limit}", value) if isinstance(value, str) else value
            for limit, value in limits.items()
        }
    return patch
