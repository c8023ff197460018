"""The read side's HTTP server: on a Unix socket that only this user may open."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def http_server(app: Callable[..., Awaitable[None]], socket_path: str) -> QuietServer:
    """A server on `socket_path`; the directory's mode keeps others out."""
    config = uvicorn.Config(
        app,
        uds=socket_path,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=1,
    )
    return QuietServer(config)
