"""Logs of the processes: one line an event, on standard error.

Invariant: nothing logs a line per request; refusals are counted, not written.
"""

import logging
import sys


def set_up_logs(level: str) -> None:
    """Send every logger of ours, and the server's warnings, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("sluiceway").setLevel(level.upper())
    # A malformed request is the client's doing: it is answered, and not worth a line.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
