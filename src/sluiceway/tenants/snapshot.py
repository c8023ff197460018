"""The snapshot file: what the admin side publishes and every process reads.

Invariant: a reader sees one whole snapshot or the one before it. Layout: docs/formats/tenants.md.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sluiceway.errors import Corruption
from sluiceway.tenants.model import Plan, PolicyInForce, Snapshot, Tenant

VERSION = 2
VERSION_MIN = 1
"""Without a policy: what builds before policies wrote."""
FILE_MODE = 0o600


class Head(msgspec.Struct, frozen=True, tag="head", tag_field="kind"):
    """The first line."""

    version: int
    revision: int
    plans: int
    tenants: int
    policies: int = 0


_LINE = msgspec.json.Decoder(Head | Plan | Tenant | PolicyInForce)


def lines_of(snapshot: Snapshot) -> Iterator[bytes]:
    """The file, line by line."""
    policies = () if snapshot.policy is None else (snapshot.policy,)
    plans, tenants = snapshot.plans.values(), snapshot.tenants.values()
    head = Head(VERSION, snapshot.revision, len(plans), len(tenants), len(policies))
    crc = 0
    for noun in (head, *plans, *tenants, *policies):
        line = msgspec.json.encode(noun) + b"\n"
        crc = zlib.crc32(line, crc)
        yield line
    yield b"crc32 %08x\n" % crc


def decode(data: bytes) -> Snapshot:
    """One line at a time, so that the interpreter is never held for long. Raises: Corruption."""
    *lines, last = data.splitlines(keepends=True) or [b""]
    crc = 0
    for line in lines:
        crc = zlib.crc32(line, crc)
    if last != b"crc32 %08x\n" % crc:
        raise Corruption("the snapshot of the tenants is not whole")
    try:
        version = msgspec.json.decode(lines[0], type=dict)["version"]
        if not (isinstance(version, int) and VERSION_MIN <= version <= VERSION):
            raise Corruption(f"the snapshot of the tenants has version {version}, not {VERSION}")
        head = _LINE.decode(lines[0])
        nouns = [_LINE.decode(line) for line in lines[1:]]
    except (msgspec.MsgspecError, KeyError, IndexError) as error:
        raise Corruption(f"the snapshot of the tenants cannot be read: {error}") from None
    assert isinstance(head, Head), "a line with a version is a head"
    plans = {noun.name: noun for noun in nouns if isinstance(noun, Plan)}
    tenants = {noun.name: noun for noun in nouns if isinstance(noun, Tenant)}
    policies = [noun for noun in nouns if isinstance(noun, PolicyInForce)]
    counts = len(plans), len(tenants), len(policies)
    if counts != (head.plans, head.tenants, head.policies):
        raise Corruption("the snapshot of the tenants lacks lines")
    return Snapshot(head.revision, plans, tenants, policies[0] if policies else None)


def publish(file: Path, snapshot: Snapshot) -> None:
    """Replace the file; durable when it returns. Blocks. Raises: OSError."""
    aside = file.with_name(f"{file.name}.new")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb") as out:
        out.writelines(lines_of(snapshot))
        out.flush()
        os.fsync(out.fileno())
    aside.replace(file)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
