"""Files whose checksum stands in their own trailer, looked into: is each page what was written?

Invariant: memory holds one page at a time; nothing is changed.
"""

from pathlib import Path

import msgspec

from sluiceway.errors import SluicewayError
from sluiceway.kernels import ColdFile, Disk, check_block, verify_warm_file

BLOCK_SUFFIX, WARM_SUFFIX, COLD_SUFFIX = ".block", ".swm", ".parquet"


class BlockCheck(msgspec.Struct, frozen=True):
    """What reading all pages of a block found."""

    pages: int
    damaged_pages: int
    damaged_points: int
    words: str


def wrong_inside(place: Path) -> str:
    """What is wrong with the pages of a block, a warm file or a cold object, in a few words; empty
    where they are whole, and of any other file. Blocks. Raises: OSError."""
    disk, name = Disk.real(str(place.parent)), place.name
    try:
        if name.endswith(BLOCK_SUFFIX):
            found = msgspec.json.decode(check_block(disk, name), type=BlockCheck)
            if found.damaged_pages:
                return (
                    f"{found.damaged_pages} of {found.pages} pages are damaged, with"
                    f" {found.damaged_points:,} points; the first: {found.words}"
                )
        elif name.endswith(WARM_SUFFIX):
            verify_warm_file(disk, name)
        elif name.endswith(COLD_SUFFIX):
            ColdFile(disk, name).verify()
    except SluicewayError as error:
        return str(error)
    return ""
