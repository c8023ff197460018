"""The typed door to Rust: every other module imports kernels from here, never `_kernels`.

Invariant: a kernel drops the GIL while it works; arguments are borrowed for the call only. The
contracts stand in `_kernels.pyi`.
"""

from sluiceway._kernels import (
    CancelToken,
    Columns,
    Disk,
    EvaluateServer,
    HyperLogLog,
    Journal,
    LabelTable,
    MemoryShard,
    RawPoints,
    Receipt,
    Shard,
    ShardClient,
    States,
    aggregate_columns,
    arm_mutant,
    check_regex,
    decode_summary,
    detached_ns,
    format_float,
    gil_reacquisitions,
    is_quick,
    merge_blocks,
    merge_states,
    merge_warm,
    mutant_on,
    range_function,
    read_block,
    read_letters,
    read_seal,
    strip_warm_file,
    time_detached,
    verify_warm_file,
    warm_usage,
    write_block,
    write_matrix,
    write_points,
    write_series,
    write_vector,
    write_warm_file,
)

# Codes of the record format (kernels/src/model.rs): the door's payload and its compression.
FORMAT_REMOTE_WRITE_1 = 1
FORMAT_REMOTE_WRITE_2 = 2
FORMAT_OTLP_PROTOBUF = 3
FORMAT_OTLP_JSON = 4
ENCODING_IDENTITY = 0
ENCODING_SNAPPY = 1
ENCODING_GZIP = 2
ENCODING_ZSTD = 3

__all__ = [
    "ENCODING_GZIP",
    "ENCODING_IDENTITY",
    "ENCODING_SNAPPY",
    "ENCODING_ZSTD",
    "FORMAT_OTLP_JSON",
    "FORMAT_OTLP_PROTOBUF",
    "FORMAT_REMOTE_WRITE_1",
    "FORMAT_REMOTE_WRITE_2",
    "CancelToken",
    "Columns",
    "Disk",
    "EvaluateServer",
    "HyperLogLog",
    "Journal",
    "LabelTable",
    "MemoryShard",
    "RawPoints",
    "Receipt",
    "Shard",
    "ShardClient",
    "States",
    "aggregate_columns",
    "arm_mutant",
    "check_regex",
    "decode_summary",
    "detached_ns",
    "format_float",
    "gil_reacquisitions",
    "is_quick",
    "merge_blocks",
    "merge_states",
    "merge_warm",
    "mutant_on",
    "range_function",
    "read_block",
    "read_letters",
    "read_seal",
    "strip_warm_file",
    "time_detached",
    "verify_warm_file",
    "warm_usage",
    "write_block",
    "write_matrix",
    "write_points",
    "write_series",
    "write_vector",
    "write_warm_file",
]
