"""Who a request's credentials stand for: the key file's keys and the directory's, behind one door.

Invariant: the tenant comes from the verified key and from nothing else that a client sends; a key
that was checked once costs a dict's look-up, until anything about keys or tenants changes.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sluiceway.clock import Clock, SystemClock
from sluiceway.errors import BackendUnavailable, TenantFault
from sluiceway.gateway.key_file import SCOPES, KeyFile, new_key
from sluiceway.tenants.interface import TenantDirectory
from sluiceway.tenants.model import DEFAULT_TENANT, Principal, Scope

__all__ = ["ANONYMOUS", "DEFAULT_TENANT", "SCOPES", "Keyring", "Principal", "Scope", "new_key"]

VERIFIED_MAX = 4096
"""Credentials whose check is remembered; the oldest are forgotten."""
ANONYMOUS = Principal(DEFAULT_TENANT, frozenset(SCOPES))


class Keyring:
    """Checks keys, or nobody at all where there is no key file to look into."""

    def __init__(
        self,
        file: Path | None,
        directory: TenantDirectory | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`file` None: no request needs a key. With a directory that has records the file need not
        exist. Raises: OSError, ValueError."""
        self._directory = directory
        self._clock = clock or SystemClock()
        self._verified: dict[bytes, Principal] = {}
        self._version = 0 if directory is None else directory.version
        others = directory is not None and (directory.version > 0 or not directory.loaded)
        self._file = None if file is None else KeyFile(file, required=not others)

    @property
    def enabled(self) -> bool:
        return self._file is not None

    def reload(self) -> bool:
        """Read the key file again if it changed. Raises: OSError, ValueError (old keys stay)."""
        changed = self._file is not None and self._file.reload()
        if changed:
            self._verified.clear()
        return changed

    def authorize(self, headers: Mapping[bytes, bytes], scope: Scope) -> Principal:
        """Who sent these headers, if they may do `scope`. Runs on one thread; never blocks.

        Raises: TenantFault 401, 403; BackendUnavailable (the directory is not there yet).
        """
        if self._file is None:
            principal = ANONYMOUS
        else:
            if self._directory is not None and self._directory.version != self._version:
                self._version = self._directory.version
                self._verified.clear()
            authorization = headers.get(b"authorization", b"")
            known = self._verified.get(authorization)
            principal = known if known is not None else self._verify(authorization)
            if principal.expires_ms is not None and self._clock.now_ms() >= principal.expires_ms:
                raise TenantFault(401, "sluiceway-key-expired", "this key has ended")
            several = scope == "read" and "read-many" in principal.scopes
            if scope not in principal.scopes and not several:
                raise TenantFault(403, "sluiceway-key-scope", f"this key may not {scope}")
        claimed = headers.get(b"x-scope-orgid")
        if claimed is not None and claimed != principal.tenant.encode():
            return self._claiming(principal, claimed, scope)
        return principal

    def _claiming(self, principal: Principal, claimed: bytes, scope: Scope) -> Principal:
        """A key for several tenants reads the one that is named; any other key is refused."""
        tenant = claimed.decode("utf-8", "replace")
        if scope == "read" and "read-many" in principal.scopes and tenant in principal.may_read:
            self._check_standing(tenant)
            return msgspec.structs.replace(principal, tenant=tenant)
        words = "X-Scope-OrgID is not the tenant of the key"
        raise TenantFault(403, "sluiceway-tenant-mismatch", words)

    def _verify(self, authorization: bytes) -> Principal:
        presented = _key_of(authorization)
        assert self._file is not None, "asked only where keys are"
        principal = self._file.authenticate(presented)
        if principal is None and self._directory is not None:
            principal = self._directory.authenticate(presented)
            if principal is None and not self._directory.loaded:
                raise BackendUnavailable("the tenants' records are not loaded yet")
        if principal is None:
            raise TenantFault(401, "sluiceway-key-unknown", "a valid key is needed: Bearer KEY")
        self._check_standing(principal.tenant)
        if len(self._verified) >= VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[authorization] = principal
        return principal

    def _check_standing(self, tenant: str) -> None:
        if self._directory is not None and self._directory.status(tenant) == "deleting":
            words = f"tenant {tenant} is being deleted"
            raise TenantFault(403, "sluiceway-tenant-deleting", words)


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
