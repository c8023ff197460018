"""Paths of the tiers' files: an injective encoding of names, and where a unit lies.

Invariant: two names never share a path, and no name reaches outside its directory.
docs/formats/catalog.md has the rules.
"""

import hashlib
from datetime import UTC, datetime, timedelta

WARM_DIRECTORY = "tiers/warm"
COLD_DIRECTORY = "tiers/cold"
MANIFEST_DIRECTORY = "tiers/manifest"
NAME_BYTES_MAX = 120
NAME_BYTES_KEPT = 80
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
EMPTY = "%~empty"


def encode_name(name: str) -> str:
    """A tenant's or metric's name as one part of a path."""
    data = name.encode("utf-8", "surrogatepass")
    if not data:
        return EMPTY
    encoded = "".join(chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in data)
    if encoded.startswith("."):
        encoded = f"%2E{encoded[1:]}"
    if len(encoded) <= NAME_BYTES_MAX:
        return encoded
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return f"{encoded[:NAME_BYTES_KEPT]}%~{digest}"


def day_of_end_ms(end_ms: int) -> int:
    """The beginning of the day that a window with this end belongs to: a day is (midnight,
    midnight + 24 h]."""
    return (end_ms - 1) // DAY_MS * DAY_MS


def month_of_end_ms(end_ms: int) -> tuple[int, int]:
    """(beginning, end) of the month, UTC, that a window with this end belongs to."""
    at = datetime.fromtimestamp((end_ms - 1) // 1000, UTC)
    first = datetime(at.year, at.month, 1, tzinfo=UTC)
    after = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    return int(first.timestamp()) * 1000, int(after.timestamp()) * 1000


def day_name(day_ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=day_ms)).strftime("%Y-%m-%d")


def warm_directory(tenant: str, day_ms: int) -> str:
    return f"{WARM_DIRECTORY}/{encode_name(tenant)}/{day_name(day_ms)}"


def warm_path(tenant: str, from_ms: int, until_ms: int, number: int) -> str:
    """Of a unit of one day: (from_ms, until_ms] are whole hours of it."""
    day_ms = day_of_end_ms(until_ms)
    if from_ms < day_ms or from_ms >= until_ms or from_ms % HOUR_MS or until_ms % HOUR_MS:
        raise ValueError(f"not whole hours of one day: {from_ms}, {until_ms}")
    first, last = (from_ms - day_ms) // HOUR_MS, (until_ms - day_ms) // HOUR_MS
    return f"{warm_directory(tenant, day_ms)}/{first:02d}-{last:02d}-{number:012d}.swm"
