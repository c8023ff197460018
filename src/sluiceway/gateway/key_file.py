"""The key file: keys that an operator keeps by hand, above all the first one.

Invariant: the file holds a look-up prefix and a SHA-256 a key, never the key. A file that cannot be
read leaves the keys that were there.
"""

import tomllib
from errno import ENOENT
from pathlib import Path

from sluiceway.tenants.keys import by_prefix, find, new_secret
from sluiceway.tenants.model import DEFAULT_TENANT, Key, Principal, Scope

SCOPES: tuple[Scope, ...] = ("write", "read", "admin")
"""What a key of the file may do; `read-many` is the directory's."""


class KeyFile:
    """The keys of one file. Any change of it shows in `reload`."""

    def __init__(self, file: Path, required: bool) -> None:
        """Reads it. `required`: there are no other keys. Raises: OSError, ValueError."""
        self._file = file
        self._required = required
        self._keys: dict[str, list[Key]] = {}
        self._stamp: tuple[int, int] | None = None
        self.reload()

    def authenticate(self, presented: str) -> Principal | None:
        """Whom a key stands for. Hashes; never blocks."""
        return find(presented, self._keys)

    def reload(self) -> bool:
        """Read the file again if it changed. Raises: OSError, ValueError (old keys stay)."""
        try:
            status = self._file.stat()
        except FileNotFoundError:
            if not self._required:
                changed, self._keys, self._stamp = bool(self._keys), {}, None
                return changed
            words = "no key file: `sluiceway keys new NAME` makes one"
            raise FileNotFoundError(ENOENT, words, str(self._file)) from None
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return False
        keys = []
        for row in tomllib.loads(self._file.read_text()).get("key", []):
            unknown = set(row["scopes"]) - set(SCOPES)
            if unknown:
                raise ValueError(f"unknown scopes in {self._file.name}: {sorted(unknown)}")
            tenant, name = row.get("tenant", DEFAULT_TENANT), row.get("name", "")
            bytes.fromhex(row["sha256"])  # refuse what is no digest
            if not (tenant + name).isprintable():  # both stand in a header line of ours
                raise ValueError(f"not a plain name in {self._file.name}: {tenant!r}, {name!r}")
            keys.append(
                Key(row["prefix"], tenant, name, tuple(row["scopes"]), row["sha256"].lower())
            )
        self._keys, self._stamp = by_prefix(keys), stamp
        return True


def new_key(tenant: str, name: str, scopes: tuple[Scope, ...]) -> tuple[str, str]:
    """(the key, to be shown once; the text to append to the key file)."""
    key, prefix, digest = new_secret()
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    text = (
        f"[[key]]\nname = {_toml(name)}\ntenant = {_toml(tenant)}\nscopes = [{listed}]\n"
        f'prefix = "{prefix}"\nsha256 = "{digest}"\n\n'
    )
    return key, text


def _toml(text: str) -> str:
    if any(ord(c) < 32 or c in '"\\' for c in text):
        raise ValueError(f"not a plain name: {text!r}")
    return f'"{text}"'
