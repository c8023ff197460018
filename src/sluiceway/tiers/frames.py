"""Frames of an export: points and windows in columns (docs/formats/export.md).

Invariant: what is read is what was written, to the bit; a frame that is cut, damaged or larger than
its limits is Corruption, found before its memory is taken.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sluiceway.errors import Corruption
from sluiceway.kernels import LabelTable, pack_bytes, unpack_bytes

MAGIC, VERSION = b"SLXP", 1
HEAD = struct.Struct("<4sBBHIIII")
CRC_BYTES = 4
Kind = Literal["head", "metadata", "points", "windows", "end"]
KINDS: tuple[Kind, ...] = ("head", "metadata", "points", "windows", "end")
HEADER_BYTES_MAX = 1 << 20
PACKED_BYTES_MAX = 256 << 20
BODY_BYTES_MAX = 512 << 20
TYPES: dict[str, tuple[str, bool]] = {
    "u8": ("<u1", False),
    "u32": ("<u4", False),
    "i64": ("<i8", False),
    "f64": ("<f8", False),
    "i64d": ("<i8", True),
}
"""Of a column: its NumPy type, and whether it stands as differences."""
WINDOW_COLUMNS = {
    "end_ms": "i64d",
    "count": "u32",
    "first_ms": "i64d",
    "first": "f64",
    "last_ms": "i64d",
    "last": "f64",
    "ends_stale": "u8",
    "dropped": "f64",
    "sum": "f64",
    "minimum": "f64",
    "maximum": "f64",
}
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Frame:
    """One frame, unpacked. `labels` and `columns` are those of points and windows."""

    kind: Kind
    header: dict[str, Any]
    labels: LabelTable | None = None
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)

    def window_columns(self) -> dict[str, NDArray[Any]]:
        """Of windows: offsets, kinds and the windows' columns, as the kernels take them."""
        taken = {name: self.columns[name] for name in ("offsets", "kinds", *WINDOW_COLUMNS)}
        return {**taken, "ends_stale": self.columns["ends_stale"].astype(np.bool_)}


def plain_frame(kind: Kind, header: Mapping[str, Any]) -> bytes:
    """A frame without a body."""
    return _frame(kind, header, b"")


def points_frame(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    from_ms: int,
    until_ms: int,
) -> bytes:
    header = {"from_ms": from_ms, "until_ms": until_ms}
    header |= {"series": len(labels), "points": len(values)}
    columns = {
        "offsets": (offsets, "i64d"),
        "times_ms": (times_ms, "i64d"),
        "values": (values, "f64"),
    }
    return _column_frame("points", header, labels, columns)


def windows_frame(
    labels: LabelTable, columns: Arrays, marks: NDArray[np.uint8], header: Mapping[str, Any]
) -> bytes:
    """`header`: tier, window_ms, taken, from_ms, until_ms."""
    counts = {
        "series": len(labels),
        "windows": len(columns["end_ms"]),
        "points": int(columns["count"].sum(dtype=np.int64)),
    }
    typed: dict[str, tuple[NDArray[Any], str]] = {
        "offsets": (columns["offsets"], "i64d"),
        "kinds": (columns["kinds"], "u8"),
        "marks": (marks, "u8"),
    }
    typed |= {name: (columns[name], stands) for name, stands in WINDOW_COLUMNS.items()}
    return _column_frame("windows", {**header, **counts}, labels, typed)


def _column_frame(
    kind: Kind,
    header: Mapping[str, Any],
    labels: LabelTable,
    columns: Mapping[str, tuple[NDArray[Any], str]],
) -> bytes:
    body = [labels.to_bytes()]
    told = [{"name": "labels", "type": "labels", "rows": len(labels), "bytes": len(body[0])}]
    for name, (column, stands) in columns.items():
        data = _column_bytes(column, stands)
        told.append({"name": name, "type": stands, "rows": len(column), "bytes": len(data)})
        body.append(data)
    return _frame(kind, {**header, "columns": told}, b"".join(body))


