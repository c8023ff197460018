"""Where large things that tests fetch once are kept: the user's cache directory."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def fetched(name: str, fetch: Callable[[Path], Path]) -> Path:
    """The cached directory, made by `fetch` if it is not there. `fetch` works in an empty directory
    and says which of its directories is wanted: that one appears whole or not at all."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sluiceway-tests"
    directory = cache / name
    if directory.is_dir():
        return directory
    fresh = cache / f"fetching-{name}-{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        made = fetch(fresh)
        try:
            made.rename(directory)
        except OSError:
            if not directory.is_dir():  # else another test process was first
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return directory
