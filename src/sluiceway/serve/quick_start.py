"""What makes a start quick: called before anything large is imported.

Invariant: it changes how long the start takes, and nothing that can be seen later.
"""

import gc
import os
import sys


def quick_start() -> None:
    """Leave out of the start what costs a fifth of it and is not used.

    The collector walks modules that never die; the caller freezes what is there and enables it when
    the doors are open. structlog imports `rich` where it finds it, for tracebacks that we never
    print; pydantic reads the metadata of every installed package in search of plugins.
    """
    gc.disable()
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
