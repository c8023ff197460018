"""Frames of the evaluate protocol (docs/formats/evaluate.md), for the ends of it that are Python.

Invariant: nothing is read of a frame before its head's checksum and its length's cap were checked.
"""

import socket
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from sluiceway.errors import (
    BackendUnavailable,
    Cancelled,
    Corruption,
    DeadlineExceeded,
    Overloaded,
    SluicewayError,
    TenantFault,
)

MAGIC = b"SWEV"
VERSION = 1
REQUEST, ANSWER, PIECE, ERROR = 1, 2, 3, 4
HEAD = struct.Struct("<4sBBHQII")
CHECKSUM = struct.Struct("<I")
JSON_BYTES_MAX = 16 << 20
PIECE_BYTES = 1 << 20

Column = tuple[str, str, bytes | memoryview]
"""Name, type and bytes."""


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    request_id: int
    payload: bytes


def packed(kind: int, request_id: int, payload: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(payload)
    head = HEAD.pack(MAGIC, VERSION, kind, 0, request_id, len(payload), checksum)
    return b"".join((head, CHECKSUM.pack(zlib.crc32(head)), payload))


def read_frame(peer: socket.socket) -> Frame | None:
    """The next frame; None at the end of the stream. Raises: Corruption, OSError."""
    first = peer.recv(HEAD.size + CHECKSUM.size)
    if not first:
        return None
    whole = first + read_exactly(peer, HEAD.size + CHECKSUM.size - len(first))
    head = whole[: HEAD.size]
    if CHECKSUM.unpack(whole[HEAD.size :])[0] != zlib.crc32(head):
        raise Corruption("evaluate frame: head checksum")
    magic, version, kind, _, request_id, length, checksum = HEAD.unpack(head)
    if magic != MAGIC or version != VERSION:
        raise Corruption(f"evaluate frame: version {version}, this build speaks {VERSION}")
    if length > (PIECE_BYTES if kind == PIECE else JSON_BYTES_MAX):
        raise Corruption(f"evaluate frame: {length} bytes")
    payload = read_exactly(peer, length)
    if zlib.crc32(payload) != checksum:
        raise Corruption("evaluate frame: payload checksum")
    return Frame(kind, request_id, payload)


def read_exactly(peer: socket.socket, count: int) -> bytes:
    """Raises: Corruption (the stream ends before), OSError."""
    buffer = bytearray(count)
    view, filled = memoryview(buffer), 0
    while filled < count:
        got = peer.recv_into(view[filled:])
        if got == 0:
            raise Corruption("evaluate frame: cut off")
        filled += got
    return bytes(buffer)


def send_answer(
    peer: socket.socket, request_id: int, told: dict[str, Any], columns: Sequence[Column]
) -> None:
    """An answer's head and its columns' bytes, in pieces. Raises: OSError, TenantFault."""
    told["columns"] = [(name, kind, len(data)) for name, kind, data in columns]
    head = msgspec.json.encode(told)
    if len(head) > JSON_BYTES_MAX:
        raise TenantFault(422, "sluiceway-query-bytes-limit", "the answer's head is too long")
    peer.sendall(packed(ANSWER, request_id, head))
    for _, _, data in columns:
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            peer.sendall(packed(PIECE, request_id, view[start : start + PIECE_BYTES]))


def send_error(peer: socket.socket, request_id: int, error: SluicewayError) -> None:
    """Raises: OSError."""
    peer.sendall(packed(ERROR, request_id, msgspec.json.encode(error_told(error))))


def error_told(error: SluicewayError) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "backend", "message": str(error)}
    match error:
        case TenantFault():
            return told | {"type": "client", "id": error.id, "status": error.status}
        case Overloaded():
            return told | {"type": "overloaded", "retry_after_s": error.retry_after_s}
        case Corruption():
            return told | {"type": "corruption"}
        case DeadlineExceeded():
            return told | {"type": "deadline"}
        case Cancelled():
            return told | {"type": "cancelled"}
    return told


def error_of(told: dict[str, Any]) -> SluicewayError:
    """What `error_told` told."""
    message = str(told.get("message", ""))
    match told.get("type"):
        case "client":
            return TenantFault(int(told.get("status", 400)), str(told.get("id", "")), message)
        case "overloaded":
            return Overloaded(float(told.get("retry_after_s", 1.0)), message)
        case "corruption":
            return Corruption(message)
        case "deadline":
            return DeadlineExceeded(message)
        case "cancelled":
            return Cancelled(message)
    return BackendUnavailable(message)


def ask(path: str, request: dict[str, Any], timeout_s: float) -> Any:
    """A question whose answer is one JSON column, on a connection of its own. Raises:
    SluicewayError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(timeout_s)
            peer.connect(path)
            peer.sendall(packed(REQUEST, 1, msgspec.json.encode(request)))
            return read_json(peer)
    except TimeoutError:
        raise DeadlineExceeded("the shard is late") from None
    except OSError as error:
        raise BackendUnavailable(f"the shard does not answer: {error}") from error


def ask_all(
    members: Sequence[tuple[str, str]], request: dict[str, Any], timeout_s: float
) -> list[Any]:
    """A question to every shard at once, by its name and socket: their answers, in order. Raises:
    BackendUnavailable (names those that do not answer), and what any says of the question."""
    with ThreadPoolExecutor(max(1, len(members)), "ask") as pool:
        asked = [pool.submit(ask, path, request, timeout_s) for _, path in members]
    answers, missing = [], []
    for (name, _), future in zip(members, asked, strict=True):
        try:
            answers.append(future.result())
        except (BackendUnavailable, DeadlineExceeded) as error:
            missing.append(f"shard {name}, one of {len(members)}, does not answer: {error}")
    if missing:
        raise BackendUnavailable("; ".join(missing))
    return answers


def read_json(peer: socket.socket) -> Any:
    """An answer's one JSON column. Raises: SluicewayError, OSError."""
    frame = read_frame(peer)
    if frame is None:
        raise BackendUnavailable("the shard closed the connection")
    told = msgspec.json.decode(frame.payload)
    if frame.kind == ERROR:
        raise error_of(told)
    (column,) = told["columns"]
    data = bytearray()
    while len(data) < column[2]:
        piece = read_frame(peer)
        if piece is None or piece.kind != PIECE:
            raise BackendUnavailable("the answer ended early")
        data += piece.payload
    return msgspec.json.decode(bytes(data))