def _column_bytes(column: NDArray[Any], stands: str) -> bytes:
    numpy_type, differences = TYPES[stands]
    column = np.ascontiguousarray(column, dtype=numpy_type)
    if differences:
        column = np.diff(column, prepend=column.dtype.type(0))
    if column.itemsize == 8:
        return column.view(np.uint8).reshape(-1, 8).T.tobytes()
    return column.tobytes()


def _column(data: memoryview, stands: str, rows: int) -> NDArray[Any]:
    numpy_type, differences = TYPES[stands]
    size = np.dtype(numpy_type).itemsize
    if len(data) != rows * size:
        raise Corruption(f"export: a column of {rows} rows in {len(data)} bytes")
    if size < 8:
        return np.frombuffer(data, dtype=numpy_type).copy()
    shuffled = np.frombuffer(data, dtype=np.uint8).reshape(8, rows)
    column = np.array(shuffled.T, order="C").view(numpy_type).reshape(rows)
    return np.cumsum(column, dtype=np.int64) if differences else column


def _frame(kind: Kind, header: Mapping[str, Any], body: bytes) -> bytes:
    text = msgspec.json.encode(header)
    packed = pack_bytes(body) if body else b""
    if len(text) > HEADER_BYTES_MAX or len(packed) > PACKED_BYTES_MAX or len(body) > BODY_BYTES_MAX:
        raise ValueError(f"a frame of {kind} over its limits")
    code = KINDS.index(kind) + 1
    head = HEAD.pack(MAGIC, VERSION, code, 0, len(text), len(packed), len(body), 0)
    head = head[:-CRC_BYTES] + checksum(head, text, packed).to_bytes(CRC_BYTES, "little")
    return head + text + packed


def checksum(head: bytes, text: bytes, packed: bytes) -> int:
    """Over all of a frame but itself."""
    return zlib.crc32(packed, zlib.crc32(text, zlib.crc32(head[:-CRC_BYTES])))


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A frame as it stands, its checksum compared."""

    code: int
    header: dict[str, Any]
    packed: bytes
    body_bytes: int
    data: bytes
    """All of it."""

    @property
    def kind(self) -> Kind:
        return KINDS[self.code - 1]

    def unpack(self) -> Frame:
        """Raises: Corruption."""
        kind, header = self.kind, self.header
        try:
            body = memoryview(
                unpack_bytes(self.packed, self.body_bytes) if self.body_bytes else b""
            )
            labels, columns, at = None, dict[str, NDArray[Any]](), 0
            for told in header.get("columns", ()):
                data = body[at : at + told["bytes"]]
                at += told["bytes"]
                if told["type"] == "labels":
                    labels = LabelTable.from_bytes(bytes(data))
                else:
                    columns[told["name"]] = _column(data, told["type"], told["rows"])
            return Frame(kind, header, labels, columns)
        except (KeyError, TypeError, ValueError) as error:
            raise Corruption(f"export: a frame of {kind}: {error}") from None


def read_frames(file: BinaryIO) -> Iterator[PackedFrame]:
    """The frames of a stream, one held at a time. Raises: Corruption."""
    while head := _read(file, HEAD.size, at_end=True):
        magic, version, code, _, text_bytes, packed_bytes, body_bytes, crc32 = HEAD.unpack(head)
        if magic != MAGIC:
            raise Corruption("export: no frame of an export here")
        if version != VERSION:
            raise Corruption(f"export: version {version} is not known here")
        too_large = text_bytes > HEADER_BYTES_MAX or packed_bytes > PACKED_BYTES_MAX
        if not 1 <= code <= len(KINDS) or too_large or body_bytes > BODY_BYTES_MAX:
            raise Corruption("export: a frame's head is damaged")
        text, packed = _read(file, text_bytes), _read(file, packed_bytes)
        if checksum(head, text, packed) != crc32:
            raise Corruption("export: a frame's checksum is wrong")
        try:
            header = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise Corruption(f"export: a frame's header: {error}") from None
        yield PackedFrame(code, header, packed, body_bytes, head + text + packed)


def _read(file: BinaryIO, count: int, at_end: bool = False) -> bytes:
    data = file.read(count)
    while len(data) < count:
        more = file.read(count - len(data))
        if not more:
            break
        data += more
    if len(data) < count and not (at_end and not data):
        raise Corruption("export: cut off within a frame")
    return data
