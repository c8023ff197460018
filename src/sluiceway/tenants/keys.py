"""How a key is made and how a shown one is checked.

Invariant: a key is 256 random bits; only its SHA-256 and its look-up prefix are kept, and two
digests are compared in constant time.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

from sluiceway.tenants.model import Key, Principal

KEY_LABEL = "slw"
PREFIX_BYTES = 4
SECRET_BYTES = 32
KeysByPrefix = Mapping[str, Iterable[Key]]


def new_secret() -> tuple[str, str, str]:
    """(the key, to be shown once; its prefix; its SHA-256 in hex)."""
    prefix = secrets.token_hex(PREFIX_BYTES)
    key = f"{KEY_LABEL}_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return key, prefix, hashlib.sha256(key.encode()).hexdigest()


def by_prefix(keys: Iterable[Key]) -> dict[str, list[Key]]:
    """Keys in look-up order; prefixes may collide between two files of keys."""
    found: dict[str, list[Key]] = {}
    for key in keys:
        found.setdefault(key.id, []).append(key)
    return found


def find(presented: str, keys: KeysByPrefix) -> Principal | None:
    """Whom a shown key stands for, whatever its expiry."""
    parts = presented.split("_", 2)
    if len(parts) != 3:
        return None
    digest = hashlib.sha256(presented.encode()).hexdigest()
    for key in keys.get(parts[1], ()):
        if hmac.compare_digest(key.sha256, digest):
            return key.principal()
    return None
