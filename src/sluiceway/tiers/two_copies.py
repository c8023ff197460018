"""A small JSON document with its checksum, twice in one file, so that one damaged sector costs
nothing: manifests, the catalog, the index of a backup.

    | JSON, no line break inside | \\n | "crc32 " + 8 hex digits | \\n |   and the same again

Invariant: what is read is what was written, to the byte, or nothing.
"""

import zlib
from typing import TypeVar

import msgspec

from sluiceway.errors import Corruption

TRAILER_BYTES = 16
Document = TypeVar("Document", bound=msgspec.Struct)


class Versioned(msgspec.Struct):
    """What a document of any version has."""

    version: int


def encode(document: msgspec.Struct) -> bytes:
    """The bytes of a file: the document and its CRC-32, twice."""
    line = msgspec.json.encode(document)
    copy = line + b"\ncrc32 %08x\n" % zlib.crc32(line)
    return copy + copy


def is_whole(copy: bytes) -> bool:
    """Is it one copy, with the checksum that its line has?"""
    line, trailer = copy[:-TRAILER_BYTES], copy[-TRAILER_BYTES:]
    return bool(line) and trailer == b"\ncrc32 %08x\n" % zlib.crc32(line)


def decode(data: bytes, kind: type[Document], version_max: int, name: str) -> Document | None:
    """The document, or None where neither copy is whole. Raises: Corruption (a newer format, or
    what no build has written), in which it is called `name`."""
    half = len(data) // 2
    # A copy's length is known while the file is whole; a torn second copy still has line ends.
    for copy in (data[:half], data[half:], b"\n".join(data.split(b"\n")[:2]) + b"\n"):
        if is_whole(copy):
            line = copy[:-TRAILER_BYTES]
            try:
                version = msgspec.json.decode(line, type=Versioned).version
                if version > version_max:
                    words = f"{name} format {version} is newer than this build reads"
                    raise Corruption(f"{words} ({version_max})")
                return msgspec.json.decode(line, type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Corruption(f"not a {name}, for all its checksum: {error}") from None
    return None
