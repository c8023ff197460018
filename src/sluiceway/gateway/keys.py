"""Keys: which tenant and which scopes a request's credentials stand for.

Invariant: the tenant comes from the verified key and from nothing else that a client sends. A key
is 256 random bits; the file keeps a look-up prefix and the SHA-256 of the whole.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path
from typing import Literal

from sluiceway.errors import TenantFault

Scope = Literal["write", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("write", "read", "admin")
DEFAULT_TENANT = "default"
KEY_LABEL = "slw"
VERIFIED_MAX = 4096
"""Credentials whose check is remembered; the oldest are forgotten."""


@dataclass(frozen=True)
class Principal:
    """Who asks."""

    tenant: str
    scopes: frozenset[str]


ANONYMOUS = Principal(DEFAULT_TENANT, frozenset(SCOPES))


@dataclass(frozen=True)
class _Entry:
    digest: bytes
    principal: Principal


class Keyring:
    """The keys of a file, or nobody's check at all. Any change of the file shows in `reload`."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._by_prefix: dict[str, list[_Entry]] = {}
        self._verified: dict[bytes, Principal] = {}
        self._stamp: tuple[int, int] | None = None
        if file is not None:
            self.reload()

    @property
    def enabled(self) -> bool:
        return self._file is not None

    def reload(self) -> bool:
        """Read the file again if it changed. Raises: OSError, ValueError (old keys stay)."""
        if self._file is None:
            return False
        try:
            status = self._file.stat()
        except FileNotFoundError:
            words = "no key file: `sluiceway keys new NAME` makes one"
            raise FileNotFoundError(ENOENT, words, str(self._file)) from None
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return False
        by_prefix: dict[str, list[_Entry]] = {}
        for row in tomllib.loads(self._file.read_text()).get("key", []):
            unknown = set(row["scopes"]) - set(SCOPES)
            if unknown:
                raise ValueError(f"unknown scopes in {self._file.name}: {sorted(unknown)}")
            principal = Principal(row.get("tenant", DEFAULT_TENANT), frozenset(row["scopes"]))
            entry = _Entry(bytes.fromhex(row["sha256"]), principal)
            by_prefix.setdefault(row["prefix"], []).append(entry)
        self._by_prefix, self._stamp = by_prefix, stamp
        self._verified.clear()
        return True

    def authorize(self, headers: Mapping[bytes, bytes], scope: Scope) -> Principal:
        """Who sent these headers, if they may do `scope`. Raises: TenantFault 401, 403."""
        if self._file is None:
            principal = ANONYMOUS
        else:
            authorization = headers.get(b"authorization", b"")
            known = self._verified.get(authorization)
            principal = known if known is not None else self._verify(authorization)
            if scope not in principal.scopes:
                raise TenantFault(403, "sluiceway-key-scope", f"this key may not {scope}")
        claimed = headers.get(b"x-scope-orgid")
        if claimed is not None and claimed != principal.tenant.encode():
            raise TenantFault(
                403, "sluiceway-tenant-mismatch", "X-Scope-OrgID is not the tenant of the key"
            )
        return principal

    def _verify(self, authorization: bytes) -> Principal:
        key = _key_of(authorization)
        prefix = key.split("_")[1] if key.count("_") >= 2 else ""
        digest = hashlib.sha256(key.encode()).digest()
        for entry in self._by_prefix.get(prefix, ()):
            if hmac.compare_digest(entry.digest, digest):
                if len(self._verified) >= VERIFIED_MAX:
                    del self._verified[next(iter(self._verified))]
                self._verified[authorization] = entry.principal
                return entry.principal
        raise TenantFault(401, "sluiceway-key-unknown", "a valid key is needed: Bearer KEY")


def _key_of(authorization: bytes) -> str:
    """The key out of `Bearer KEY`, or the password of basic auth."""
    kind, _, value = authorization.partition(b" ")
    try:
        if kind.lower() == b"bearer":
            return value.strip().decode()
        if kind.lower() == b"basic":
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (UnicodeDecodeError, binascii.Error):
        pass
    return ""


def new_key(tenant: str, name: str, scopes: tuple[Scope, ...]) -> tuple[str, str]:
    """(the key, to be shown once; the text to append to the key file)."""
    prefix = secrets.token_hex(4)
    key = f"{KEY_LABEL}_{prefix}_{secrets.token_urlsafe(32)}"
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    text = (
        f"[[key]]\nname = {_toml(name)}\ntenant = {_toml(tenant)}\nscopes = [{listed}]\n"
        f'prefix = "{prefix}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n\n'
    )
    return key, text


def _toml(text: str) -> str:
    if any(ord(c) < 32 or c in '"\\' for c in text):
        raise ValueError(f"not a plain name: {text!r}")
    return f'"{text}"'
