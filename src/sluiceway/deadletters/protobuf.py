"""The few pieces of protobuf's wire format that a replayed body is made of.

Invariant: pure functions; a number is written as the unsigned 64-bit value with its bits.
"""

MASK = (1 << 64) - 1


def varint(value: int) -> bytes:
    value &= MASK
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def number(field_number: int, value: int) -> bytes:
    return varint(field_number << 3) + varint(value)


def double(field_number: int, eight_bytes: bytes) -> bytes:
    return varint(field_number << 3 | 1) + eight_bytes


def field(field_number: int, data: bytes) -> bytes:
    """Bytes, a text, a message or packed numbers."""
    return varint(field_number << 3 | 2) + varint(len(data)) + data
