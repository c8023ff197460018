"""The few protobuf messages that OTLP's answers are made of, written by hand.

    ExportMetricsServiceResponse { partial_success = 1 { rejected_data_points = 1 varint,
                                                         error_message = 2 string } }
    google.rpc.Status            { code = 1 varint, message = 2 string, details = 3 Any }
    google.rpc.RetryInfo         { retry_delay = 1 Duration { seconds = 1 varint } }

Invariant: field numbers below are those of the published .proto files.
"""

RETRY_INFO_URL = b"type.googleapis.com/google.rpc.RetryInfo"

# google.rpc.Code
INVALID_ARGUMENT = 3
RESOURCE_EXHAUSTED = 8
UNAVAILABLE = 14


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def number_field(field: int, number: int) -> bytes:
    return varint(field << 3) + varint(number) if number else b""


def bytes_field(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def partial_success(rejected: int, message: str) -> bytes:
    """An ExportMetricsServiceResponse that tells of refused points."""
    return bytes_field(1, number_field(1, rejected) + bytes_field(2, message.encode()))


def status(code: int, message: str, retry_after_s: int | None = None) -> bytes:
    """A google.rpc.Status, with a RetryInfo where the sender may come back."""
    out = number_field(1, code) + bytes_field(2, message.encode())
    if retry_after_s is not None:
        info = bytes_field(1, number_field(1, retry_after_s))
        out += bytes_field(3, bytes_field(1, RETRY_INFO_URL) + bytes_field(2, info))
    return out
