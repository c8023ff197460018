"""Files of windows that lie on an object store, as local files for as long as a query reads them.

Invariant: at most `FETCHES_MAX` objects are on their way at once, over all queries, and the cache
stays within its bytes; who waits for one gives up at the query's deadline or end.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sluiceway.errors import BackendUnavailable, Cancelled, Corruption, DeadlineExceeded
from sluiceway.kernels import CancelToken
from sluiceway.objects.cache import ObjectCache
from sluiceway.objects.interface import ObjectMissing
from sluiceway.query.files import FileAway
from sluiceway.tiers.catalog import TierFile

FETCHES_MAX = 8
LOOK_S = 0.1
"""Between two looks whether the asker is still there."""
CACHE_DIRECTORY = "cache/objects"
Fetched = tuple[AbstractContextManager[Path], Path]


class ObjectFiles:
    """One process's. Thread-safe."""

    def __init__(self, data_dir: Path, cache: ObjectCache) -> None:
        self._data_dir = data_dir
        self._cache = cache
        self._pool = ThreadPoolExecutor(FETCHES_MAX, "objects")

    @contextmanager
    def local(
        self, files: Mapping[str, TierFile], left_s: Callable[[], float], cancel: CancelToken | None
    ) -> Iterator[dict[str, str]]:
        """By path of a remote file the path, below the data directory, where it is to be read.

        Raises: FileAway (damaged, or not to be had now), DeadlineExceeded, Cancelled.
        """
        wanted = {path: file for path, file in files.items() if not self._here(path)}
        coming = {path: self._pool.submit(self._fetch, file) for path, file in wanted.items()}
        try:
            found = {path: self._arrived(path, coming[path], left_s, cancel) for path in coming}
            below = self._data_dir
            yield {path: str(place.relative_to(below)) for path, place in found.items()}
        finally:
            for future in coming.values():
                if not future.cancel():
                    future.add_done_callback(let_go)

    def _here(self, path: str) -> bool:
        return (self._data_dir / path).exists()

    def _fetch(self, file: TierFile) -> Fetched:
        held = self._cache.open(file.object_name, file.bytes, file.object_crc32)
        return held, held.__enter__()

    def _arrived(
        self,
        path: str,
        future: Future[Fetched],
        left_s: Callable[[], float],
        cancel: CancelToken | None,
    ) -> Path:
        while True:
            try:
                return future.result(timeout=max(0.0, min(LOOK_S, left_s())))[1]
            except Late:
                if cancel is not None and cancel.cancelled():
                    raise Cancelled("the asker is gone") from None
                if left_s() <= 0:
                    raise DeadlineExceeded(f"waiting for object {path}") from None
            except ObjectMissing:
                raise FileAway(path, f"{path}: the store has no such object", False) from None
            except Corruption as error:
                raise FileAway(path, str(error), False) from None
            except BackendUnavailable as error:
                raise FileAway(path, str(error), True) from None


def let_go(future: Future[Fetched]) -> None:
    """The cache may drop it again."""
    if not future.cancelled() and future.exception() is None:
        future.result()[0].__exit__(None, None, None)
