"""The server of `igpt-run web` in a thread, and a client of it."""

import asyncio
import contextlib
import http.client
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from igpt_runtime.web.server import LOOPBACK, Server
from igpt_runtime.web.site import Site


@contextmanager
def serving(site: Site) -> Iterator[int]:
    """The port of a server in a thread of its own."""
    started: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = queue.Queue()

    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None
        started.put((asyncio.get_running_loop(), task))
        with contextlib.suppress(asyncio.CancelledError):
            await server.run()

    with Server(site, 0) as server:
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        loop, task = started.get()
        try:
            yield server.port
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()


class Client:
    """Asks the server at a port."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(
        self, path: str, method: str = "GET", host: str | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        with closing(http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)) as connection:
            connection.request(method, path, headers={} if host is None else {"Host": host})
            response = connection.getresponse()
            return response, response.read()

    def connect(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.port), timeout=10)

    def raw(self, request: bytes) -> bytes:
        """All that is answered to bytes, after which nothing more is sent."""
        with self.connect() as connection:
            with contextlib.suppress(OSError):  # it may have been refused before it was read to its end
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(1 << 16):
                    answer += part
            return answer
