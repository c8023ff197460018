"""Threads of the hot shard stand back from the acks, each by itself."""

import os
import threading

from sluiceway.processor.hot_shard import run_at


def test_only_the_thread_itself_stands_back() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    seen: list[int] = []
    thread = threading.Thread(
        target=run_at, args=(7, lambda: seen.append(os.getpriority(os.PRIO_PROCESS, 0)))
    )
    thread.start()
    thread.join()
    assert seen == [7] and before != 7
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
