"""A TCP proxy that passes whole requests on, waits for the answer, and sometimes cuts it."""

from __future__ import annotations

import contextlib
import random
import socket
import threading


class CuttingProxy:
    """Of the answers that come back, `percent` are not passed on: the connection is reset."""

    def __init__(self, target_port: int, percent: int, seed: int) -> None:
        self.target_port, self.percent = target_port, percent
        self.chance = random.Random(seed)
        self.cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> CuttingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # A blocked accept() is not woken by close().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.target_port)) as server,
        ):
            pump = threading.Thread(target=self._pass_on, args=(client, server), daemon=True)
            pump.start()
            while answer := server.recv(1 << 16):
                if self.chance.randrange(100) < self.percent:
                    self.cut += 1
                    break
                client.sendall(answer)
            for side in (client, server):
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
            pump.join()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
